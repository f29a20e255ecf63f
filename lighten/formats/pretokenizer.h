// Text -> words: the "pre_tokenizer" of a tokenizer.json.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lighten/base/options.h"
#include "lighten/formats/pretokenizer_regex.h"

namespace lighten::formats {

/// Takes words one after another; a word's text is valid during the call only.
struct WordSink {
  virtual ~WordSink() = default;
  virtual void word(std::string_view text) = 0;
};

/// What becomes of the places that a pattern matches.
enum class SplitBehaviour { removed, isolated, contiguous, merged_with_previous, merged_with_next };

/// A chain of splitters; each works on what the one before it left. Immutable.
class PreTokenizer {
 public:
  PreTokenizer() = default;  ///< none: the whole text is one word
  /// From the JSON of the field (null: none). Throws FormatError that begins with `where`.
  PreTokenizer(const Json& json, const std::string& where);

  /// Hands the words of `text` (valid UTF-8) to `sink` in order. `first`: the text starts the input (Metaspace asks).
  void split(std::string_view text, bool first, WordSink& sink) const;
  bool empty() const { return steps_.empty(); }

 private:
  enum class Kind { byte_level, split, digits, bert, whitespace, whitespace_split, metaspace, punctuation };
  struct Step {
    Kind kind = Kind::bert;
    SplitBehaviour behaviour = SplitBehaviour::isolated;
    bool invert = false;
    bool prefix_space = false;   // byte_level
    bool prefix_always = false;  // metaspace; prefix_space: on the first text only
    bool splits = true;          // metaspace
    std::string literal;         // split; metaspace: the mark
    std::optional<Regex> regex;  // split
    KnownPattern known = KnownPattern::none;
  };
  struct Run;

  void parse(const Json& json, const std::string& where, int depth);
  static Step parse_split(const Json& json, const std::string& where);
  static Step parse_metaspace(const Json& json, const std::string& where);
  std::vector<Step> steps_;
};

/// The character that stands for a byte in byte-level vocabularies (GPT-2's table): '!' for 0x21, U+0120 for a space.
const std::array<char16_t, 256>& byte_characters();
/// The byte that a character stands for, or -1.
int byte_of_character(char32_t c);
/// Every byte replaced by its character.
void append_byte_characters(std::string& out, std::string_view bytes);
/// The way back; nothing if a character stands for no byte.
std::optional<std::string> bytes_of_characters(std::string_view text);

/// "removed", "isolated", ... as written in tokenizer.json ("MergedWithPrevious"). Throws FormatError.
SplitBehaviour parse_behaviour(const Json& json, const std::string& name, const std::string& where);
/// {"String": s} or {"Regex": r}: sets one of the two. Throws FormatError.
void parse_pattern(const Json& json, const std::string& where, std::string& literal, std::optional<Regex>& regex,
                   KnownPattern* known = nullptr);

}  // namespace lighten::formats
