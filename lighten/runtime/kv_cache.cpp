#include "lighten/runtime/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "lighten/base/error.h"

namespace lighten::runtime {
namespace {
constexpr int64_t kFirstRoom = 256;
}

Cache::Cache(const ModelConfig& config, bool exact, int64_t limit)
    : exact_(exact),
      width_(config.kv_heads * config.head_dim),
      limit_(limit),
      element_(exact ? sizeof(float) : sizeof(Half)),
      layers_(static_cast<size_t>(config.layers)) {}

void Cache::truncate(int64_t length) {
  if (length < 0 || length > length_) throw_error<OptionError>("a KV cache of {} tokens cannot be cut to {}", length_, length);
  length_ = length;
}

uint64_t Cache::bytes() const { return static_cast<uint64_t>(room_ * width_) * element_ * 2 * layers_.size(); }

bool Cache::fits(const ModelConfig& config, bool exact) const {
  return exact == exact_ && width_ == config.kv_heads * config.head_dim && layers_.size() == static_cast<size_t>(config.layers);
}

void Cache::reserve(int64_t positions) {
  if (positions > limit_)
    throw_error<OptionError>(
        "the context is full: {} tokens are needed, but there is room for {}; shorten the text or start anew", positions,
        limit_);
  if (positions <= room_) return;
  const int64_t room = std::min(limit_, std::max({positions, room_ * 2, kFirstRoom}));
  const auto grow = [&](AlignedBytes& bytes) {
    AlignedBytes larger(static_cast<size_t>(room * width_) * element_);
    if (length_ > 0) std::memcpy(larger.data(), bytes.data(), static_cast<size_t>(length_ * width_) * element_);
    bytes = std::move(larger);
  };
  room_ = 0;  // nothing may be used if memory runs out half way
  for (Layer& layer : layers_) {
    grow(layer.k);
    grow(layer.v);
  }
  room_ = room;
}

void Cache::store(int64_t layer, int64_t position, const float* k, const float* v) {
  Layer& into = layers_[static_cast<size_t>(layer)];
  const size_t offset = static_cast<size_t>(position * width_) * element_;
  const auto put = [&](std::byte* out, const float* values) {
    if (exact_)
      std::memcpy(out, values, static_cast<size_t>(width_) * sizeof(float));
    else
      to_half(values, reinterpret_cast<Half*>(out), width_);
  };
  put(into.k.data() + offset, k);
  put(into.v.data() + offset, v);
}

KvView Cache::view(int64_t layer) const {
  const Layer& from = layers_[static_cast<size_t>(layer)];
  if (exact_)
    return {.k32 = reinterpret_cast<const float*>(from.k.data()), .v32 = reinterpret_cast<const float*>(from.v.data())};
  return {.k16 = reinterpret_cast<const Half*>(from.k.data()), .v16 = reinterpret_cast<const Half*>(from.v.data())};
}

}  // namespace lighten::runtime
