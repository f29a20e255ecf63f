// The regular expressions of pre-tokenizers, with the meaning that the reference gives them.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace lighten::formats {

/// A pattern in the dialect of tokenizer.json (Oniguruma), run by PCRE2. \s, \w, \d, \h and \p{..} are spelled out where the
/// two disagree, and letters newer than PCRE2's Unicode are added. Immutable; safe to use from several threads.
class Regex {
 public:
  /// Throws FormatError that begins with `where`.
  Regex(const std::string& pattern, const std::string& where);
  /// Next match at or after `from`; false if there is none. `text` must be valid UTF-8.
  /// Throws FormatError when the pattern needs unreasonably long on this text.
  bool find(std::string_view text, size_t from, size_t& start, size_t& end) const;
  /// Calls match(start, end) for every match; an empty match right after another one is passed over.
  template <typename Match>
  void for_each_match(std::string_view text, Match&& match) const {
    size_t at = 0, start = 0, end = 0, last = std::string_view::npos;
    while (at <= text.size() && find(text, at, start, end)) {
      if (end == start && last == end) {
        do ++at;
        while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
        continue;
      }
      at = last = end;
      match(start, end);
    }
  }

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

/// The pattern as PCRE2 must read it. Throws FormatError that begins with `where` for constructs that PCRE2 lacks.
std::string translate_pattern(const std::string& pattern, const std::string& where);

/// Patterns that are split by hand-written code (same words, several times faster).
enum class KnownPattern { none, gpt2, llama3, qwen2 };
KnownPattern known_pattern(std::string_view pattern);
std::string_view pattern_text(KnownPattern pattern);
/// End of the word that starts at `at`; these patterns match at every place.
size_t word_end(KnownPattern pattern, std::string_view text, size_t at);

}  // namespace lighten::formats
