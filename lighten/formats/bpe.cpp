#include "lighten/formats/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>

#include "lighten/formats/unicode.h"

namespace lighten::formats {
namespace {

constexpr std::string_view kMark = "\u2581";
constexpr size_t kFew = 40;  // up to this many characters, looking at all pairs beats a queue

uint64_t pair_hash(int32_t left, int32_t right) {
  const uint64_t key = static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  const uint64_t mixed = key * 0x9E3779B97F4A7C15;
  return mixed ^ mixed >> 32;
}

}  // namespace

Bpe::Bpe(const Vocabulary& vocabulary, std::vector<Merge> merges, BpeOptions options)
    : vocabulary_(&vocabulary), merges_(std::move(merges)), options_(std::move(options)) {
  slots_.assign(table_size(merges_.size()), kNone);
  mask_ = slots_.size() - 1;
  for (uint32_t r = 0; r < merges_.size(); ++r) {
    size_t i = pair_hash(merges_[r].left, merges_[r].right) & mask_;
    while (slots_[i] != kNone && (merges_[slots_[i]].left != merges_[r].left || merges_[slots_[i]].right != merges_[r].right))
      i = (i + 1) & mask_;
    slots_[i] = r;  // a pair listed twice keeps the later rank, as in the reference
  }
  for (char32_t c = 0; c < short_characters_.size(); ++c) {
    std::string text;
    append_utf8(text, c);
    short_characters_[c] = vocabulary.find(text);
  }
  for (int b = 0; b < 256; ++b) fallback_[b] = options_.byte_fallback ? vocabulary.find(fmt::format("<0x{:02X}>", b)) : -1;
  cut_at_marks_ = marks_only_start_words();
}

bool Bpe::marks_only_start_words() const {
  if (options_.ignore_merges || !options_.subword_prefix.empty() || !options_.word_suffix.empty()) return false;
  if (vocabulary_->find(kMark) < 0) return false;
  const auto cut = [&](int32_t id) { return vocabulary_->token(id); };
  return std::none_of(merges_.begin(), merges_.end(), [&](const Merge& merge) {
    return cut(merge.right).starts_with(kMark) && !cut(merge.left).ends_with(kMark);
  });
}

uint32_t Bpe::rank(int32_t left, int32_t right) const {
  for (size_t i = pair_hash(left, right) & mask_;; i = (i + 1) & mask_) {
    const uint32_t r = slots_[i];
    if (r == kNone || (merges_[r].left == left && merges_[r].right == right)) return r;
  }
}

int32_t Bpe::character_id(std::string_view character) const {
  if (character.size() <= 2) {
    size_t at = 0;
    return short_characters_[next_character(character, at)];
  }
  return vocabulary_->find(character);
}

void Bpe::append_characters(std::string_view word, std::vector<int32_t>& ids) const {
  const bool decorated = !options_.subword_prefix.empty() || !options_.word_suffix.empty();
  bool unknown = false;  // the last character was unknown and waits
  std::string text;
  for (size_t at = 0; at < word.size();) {
    const size_t start = at;
    at += character_bytes(word[at]);
    std::string_view character = word.substr(start, at - start);
    if (decorated) {
      text =
          (start > 0 ? options_.subword_prefix : "") + std::string(character) + (at == word.size() ? options_.word_suffix : "");
      character = text;
    }
    const int32_t id = decorated ? vocabulary_->find(character) : character_id(character);
    if (id >= 0) {
      if (unknown) ids.push_back(options_.unknown);
      unknown = false;
      ids.push_back(id);
      continue;
    }
    if (options_.byte_fallback && std::all_of(character.begin(), character.end(),
                                              [&](char b) { return fallback_[static_cast<unsigned char>(b)] >= 0; })) {
      for (const char b : character) ids.push_back(fallback_[static_cast<unsigned char>(b)]);
      continue;
    }
    if (options_.unknown < 0) continue;
    if (unknown && !options_.fuse_unknown) ids.push_back(options_.unknown);
    unknown = true;
  }
  if (unknown) ids.push_back(options_.unknown);
}

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (word.empty()) return;
  if (options_.ignore_merges) {
    if (const int32_t id = vocabulary_->find(word); id >= 0) return ids.push_back(id);
  }
  const size_t start = ids.size();
  append_characters(word, ids);
  const size_t count = ids.size() - start;
  if (count < 2) return;
  ids.resize(start + (count <= kFew ? merge_few(ids.data() + start, count) : merge_many(ids.data() + start, count)));
}

void Bpe::merge_path(std::string_view word, std::vector<int32_t>& path) const {
  std::vector<int32_t> ids;
  append_characters(word, ids);
  path.insert(path.end(), ids.begin(), ids.end());
  while (ids.size() > 1) {
    uint32_t best = kNone;
    size_t place = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i)
      if (const uint32_t r = rank(ids[i], ids[i + 1]); r < best) best = r, place = i;
    if (best == kNone) return;
    ids[place] = merges_[best].whole;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(place) + 1);
    path.push_back(ids[place]);
  }
}

size_t Bpe::merge_few(int32_t* ids, size_t count) const {
  uint32_t ranks[kFew];
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = rank(ids[i], ids[i + 1]);
  while (count > 1) {
    const size_t best = std::min_element(ranks, ranks + count - 1) - ranks;
    if (ranks[best] == kNone) break;
    ids[best] = merges_[ranks[best]].whole;
    std::copy(ids + best + 2, ids + count, ids + best + 1);
    if (best + 2 < count) std::copy(ranks + best + 2, ranks + count - 1, ranks + best + 1);
    --count;
    if (best > 0) ranks[best - 1] = rank(ids[best - 1], ids[best]);
    if (best + 1 < count) ranks[best] = rank(ids[best], ids[best + 1]);
  }
  return count;
}

size_t Bpe::merge_many(int32_t* ids, size_t count) const {
  constexpr uint32_t kEnd = UINT32_MAX;
  std::vector<uint32_t> next(count), previous(count), ranks(count, kNone);
  std::vector<uint64_t> entries;  // rank, then place: the leftmost of the lowest rank comes first
  const auto entry = [](uint32_t r, size_t place) { return static_cast<uint64_t>(r) << 32 | place; };
  for (size_t i = 0; i < count; ++i) {
    next[i] = i + 1 < count ? static_cast<uint32_t>(i + 1) : kEnd;
    previous[i] = i > 0 ? static_cast<uint32_t>(i - 1) : kEnd;
    if (i + 1 < count && (ranks[i] = rank(ids[i], ids[i + 1])) != kNone) entries.push_back(entry(ranks[i], i));
  }
  std::priority_queue queue(std::greater<>(), std::move(entries));
  const auto look = [&](uint32_t place) {
    ranks[place] = next[place] == kEnd ? kNone : rank(ids[place], ids[next[place]]);
    if (ranks[place] != kNone) queue.push(entry(ranks[place], place));
  };
  while (!queue.empty()) {
    const auto place = static_cast<uint32_t>(queue.top());
    const auto r = static_cast<uint32_t>(queue.top() >> 32);
    queue.pop();
    if (ranks[place] != r) continue;  // the pair changed since
    const uint32_t right = next[place];
    ids[place] = merges_[r].whole;
    ranks[right] = kNone;
    next[place] = next[right];
    if (next[place] != kEnd) previous[next[place]] = place;
    look(place);
    if (previous[place] != kEnd) look(previous[place]);
  }
  size_t out = 0;
  for (uint32_t i = 0; i != kEnd; i = next[i]) ids[out++] = ids[i];
  return out;
}

}  // namespace lighten::formats
