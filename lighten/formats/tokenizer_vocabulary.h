// Tokens and their ids in three flat arrays.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lighten::formats {

/// FNV-1a, one byte at a time, so that the hash of a prefix can be carried on.
constexpr uint64_t kHashStart = 0xcbf29ce484222325;
constexpr uint64_t hash_byte(uint64_t hash, char byte) { return (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3; }
constexpr uint64_t hash_of(std::string_view text) {
  uint64_t hash = kHashStart;
  for (const char byte : text) hash = hash_byte(hash, byte);
  return hash;
}

/// A token list as it was read, before it is checked.
struct TokenList {
  std::string text;  ///< all tokens, one after another
  struct Entry {
    uint32_t offset, length;
    int64_t id;
  };
  std::vector<Entry> entries;

  void add(std::string_view token, int64_t id);
  std::string_view token(const Entry& entry) const { return std::string_view(text).substr(entry.offset, entry.length); }
};

/// Token <-> id. Ids may have gaps.
class Vocabulary {
 public:
  static constexpr int64_t kMostIds = 1 << 24;

  Vocabulary() = default;
  /// Throws FormatError that begins with `where`: an id out of range, an id or a token that occurs twice, text that is not
  /// UTF-8.
  Vocabulary(TokenList tokens, const std::string& where);

  int32_t find(std::string_view token) const { return find(token, hash_of(token)); }
  int32_t find(std::string_view token, uint64_t hash) const {  ///< -1: not there
    for (size_t i = slot_of(hash);; i = (i + 1) & mask_) {
      const int32_t id = slots_[i];
      if (id < 0 || this->token(id) == token) return id;
    }
  }
  bool has(int32_t id) const { return id >= 0 && id < size() && places_[id].length != kGap; }
  std::string_view token(int32_t id) const { return {text_.data() + places_[id].offset, places_[id].length}; }  ///< has(id)
  int32_t size() const { return static_cast<int32_t>(places_.size()); }  ///< largest id + 1
  size_t count() const { return count_; }                                ///< ids that are taken
  size_t longest() const { return longest_; }                            ///< bytes of the longest token

 private:
  static constexpr uint32_t kGap = UINT32_MAX;
  struct Place {
    uint32_t offset = 0, length = kGap;
  };
  size_t slot_of(uint64_t hash) const { return (hash ^ hash >> 29) & mask_; }

  std::string text_;
  std::vector<Place> places_;
  std::vector<int32_t> slots_{-1};
  size_t mask_ = 0, count_ = 0, longest_ = 0;
};

/// Smallest power of two with room for `count` entries at no more than half load.
size_t table_size(size_t count);

}  // namespace lighten::formats
