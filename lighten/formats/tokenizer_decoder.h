// Tokens -> text: the "decoder" of a tokenizer.json.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "lighten/base/options.h"
#include "lighten/formats/pretokenizer_regex.h"

namespace lighten::formats {

/// A chain of rewritings of the list of tokens, joined at the end. Immutable.
class Decoder {
 public:
  Decoder() = default;  ///< none: tokens are joined by spaces, as the reference does
  /// From the JSON of the field (null: none). Throws FormatError that begins with `where`.
  Decoder(const Json& json, const std::string& where);

  /// Text of the tokens (each valid UTF-8, as written in the vocabulary).
  std::string decode(std::vector<std::string> tokens) const;
  /// Raw bytes that a token adds when it follows others; may be part of a character.
  std::string piece(const std::string& token) const;

 private:
  enum class Kind { byte_level, byte_fallback, fuse, replace, strip, word_piece, metaspace };
  struct Step {
    Kind kind = Kind::fuse;
    std::string literal, content;  // replace; strip, metaspace: the character; word_piece: the prefix
    std::optional<Regex> regex;    // replace
    size_t start = 0, stop = 0;    // strip
    bool flag = false;             // word_piece: clean up; metaspace: the first mark is no space
  };
  void parse(const Json& json, const std::string& where, int depth);
  static void apply(const Step& step, std::vector<std::string>& tokens);
  std::vector<Step> steps_;
};

/// The byte of a token like <0x0A>, or -1.
int fallback_byte(std::string_view token);

}  // namespace lighten::formats
