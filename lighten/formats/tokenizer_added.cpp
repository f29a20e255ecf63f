#include "lighten/formats/tokenizer_added.h"

#include "lighten/formats/unicode.h"

namespace lighten::formats {

void AddedTokenMatcher::add(std::string_view pattern, int32_t index) {
  if (pattern.empty()) return;
  first_[static_cast<unsigned char>(pattern[0])] = true;
  uint32_t node = 0;
  for (const char byte : pattern) {
    uint32_t child = nodes_[node].child;
    while (child && nodes_[child].byte != byte) child = nodes_[child].sibling;
    if (!child) {
      child = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back({byte, -1, 0, nodes_[node].child});
      nodes_[node].child = child;
    }
    node = child;
  }
  if (nodes_[node].index < 0) nodes_[node].index = index;
}

size_t AddedTokenMatcher::match_length(std::string_view text, size_t at, int32_t& index) const {
  size_t length = 0;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    uint32_t child = nodes_[node].child;
    while (child && nodes_[child].byte != text[i]) child = nodes_[child].sibling;
    if (!child) break;
    node = child;
    if (nodes_[node].index >= 0) {
      index = nodes_[node].index;
      length = i + 1 - at;
    }
  }
  return length;
}

bool AddedTokenMatcher::find(std::string_view text, size_t& at, int32_t& index) const {
  for (; at < text.size(); ++at)
    if (first_[static_cast<unsigned char>(text[at])] && match_length(text, at, index) > 0) return true;
  return false;
}

bool AddedTokenMatcher::within_word(std::string_view text, size_t start, size_t end) {
  if (start > 0) {
    size_t at = previous_character(text, start);
    if (is_class(next_character(text, at), kWord)) return true;
  }
  return end < text.size() && is_class(next_character(text, end), kWord);
}

size_t AddedTokenMatcher::spaces_before(std::string_view text, size_t start, size_t limit) {
  while (start > limit) {
    const size_t before = previous_character(text, start);
    size_t at = before;
    if (!is_class(next_character(text, at), kSpace)) break;
    start = before;
  }
  return start;
}

size_t AddedTokenMatcher::spaces_after(std::string_view text, size_t end) {
  for (size_t at = end; end < text.size(); end = at)
    if (!is_class(next_character(text, at), kSpace)) break;
  return end;
}

}  // namespace lighten::formats
