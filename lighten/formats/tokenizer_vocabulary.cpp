#include "lighten/formats/tokenizer_vocabulary.h"

#include <algorithm>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/unicode.h"

namespace lighten::formats {

size_t table_size(size_t count) {
  size_t size = 2;
  while (size < 2 * count) size *= 2;
  return size;
}

void TokenList::add(std::string_view token, int64_t id) {
  if (text.size() + token.size() >= UINT32_MAX) throw FormatError("a vocabulary of more than 4 GB is not sensible");
  entries.push_back({static_cast<uint32_t>(text.size()), static_cast<uint32_t>(token.size()), id});
  text += token;
}

Vocabulary::Vocabulary(TokenList tokens, const std::string& where) {
  int64_t largest = -1;
  for (const TokenList::Entry& entry : tokens.entries) {
    if (entry.id < 0 || entry.id >= kMostIds)
      throw_error<FormatError>("{}: token {} has id {}, but ids lie between 0 and {}; fetch the file again", where,
                               printable(tokens.token(entry)), entry.id, kMostIds - 1);
    largest = std::max(largest, entry.id);
    longest_ = std::max<size_t>(longest_, entry.length);
  }
  count_ = tokens.entries.size();
  places_.resize(largest + 1);
  slots_.assign(table_size(count_), -1);
  mask_ = slots_.size() - 1;
  text_ = std::move(tokens.text);
  text_.shrink_to_fit();
  const bool valid = is_valid_utf8(text_);
  for (const TokenList::Entry& entry : tokens.entries) {
    const std::string_view text(text_.data() + entry.offset, entry.length);
    const auto id = static_cast<int32_t>(entry.id);
    if (has(id))
      throw_error<FormatError>("{}: tokens {} and {} share the id {}; give each its own", where, printable(token(id)),
                               printable(text), id);
    if (!valid && !is_valid_utf8(text))
      throw_error<FormatError>("{}: token {} (id {}) is not UTF-8; fetch the file again", where, printable(text), id);
    places_[id] = {entry.offset, entry.length};
    size_t i = slot_of(hash_of(text));
    for (; slots_[i] >= 0; i = (i + 1) & mask_)
      if (token(slots_[i]) == text)
        throw_error<FormatError>("{}: token {} occurs twice, as ids {} and {}; remove one", where, printable(text), slots_[i],
                                 id);
    slots_[i] = id;
  }
}

}  // namespace lighten::formats
