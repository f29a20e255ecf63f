// Keys and values of one sequence, in pages that sequences with the same past share.
#pragma once
#include <memory>
#include <vector>

#include "lighten/formats/model_config.h"
#include "lighten/kernels/attention.h"
#include "lighten/runtime/aligned_bytes.h"
#include "lighten/runtime/model.h"

namespace lighten::runtime {

/// A page holds 64 positions of every layer; pages come as positions are needed, up to `limit` positions. A page that another
/// cache shares is copied before it is written.
class Cache final : public KvCache {
 public:
  Cache(const ModelConfig& config, KvFormat format, int64_t limit);
  int64_t length() const override { return length_; }
  int64_t capacity() const override { return limit_; }
  void truncate(int64_t length) override;
  uint64_t bytes() const override;
  std::unique_ptr<KvCache> fork(int64_t length) const override;

  /// Makes room for positions 0 .. positions - 1, of which those from length() on may be written. Throws OptionError past the
  /// limit.
  void reserve(int64_t positions);
  /// Stores the keys and values [kv_heads, head_dim] of one position.
  void store(int64_t layer, int64_t position, const float* k, const float* v);
  KvView view(int64_t layer) const;
  void set_length(int64_t length) { length_ = length; }
  bool fits(const ModelConfig& config, KvFormat format) const;

 private:
  using Page = std::shared_ptr<const AlignedBytes>;
  size_t keys(int64_t layer) const { return static_cast<size_t>(2 * layer) * side_bytes_; }
  void set_page(size_t index, Page page);

  KvFormat format_;
  int64_t layers_, kv_heads_, head_dim_, limit_, length_ = 0;
  size_t side_bytes_;  ///< of the keys, or the values, of one layer in a page
  std::vector<Page> pages_;
  std::vector<const std::byte*> addresses_;  ///< of the pages
};

}  // namespace lighten::runtime
