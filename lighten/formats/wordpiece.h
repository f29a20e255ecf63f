// WordPiece (BERT): a word is cut into the longest tokens from its start on.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lighten/formats/tokenizer_vocabulary.h"

namespace lighten::formats {

struct WordPieceOptions {
  int32_t unknown = -1;               ///< id of a word that cannot be cut
  std::string subword_prefix = "##";  ///< stands before every token but a word's first
  size_t longest_word = 100;          ///< characters; longer words are unknown
};

class WordPiece {
 public:
  WordPiece() = default;
  /// The vocabulary must outlive this object.
  WordPiece(const Vocabulary& vocabulary, WordPieceOptions options) : vocabulary_(&vocabulary), options_(std::move(options)) {}
  /// Appends the ids of `word` (valid UTF-8).
  void encode(std::string_view word, std::vector<int32_t>& ids) const;

 private:
  const Vocabulary* vocabulary_ = nullptr;
  WordPieceOptions options_;
};

}  // namespace lighten::formats
