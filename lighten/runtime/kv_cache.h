// Keys and values of one sequence, layer by layer.
#pragma once
#include <memory>
#include <vector>

#include "lighten/formats/model_config.h"
#include "lighten/kernels/attention.h"
#include "lighten/runtime/aligned_bytes.h"
#include "lighten/runtime/model.h"

namespace lighten::runtime {

/// For each layer [positions, kv_heads, head_dim] keys and as many values, f16 or (exact) f32. Memory grows by doubling up to
/// `limit` positions.
class Cache final : public KvCache {
 public:
  Cache(const ModelConfig& config, bool exact, int64_t limit);
  int64_t length() const override { return length_; }
  int64_t capacity() const override { return limit_; }
  void truncate(int64_t length) override;
  uint64_t bytes() const override;

  /// Makes room for positions 0 .. positions - 1. Throws OptionError past the limit.
  void reserve(int64_t positions);
  /// Stores the keys and values [kv_heads, head_dim] of one position.
  void store(int64_t layer, int64_t position, const float* k, const float* v);
  KvView view(int64_t layer) const;
  void set_length(int64_t length) { length_ = length; }
  bool fits(const ModelConfig& config, bool exact) const;

 private:
  struct Layer {
    AlignedBytes k, v;
  };
  bool exact_;
  int64_t width_, limit_, length_ = 0, room_ = 0;
  size_t element_;
  std::vector<Layer> layers_;
};

}  // namespace lighten::runtime
