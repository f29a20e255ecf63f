// The word patterns of GPT-2, Llama 3 and Qwen 2 as code. Each function follows the alternatives of its pattern in order.
#include "lighten/formats/pretokenizer_regex.h"
#include "lighten/formats/unicode.h"

namespace lighten::formats {
namespace {

constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr int kOther = 1 << 15;  // none of letter, number, space
constexpr int kEnd = 0;

/// The one class of these patterns that the character at `at` has; moves `next` past it.
int class_at(std::string_view text, size_t at, size_t& next) {
  next = at;
  if (at >= text.size()) return kEnd;
  const int found = character_class(next_character(text, next)) & (kLetter | kNumber | kSpace);
  return found ? found : kOther;
}

size_t end_of_run(std::string_view text, size_t at, int wanted) {
  for (size_t next = at; class_at(text, at, next) == wanted; at = next) {
  }
  return at;
}

/// \s+(?!\S)|\s+ on the spaces [at, end): all at the end of the text, else all but the last unless it is alone.
size_t end_of_spaces(std::string_view text, size_t at, size_t end) {
  if (end == text.size()) return end;
  const size_t last = previous_character(text, end);
  return last > at ? last : end;
}

/// Length of 's 't 're 've 'm 'll 'd at `at`, 0 if there is none.
size_t contraction(std::string_view text, size_t at, bool any_case) {
  if (text[at] != '\'') return 0;
  const auto letter = [&](size_t i) {
    const char c = at + i < text.size() ? text[at + i] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char first = letter(1), second = letter(2);
  if (first == 's' || first == 't') return 2;
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  if (first == 'm' || first == 'd') return 2;
  if (first == 'l' && second == 'l') return 3;
  if (any_case && text.substr(at + 1).starts_with("\u017F")) return 3;  // the long s is an S in another case
  return 0;
}

size_t gpt2_word_end(std::string_view text, size_t at) {
  if (const size_t length = contraction(text, at, false)) return at + length;
  size_t next = 0;
  const int kind = class_at(text, at, next);
  if (kind != kSpace) return end_of_run(text, next, kind);
  if (text[at] == ' ') {
    size_t after = 0;
    const int following = class_at(text, next, after);
    if (following != kSpace && following != kEnd) return end_of_run(text, after, following);
  }
  return end_of_spaces(text, at, end_of_run(text, next, kSpace));
}

bool is_line_break(char c) { return c == '\r' || c == '\n'; }

size_t others_and_line_breaks(std::string_view text, size_t at) {
  at = end_of_run(text, at, kOther);
  while (at < text.size() && is_line_break(text[at])) ++at;
  return at;
}

size_t llama3_word_end(std::string_view text, size_t at, int most_digits) {
  if (const size_t length = contraction(text, at, true)) return at + length;
  size_t next = 0, after = 0;
  const int kind = class_at(text, at, next);
  if (kind == kLetter) return end_of_run(text, next, kLetter);
  if (kind == kNumber) {
    for (int i = 1; i < most_digits && class_at(text, next, after) == kNumber; ++i) next = after;
    return next;
  }
  const int following = class_at(text, next, after);
  if (following == kLetter && !is_line_break(text[at])) return end_of_run(text, after, kLetter);
  if (kind == kOther) return others_and_line_breaks(text, next);
  if (text[at] == ' ' && following == kOther) return others_and_line_breaks(text, after);
  const size_t end = end_of_run(text, next, kSpace);
  for (size_t i = end; i > at; --i)
    if (is_line_break(text[i - 1])) return i;
  return end_of_spaces(text, at, end);
}

}  // namespace

std::string_view pattern_text(KnownPattern pattern) {
  switch (pattern) {
    case KnownPattern::gpt2:
      return kGpt2;
    case KnownPattern::llama3:
      return kLlama3;
    case KnownPattern::qwen2:
      return kQwen2;
    default:
      return "";
  }
}

KnownPattern known_pattern(std::string_view pattern) {
  for (const KnownPattern known : {KnownPattern::gpt2, KnownPattern::llama3, KnownPattern::qwen2})
    if (pattern == pattern_text(known)) return known;
  return KnownPattern::none;
}

size_t word_end(KnownPattern pattern, std::string_view text, size_t at) {
  if (pattern == KnownPattern::gpt2) return gpt2_word_end(text, at);
  return llama3_word_end(text, at, pattern == KnownPattern::llama3 ? 3 : 1);
}

}  // namespace lighten::formats
