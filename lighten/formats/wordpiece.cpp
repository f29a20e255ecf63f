#include "lighten/formats/wordpiece.h"

#include "lighten/formats/unicode.h"

namespace lighten::formats {

void WordPiece::encode(std::string_view word, std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  const auto give_up = [&] {
    ids.resize(before);
    ids.push_back(options_.unknown);
  };
  size_t characters = 0;
  for (size_t at = 0; at < word.size(); at += character_bytes(word[at]))
    if (++characters > options_.longest_word) return give_up();

  uint64_t prefix_hash = hash_of(options_.subword_prefix);
  std::string text;
  std::vector<uint64_t> hashes;
  for (size_t start = 0; start < word.size();) {
    // Candidates are prefixes of what is left: their hashes come from one pass, the longest is tried first.
    text = start > 0 ? options_.subword_prefix : std::string();
    const size_t lead = text.size();
    text += word.substr(start);
    uint64_t hash = start > 0 ? prefix_hash : kHashStart;
    hashes.assign(1, hash);
    const size_t longest = std::min(text.size(), vocabulary_->longest());
    for (size_t i = lead; i < longest; ++i) hashes.push_back(hash = hash_byte(hash, text[i]));
    int32_t found = -1;
    size_t end = longest;
    for (; end > lead && found < 0; --end) found = vocabulary_->find(std::string_view(text).substr(0, end), hashes[end - lead]);
    if (found < 0) return give_up();
    ids.push_back(found);
    start += end + 1 - lead;
  }
}

}  // namespace lighten::formats
