// A tokenizer without the tokens that a corpus does not need.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lighten/formats/tokenizer.h"

namespace lighten {

struct TrimVocabularyOptions {
  int64_t min_count = 1;               ///< a token that the corpus holds so many times stays
  int64_t tokens = 0;                  ///< fill up to so many with what text of the same kind may need; 0: the corpus alone
  int64_t rows = 0;                    ///< of the model's embedding: a token whose id is not below has no row and goes
  std::vector<int64_t> required = {};  ///< ids that stay anyway (BOS, ends); -1 and ids past `rows`: ignored
  std::string chat_template = {};      ///< what it writes stays too; "": none
};

struct TrimmedVocabulary {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::vector<int32_t> kept;  ///< [new ids] old id of each new one, ascending: the rows to gather

  int32_t new_id(int64_t old_id) const;  ///< -1: it went
};

/// Keeps, in their old order and numbered anew,
/// - tokens with `counts[id] >= min_count`, [tokenizer.size()];
/// - byte tokens (<0x00> to <0xFF>) and, where they are not all there, every token of one character, so that every text still
///   encodes; beside byte tokens the ASCII characters and those that the decoder rewrites (U+2581);
/// - added tokens (specials, markers of a chat, runs of spaces), except numbered placeholders (<unused7>,
///   <|reserved_special_token_7|>) that neither corpus nor chat template uses;
/// - BOS, EOS, the unknown token, those of the post-processor, `required`, and what a rendered chat consists of;
/// - every token on the way on which merges build one of these;
/// - up to `tokens` in all: those that consist of characters of the corpus's tokens, earliest merges first. A tokenizer learns
///   its merges in order of frequency, so these are the likeliest that the corpus happens to lack.
/// Merges stay if both parts and their result do. So with min_count 1 the corpus encodes to the same tokens as before, and any
/// text decodes to what it did before (the text of a placeholder that went is text now).
/// Throws FormatError that begins with `file`: no BPE, or BPE whose characters carry prefixes or suffixes.
TrimmedVocabulary trim_vocabulary(const Tokenizer& tokenizer, std::span<const int64_t> counts,
                                  const TrimVocabularyOptions& options, const std::string& file);

}  // namespace lighten
