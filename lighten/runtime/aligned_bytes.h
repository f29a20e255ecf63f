// Memory for packed weights.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace lighten::runtime {

/// 64-byte aligned bytes that own themselves. Not cleared.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(size_t size)
      : data_(static_cast<std::byte*>(std::aligned_alloc(64, (size + 63) / 64 * 64))), size_(size) {
    if (data_ == nullptr && size > 0) throw std::bad_alloc();
  }
  std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_ = 0;
};

}  // namespace lighten::runtime
