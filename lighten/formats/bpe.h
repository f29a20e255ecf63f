// Byte-pair encoding: a word's characters, joined pair by pair in the order of the learned merges.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lighten/formats/tokenizer_vocabulary.h"

namespace lighten::formats {

/// A merge by ids: left + right -> whole. Its place in the list is its rank; the lowest rank is joined first.
struct Merge {
  int32_t left, right, whole;
};

struct BpeOptions {
  int32_t unknown = -1;             ///< id for characters that have none; -1: they are left out
  bool fuse_unknown = false;        ///< a run of unknown characters becomes one id
  bool byte_fallback = false;       ///< unknown characters become <0xNN> tokens if the vocabulary has them
  bool ignore_merges = false;       ///< a word that is a token stays whole
  std::string subword_prefix = "";  ///< stands before every character but the first ("##")
  std::string word_suffix = "";     ///< stands behind the last character ("</w>")
};

/// Ids equal the reference's; time n log n in a word's length. Immutable.
class Bpe {
 public:
  Bpe() = default;
  /// The vocabulary must outlive this object.
  Bpe(const Vocabulary& vocabulary, std::vector<Merge> merges, BpeOptions options);

  /// Appends the ids of `word` (valid UTF-8).
  void encode(std::string_view word, std::vector<int32_t>& ids) const;
  /// Appends every id that stands anywhere while `word` is merged: its characters, then each merge's result. Time: square of
  /// the length.
  void merge_path(std::string_view word, std::vector<int32_t>& path) const;
  /// Calls part(text) for parts that may be encoded apart: where no merge reaches over the start of a U+2581, words end there.
  template <typename Part>
  void each_part(std::string_view word, Part&& part) const {
    constexpr std::string_view mark = "\u2581";
    size_t start = 0;
    for (size_t at = cut_at_marks_ ? word.find(mark) : std::string_view::npos; at != std::string_view::npos;
         at = word.find(mark, at + mark.size())) {
      if (at == start || word.substr(start, at - start).ends_with(mark)) continue;
      part(word.substr(start, at - start));
      start = at;
    }
    if (start < word.size()) part(word.substr(start));
  }
  const std::vector<Merge>& merges() const { return merges_; }

 private:
  int32_t character_id(std::string_view character) const;
  void append_characters(std::string_view word, std::vector<int32_t>& ids) const;
  /// Rank of the merge of two ids, kNone if there is none.
  uint32_t rank(int32_t left, int32_t right) const;
  size_t merge_few(int32_t* ids, size_t count) const;
  size_t merge_many(int32_t* ids, size_t count) const;
  bool marks_only_start_words() const;

  static constexpr uint32_t kNone = UINT32_MAX;
  const Vocabulary* vocabulary_ = nullptr;
  std::vector<Merge> merges_;
  std::vector<uint32_t> slots_;
  size_t mask_ = 0;
  BpeOptions options_;
  std::array<int32_t, 0x800> short_characters_{};  // ids of characters of one or two bytes
  std::array<int32_t, 256> fallback_{};
  bool cut_at_marks_ = false;
};

}  // namespace lighten::formats
