// The pixels of a set: in memory, or a mapped file of which only what is looked at is read.
#pragma once
#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace lighten {

/// Bytes that look like a vector when they are read. Sets of hundreds of megabytes stay on the disk until a sample is used, and
/// copies of a mapped one share it. Adding to mapped bytes copies them into memory first.
class Pixels {
 public:
  Pixels() = default;
  Pixels(std::vector<uint8_t> values) : own_(std::move(values)) {}
  Pixels(std::initializer_list<uint8_t> values) : own_(values) {}
  /// `bytes` stay valid as long as `owner` lives.
  Pixels(std::span<const uint8_t> bytes, std::shared_ptr<const void> owner) : mapped_(bytes), owner_(std::move(owner)) {}

  const uint8_t* data() const { return owner_ ? mapped_.data() : own_.data(); }
  size_t size() const { return owner_ ? mapped_.size() : own_.size(); }
  bool empty() const { return size() == 0; }
  bool mapped() const { return owner_ != nullptr; }
  const uint8_t* begin() const { return data(); }
  const uint8_t* end() const { return data() + size(); }
  uint8_t operator[](size_t i) const { return data()[i]; }
  bool operator==(const Pixels& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }

  void reserve(size_t bytes) { in_memory().reserve(bytes); }
  void push_back(uint8_t value) { in_memory().push_back(value); }
  void pop_back() { in_memory().pop_back(); }
  template <typename Iterator>
  void append(Iterator first, Iterator last) {
    in_memory().insert(own_.end(), first, last);
  }

 private:
  std::vector<uint8_t> own_;
  std::span<const uint8_t> mapped_;
  std::shared_ptr<const void> owner_;

  std::vector<uint8_t>& in_memory() {
    if (owner_) {
      own_.assign(mapped_.begin(), mapped_.end());
      mapped_ = {};
      owner_.reset();
    }
    return own_;
  }
};

}  // namespace lighten
