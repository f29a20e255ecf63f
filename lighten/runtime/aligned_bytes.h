// Memory for packed weights.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace lighten::runtime {

/// How AlignedBytes come and go.
struct GiveBytesBack {
  size_t size = 0;
  static constexpr size_t kHugePage = size_t{2} << 20;

#if defined(__linux__)
  /// Large ones are mappings that begin at a huge page and hold no more than is needed.
  static bool maps(size_t size) { return size >= kHugePage; }
  static std::byte* map(size_t size) {
    void* const all = ::mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) throw std::bad_alloc();
    auto* const begin = static_cast<std::byte*>(all);
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
    const size_t used = (size + page - 1) / page * page;
    if (before > 0) ::munmap(begin, before);
    if (before + used < size + kHugePage) ::munmap(begin + before + used, size + kHugePage - before - used);
    ::madvise(begin + before, used, MADV_HUGEPAGE);
    return begin + before;
  }
  static void unmap(std::byte* bytes, size_t size) { ::munmap(bytes, size); }
#else
  static bool maps(size_t) { return false; }
  static std::byte* map(size_t) { return nullptr; }
  static void unmap(std::byte*, size_t) {}
#endif

  void operator()(std::byte* bytes) const {
    if (maps(size))
      unmap(bytes, size);
    else
      std::free(bytes);
  }
};

/// 64-byte aligned bytes that own themselves. Not cleared. Large ones lie in huge pages where the system gives them: reading
/// the weights of a 1B model through pages of 4 KB costs a quarter of the speed.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(size_t size) : data_(take(size), GiveBytesBack{size}), size_(size) {}
  std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  static std::byte* take(size_t size) {
    if (GiveBytesBack::maps(size)) return GiveBytesBack::map(size);
    auto* const bytes = static_cast<std::byte*>(std::aligned_alloc(64, (size + 63) / 64 * 64));
    if (bytes == nullptr && size > 0) throw std::bad_alloc();
    return bytes;
  }
  std::unique_ptr<std::byte, GiveBytesBack> data_;
  size_t size_ = 0;
};

}  // namespace lighten::runtime
