// UTF-8, and what Unicode means to the reference tokenizers (their versions of Unicode differ by table; see
// tools/generate_unicode_tables.py).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace lighten::formats {

/// Decodes the character at `at` of *valid* UTF-8 and moves `at` past it.
inline char32_t next_character(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + i])); };
  const char32_t first = byte(0);
  if (first < 0x80) return ++at, first;
  char32_t c;
  if (first < 0xE0) {
    c = (first & 0x1F) << 6 | (byte(1) & 0x3F);
    at += 2;
  } else if (first < 0xF0) {
    c = (first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    at += 3;
  } else {
    c = (first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    at += 4;
  }
  return c;
}
/// Bytes of the character that starts with `first` in valid UTF-8.
inline size_t character_bytes(char first) {
  const auto b = static_cast<unsigned char>(first);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}
/// Start of the character before `at` (at > 0) in valid UTF-8.
inline size_t previous_character(std::string_view text, size_t at) {
  do --at;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}
void append_utf8(std::string& out, char32_t c);

bool is_valid_utf8(std::string_view text);
/// Appends `text` with each maximal invalid part replaced by U+FFFD, as Python's bytes.decode(errors="replace").
/// With `keep_tail` stops before a character that is cut off at the end. Returns the bytes consumed.
size_t append_valid_utf8(std::string& out, std::string_view text, bool keep_tail = false);

/// What a character is to the reference's splitters; several may hold.
enum CharacterClass : uint16_t {
  kLetter = 1,         ///< \p{L} of its regular expressions
  kNumber = 2,         ///< \p{N} of its regular expressions
  kSpace = 4,          ///< White_Space, 25 characters
  kWord = 8,           ///< \w of "Whitespace" and of whole-word added tokens
  kPunctuation = 16,   ///< "Punctuation" and "BertPreTokenizer"
  kDigit = 32,         ///< "Digits"
  kCombining = 64,     ///< erased by "StripAccents"
  kNonspacing = 128,   ///< erased by BertNormalizer's strip_accents after decomposition
  kUnprintable = 256,  ///< erased by BertNormalizer's clean_text
};
uint16_t character_class(char32_t c);
inline bool is_class(char32_t c, int classes) { return (character_class(c) & classes) != 0; }

std::string lowercase(std::string_view text);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
/// Canonical or compatible, composed or decomposed (Unicode Standard Annex 15).
std::string normalize(std::string_view text, NormalForm form);

/// Code points that the reference's regular expressions know and Unicode 14 does not.
struct NewerCategory {
  uint32_t first, last;
  char name[3];  ///< general category, "Lo"
};
std::span<const NewerCategory> newer_categories();

}  // namespace lighten::formats
