#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace lighten::test {

/// 64-byte aligned bytes.
class Blob {
 public:
  explicit Blob(size_t bytes) : memory_(bytes + 64), size_(bytes) {}
  std::byte* data() { return memory_.data() + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64; }
  size_t size() const { return size_; }

 private:
  std::vector<std::byte> memory_;
  size_t size_;
};

}  // namespace lighten::test
