#include "lighten/runtime/kv_cache.h"

#include <cstring>

#include "lighten/base/error.h"

namespace lighten::runtime {
namespace {
size_t pages_for(int64_t positions) { return static_cast<size_t>((positions + kPagePositions - 1) / kPagePositions); }
}  // namespace

Cache::Cache(const ModelConfig& config, KvFormat format, int64_t limit)
    : format_(format),
      layers_(config.layers),
      kv_heads_(config.kv_heads),
      head_dim_(config.head_dim),
      limit_(limit),
      side_bytes_(kv_page_bytes(format, config.kv_heads, config.head_dim)) {}

void Cache::truncate(int64_t length) {
  if (length < 0 || length > length_) throw_error<OptionError>("a KV cache of {} tokens cannot be cut to {}", length_, length);
  length_ = length;
  pages_.resize(pages_for(length));
  addresses_.resize(pages_.size());
}

uint64_t Cache::bytes() const { return pages_.size() * 2 * static_cast<size_t>(layers_) * side_bytes_; }

std::unique_ptr<KvCache> Cache::fork(int64_t length) const {
  auto copy = std::make_unique<Cache>(*this);
  copy->truncate(length);
  return copy;
}

bool Cache::fits(const ModelConfig& config, KvFormat format) const {
  return format == format_ && kv_heads_ == config.kv_heads && head_dim_ == config.head_dim && layers_ == config.layers;
}

void Cache::set_page(size_t index, Page page) {
  if (index == pages_.size()) {
    pages_.emplace_back();
    addresses_.emplace_back();
  }
  addresses_[index] = page->data();
  pages_[index] = std::move(page);
}

void Cache::reserve(int64_t positions) {
  if (positions > limit_)
    throw_error<OptionError>(
        "the context is full: {} tokens are needed, but there is room for {}; shorten the text or start anew", positions,
        limit_);
  const size_t bytes = 2 * static_cast<size_t>(layers_) * side_bytes_;
  for (auto index = static_cast<size_t>(length_ / kPagePositions); index < pages_for(positions); ++index) {
    if (index < pages_.size() && pages_[index].use_count() == 1) continue;
    auto page = std::make_shared<AlignedBytes>(bytes);
    if (index < pages_.size()) std::memcpy(page->data(), pages_[index]->data(), bytes);
    set_page(index, std::move(page));
  }
}

void Cache::store(int64_t layer, int64_t position, const float* k, const float* v) {
  std::byte* page = pages_[static_cast<size_t>(position / kPagePositions)]->data() + keys(layer);
  kv_store(format_, kv_heads_, head_dim_, k, position % kPagePositions, page);
  kv_store(format_, kv_heads_, head_dim_, v, position % kPagePositions, page + side_bytes_);
}

KvView Cache::view(int64_t layer) const {
  return {.pages = addresses_.data(), .keys = keys(layer), .values = keys(layer) + side_bytes_, .format = format_};
}

}  // namespace lighten::runtime
