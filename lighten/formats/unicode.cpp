#include "lighten/formats/unicode.h"

#include <algorithm>
#include <iterator>
#include <vector>

namespace lighten::formats {
namespace {

#include "lighten/formats/unicode_tables.inc"

constexpr char32_t kHangulBase = 0xAC00, kLeadBase = 0x1100, kVowelBase = 0x1161, kTrailBase = 0x11A7;
constexpr char32_t kLeads = 19, kVowels = 21, kTrails = 28, kSyllables = kLeads * kVowels * kTrails;

/// Length of the character at `at`, negative if it is invalid (then of its maximal invalid part), 0 if the text ends within it.
int examine_character(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const int length = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  if (length == 0) return -1;
  for (int i = 1; i < length; ++i) {
    if (at + i >= text.size()) return 0;
    unsigned char low = 0x80, high = 0xBF;
    if (i == 1) {
      if (first == 0xE0) low = 0xA0;
      if (first == 0xED) high = 0x9F;
      if (first == 0xF0) low = 0x90;
      if (first == 0xF4) high = 0x8F;
    }
    if (byte(i) < low || byte(i) > high) return -i;
  }
  return length;
}

size_t skip_ascii(std::string_view text, size_t at) {
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80) ++at;
  return at;
}

uint8_t combining_class(char32_t c) {
  if (c < kCombiningFirst[0]) return 0;
  const size_t i = std::upper_bound(std::begin(kCombiningFirst), std::end(kCombiningFirst), c) - std::begin(kCombiningFirst);
  return i > 0 && c <= kCombiningLast[i - 1] ? kCombiningClass[i - 1] : 0;
}

template <size_t n>
std::span<const uint32_t> find_decomposition(const uint32_t (&from)[n], const uint16_t (&start)[n + 1], char32_t c) {
  const auto* found = std::lower_bound(std::begin(from), std::end(from), c);
  if (found == std::end(from) || *found != c) return {};
  const size_t i = found - std::begin(from);
  return {kDecomposed + start[i], kDecomposed + start[i + 1]};
}

struct Buffer {
  std::vector<char32_t> characters;
  std::vector<uint8_t> classes;

  void push(char32_t c) {
    characters.push_back(c);
    classes.push_back(combining_class(c));
  }
};

void decompose(char32_t c, bool compatible, Buffer& out) {
  if (c - kHangulBase < kSyllables) {
    const char32_t s = c - kHangulBase;
    out.push(kLeadBase + s / (kVowels * kTrails));
    out.push(kVowelBase + s % (kVowels * kTrails) / kTrails);
    if (s % kTrails) out.push(kTrailBase + s % kTrails);
    return;
  }
  std::span<const uint32_t> to;
  if (compatible) to = find_decomposition(kCompatibleFrom, kCompatibleStart, c);
  if (to.empty()) to = find_decomposition(kCanonicalFrom, kCanonicalStart, c);
  if (to.empty()) return out.push(c);
  for (const char32_t part : to) out.push(part);
}

/// Sorts every run of combining marks by class, keeping the order of equals.
void reorder(Buffer& buffer) {
  std::vector<std::pair<uint8_t, char32_t>> run;
  for (size_t i = 0; i < buffer.classes.size();) {
    if (buffer.classes[i] == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    run.clear();
    for (; end < buffer.classes.size() && buffer.classes[end] != 0; ++end)
      run.emplace_back(buffer.classes[end], buffer.characters[end]);
    std::stable_sort(run.begin(), run.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (size_t k = 0; k < run.size(); ++k) {
      buffer.classes[i + k] = run[k].first;
      buffer.characters[i + k] = run[k].second;
    }
    i = end;
  }
}

/// The character that `a` and `b` compose to, or 0.
char32_t composite(char32_t a, char32_t b) {
  if (a - kLeadBase < kLeads && b - kVowelBase < kVowels)
    return kHangulBase + ((a - kLeadBase) * kVowels + (b - kVowelBase)) * kTrails;
  if (a - kHangulBase < kSyllables && (a - kHangulBase) % kTrails == 0 && b - kTrailBase - 1 < kTrails - 1)
    return a + (b - kTrailBase);
  const auto [first, last] = std::equal_range(std::begin(kComposeFirst), std::end(kComposeFirst), a);
  const size_t begin = first - std::begin(kComposeFirst), end = last - std::begin(kComposeFirst);
  const auto* found = std::lower_bound(kComposeSecond + begin, kComposeSecond + end, b);
  return found != kComposeSecond + end && *found == b ? kComposed[found - kComposeSecond] : 0;
}

void compose(Buffer& buffer) {
  size_t out = 0, starter = 0;
  bool has_starter = false;
  int last_class = -1;  // of the last mark kept after the starter; -1: none
  for (size_t i = 0; i < buffer.characters.size(); ++i) {
    const char32_t c = buffer.characters[i];
    const uint8_t combining = buffer.classes[i];
    if (has_starter && last_class < combining) {
      if (const char32_t whole = composite(buffer.characters[starter], c)) {
        buffer.characters[starter] = whole;
        continue;
      }
    }
    if (combining == 0) {
      starter = out;
      has_starter = true;
      last_class = -1;
    } else {
      last_class = combining;
    }
    buffer.characters[out++] = c;
  }
  buffer.characters.resize(out);
}

}  // namespace

void append_utf8(std::string& out, char32_t c) {
  const auto push = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) return push(c);
  if (c < 0x800) {
    push(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      push(0xE0 | c >> 12);
    } else {
      push(0xF0 | c >> 18);
      push(0x80 | (c >> 12 & 0x3F));
    }
    push(0x80 | (c >> 6 & 0x3F));
  }
  push(0x80 | (c & 0x3F));
}

bool is_valid_utf8(std::string_view text) {
  for (size_t at = 0; (at = skip_ascii(text, at)) < text.size();) {
    const int length = examine_character(text, at);
    if (length <= 0) return false;
    at += length;
  }
  return true;
}

size_t append_valid_utf8(std::string& out, std::string_view text, bool keep_tail) {
  size_t at = 0, copied = 0;
  const auto flush = [&] { out.append(text, copied, at - copied); };
  while ((at = skip_ascii(text, at)) < text.size()) {
    const int length = examine_character(text, at);
    if (length > 0) {
      at += length;
      continue;
    }
    flush();
    if (length == 0 && keep_tail) return at;
    append_utf8(out, 0xFFFD);
    at = length == 0 ? text.size() : at - length;
    copied = at;
  }
  flush();
  return at;
}

uint16_t character_class(char32_t c) {
  if (c > 0x10FFFF) return 0;
  return kClassFlags[kClassOf[kClassBlock[c >> 7] << 7 | (c & 127)]];
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    if (c < 0x80) {
      out.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
      continue;
    }
    if (c == 0x130) {
      out += "i\u0307";
      continue;
    }
    const auto* found = std::lower_bound(std::begin(kLowerFrom), std::end(kLowerFrom), c);
    append_utf8(out, found != std::end(kLowerFrom) && *found == c ? kLowerTo[found - std::begin(kLowerFrom)] : c);
  }
  return out;
}

std::string normalize(std::string_view text, NormalForm form) {
  const bool composed = form == NormalForm::nfc || form == NormalForm::nfkc;
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  // Below these nothing changes: U+00A0 is the first with a decomposition, U+0300 the first that composes.
  const char32_t untouched = form == NormalForm::nfc ? 0x300 : 0xA0;
  bool same = true;
  for (size_t at = 0; same && (at = skip_ascii(text, at)) < text.size();) same = next_character(text, at) < untouched;
  if (same) return std::string(text);

  Buffer buffer;
  buffer.characters.reserve(text.size());
  buffer.classes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    if (c < 0xA0) {
      buffer.characters.push_back(c);
      buffer.classes.push_back(0);
    } else {
      decompose(c, compatible, buffer);
    }
  }
  reorder(buffer);
  if (composed) compose(buffer);
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : buffer.characters) append_utf8(out, c);
  return out;
}

std::span<const NewerCategory> newer_categories() { return kNewerCategories; }

}  // namespace lighten::formats
