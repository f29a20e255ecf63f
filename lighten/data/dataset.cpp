#include "lighten/data/dataset.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "lighten/base/error.h"

namespace lighten {

namespace {

uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

void check_length(const std::string& name, const char* field, size_t length, int64_t samples, bool may_be_empty = false) {
  if (may_be_empty && length == 0) return;
  if (length != static_cast<size_t>(samples))
    throw_error<FormatError>("{}: {} holds {} entries for {} samples", name, field, length, samples);
}

void check_ids(const std::vector<std::string>& ids, const std::string& name) {
  std::unordered_map<std::string_view, size_t> seen;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto [at, added] = seen.emplace(ids[i], i);
    if (!added)
      throw_error<FormatError>("{}: samples {} and {} have the same id '{}'; ids must be unique", name, at->second, i, ids[i]);
  }
}

void check_keys(const std::vector<std::string>& keys, const std::vector<Split>& splits, const std::string& name) {
  if (keys.empty() || splits.empty()) return;
  std::unordered_map<std::string_view, Split> side;
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto [at, added] = side.emplace(keys[i], splits[i]);
    if (at->second != splits[i])
      throw_error<FormatError>("{}: the key '{}' stands in {} and, at sample {}, in {} data; split by key, never by sample",
                               name, keys[i], split_name(at->second), i, split_name(splits[i]));
  }
}

void check_label(int32_t label, size_t classes, int32_t least, int64_t sample, const std::string& name) {
  if (label < least || label >= static_cast<int64_t>(classes))
    throw_error<FormatError>("{}: sample {} has label {}, but the set has {} classes (0 to {})", name, sample, label, classes,
                             static_cast<int64_t>(classes) - 1);
}

}  // namespace

std::string_view split_name(Split split) {
  switch (split) {
    case Split::train:
      return "train";
    case Split::validation:
      return "validation";
    case Split::test:
      return "test";
  }
  throw_error<OptionError>("split_name: {} is no split", static_cast<int>(split));
}

uint64_t stable_hash(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return mixed(hash);
}

Split split_of(std::string_view key, const SplitFractions& fractions, uint64_t seed) {
  const double sum = fractions.validation + fractions.test;
  if (!(fractions.validation >= 0) || !(fractions.test >= 0) || !(sum <= 1))
    throw_error<OptionError>("split: validation {} and test {} must be shares that leave training data", fractions.validation,
                             fractions.test);
  uint64_t hash = stable_hash(key);
  if (seed != 0) hash = mixed(hash ^ mixed(seed));
  const double u = static_cast<double>(hash >> 11) * 0x1p-53;
  if (u < fractions.test) return Split::test;
  return u < sum ? Split::validation : Split::train;
}

std::vector<Split> split_all(const std::vector<std::string>& keys, const SplitFractions& fractions, uint64_t seed) {
  std::vector<Split> splits;
  splits.reserve(keys.size());
  for (const std::string& key : keys) splits.push_back(split_of(key, fractions, seed));
  return splits;
}

std::vector<int64_t> samples_of(const std::vector<Split>& splits, Split split) {
  std::vector<int64_t> samples;
  for (size_t i = 0; i < splits.size(); ++i)
    if (splits[i] == split) samples.push_back(static_cast<int64_t>(i));
  return samples;
}

std::vector<int64_t> limit_samples(const std::vector<std::string>& ids, const std::vector<Split>& splits, int64_t limit) {
  std::vector<int64_t> kept;
  // Another hash than the splits': an id that is its own key would otherwise be taken or left by the side that it stands on.
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    std::vector<std::pair<uint64_t, int64_t>> side;
    for (const int64_t i : samples_of(splits, split)) side.emplace_back(stable_hash("limit " + ids[static_cast<size_t>(i)]), i);
    std::sort(side.begin(), side.end());
    if (limit > 0 && static_cast<int64_t>(side.size()) > limit) side.resize(static_cast<size_t>(limit));
    for (const auto& [hash, i] : side) kept.push_back(i);
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

void check_set(const ImageSet& set, const std::string& name) {
  if (set.channels <= 0 || set.height <= 0 || set.width <= 0)
    throw_error<FormatError>("{}: pictures of {} x {} x {}", name, set.channels, set.height, set.width);
  check_length(name, "pixels", set.pixels.size(), set.size() * set.sample_bytes());
  check_length(name, "ids", set.ids.size(), set.size(), true);
  check_length(name, "keys", set.keys.size(), set.size(), true);
  check_length(name, "splits", set.splits.size(), set.size(), true);
  check_ids(set.ids, name);
  check_keys(set.keys, set.splits, name);
  for (int64_t i = 0; i < set.size(); ++i) check_label(set.labels[i], set.class_names.size(), 0, i, name);
}

void check_set(const TextSet& set, const std::string& name) {
  check_length(name, "ids", set.ids.size(), set.size(), true);
  check_length(name, "labels", set.labels.size(), set.size(), true);
  check_length(name, "keys", set.keys.size(), set.size(), true);
  check_length(name, "splits", set.splits.size(), set.size(), true);
  check_ids(set.ids, name);
  check_keys(set.keys, set.splits, name);
  for (size_t i = 0; i < set.labels.size(); ++i)
    check_label(set.labels[i], set.class_names.size(), -1, static_cast<int64_t>(i), name);
}

void check_set(const MultiLabelSet& set, const std::string& name) {
  check_length(name, "ids", set.ids.size(), set.size(), true);
  check_length(name, "labels", set.labels.size(), set.size());
  check_length(name, "keys", set.keys.size(), set.size(), true);
  check_length(name, "splits", set.splits.size(), set.size(), true);
  check_length(name, "label_texts", set.label_texts.size(), static_cast<int64_t>(set.label_names.size()), true);
  check_ids(set.ids, name);
  check_keys(set.keys, set.splits, name);
  for (int64_t i = 0; i < set.size(); ++i) {
    const std::vector<int32_t>& labels = set.labels[i];
    for (size_t j = 0; j < labels.size(); ++j) {
      check_label(labels[j], set.label_names.size(), 0, i, name);
      if (j > 0 && labels[j] <= labels[j - 1])
        throw_error<FormatError>("{}: the labels of sample {} are not in ascending order without repeats", name, i);
    }
  }
}

void check_set(const GraphSet& set, const std::string& name) {
  check_set(set.nodes, name);
  const int64_t nodes = set.nodes.size();
  check_length(name, "row_begin", set.row_begin.size(), nodes + 1);
  if (set.row_begin.front() != 0 || set.row_begin.back() != static_cast<int64_t>(set.neighbours.size()))
    throw_error<FormatError>("{}: row_begin goes from {} to {}, but there are {} neighbours", name, set.row_begin.front(),
                             set.row_begin.back(), set.neighbours.size());
  for (int64_t i = 0; i < nodes; ++i)
    if (set.row_begin[i] > set.row_begin[i + 1]) throw_error<FormatError>("{}: row_begin falls at node {}", name, i);
  const auto row = [&](int64_t i) {
    return std::pair(set.neighbours.begin() + set.row_begin[i], set.neighbours.begin() + set.row_begin[i + 1]);
  };
  for (int64_t i = 0; i < nodes; ++i) {
    const auto [begin, end] = row(i);
    for (auto at = begin; at != end; ++at) {
      if (*at < 0 || *at >= nodes) throw_error<FormatError>("{}: node {} has an edge to node {} of {}", name, i, *at, nodes);
      if (*at == i) throw_error<FormatError>("{}: node {} has an edge to itself", name, i);
      if (at != begin && *at <= at[-1]) throw_error<FormatError>("{}: the neighbours of node {} are not ascending", name, i);
    }
  }
  for (int64_t i = 0; i < nodes; ++i) {
    const auto [begin, end] = row(i);
    for (auto at = begin; at != end; ++at) {
      const auto [back, back_end] = row(*at);
      if (!std::binary_search(back, back_end, static_cast<int32_t>(i)))
        throw_error<FormatError>("{}: the edge {} - {} stands in one direction only", name, i, *at);
    }
  }
}

void check_set(const PairSet& set, const std::string& name) {
  check_length(name, "documents", set.documents.size(), set.size());
  check_length(name, "ids", set.ids.size(), set.size(), true);
  check_length(name, "keys", set.keys.size(), set.size(), true);
  check_length(name, "splits", set.splits.size(), set.size(), true);
  check_ids(set.ids, name);
  check_keys(set.keys, set.splits, name);
}

}  // namespace lighten
