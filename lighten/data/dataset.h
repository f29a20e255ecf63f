// Typed samples of a data set: plain structs that builders return, injectors damage and systems train on.
//
// A sample's place is its index: pixels, labels, ids, keys and splits of one set have the same length n (or are empty where a
// set has none of them). `ids` are unique. `keys` say what a split goes by (font, theme, source package, document): all samples
// of one key stand on one side, so that near-duplicates never stand in training and test data at once.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/data/pixels.h"

namespace lighten {

enum class Split : uint8_t { train, validation, test };
/// "train", "validation", "test".
std::string_view split_name(Split split);

/// Shares of keys that go to validation and to test; the rest is training data.
struct SplitFractions {
  double validation = 0.1;
  double test = 0.2;
};

/// FNV-1a of the bytes, finished by splitmix64's mixing: the same on every machine and in every version.
uint64_t stable_hash(std::string_view text);
/// The side on which a key stands, u = stable_hash(key, salt) / 2^64: test for u < test, validation for u < test + validation.
/// Depends on the key alone, so more data never moves a sample. `seed` other than 0 draws another split.
Split split_of(std::string_view key, const SplitFractions& fractions = {}, uint64_t seed = 0);
/// split_of of every key.
std::vector<Split> split_all(const std::vector<std::string>& keys, const SplitFractions& fractions = {}, uint64_t seed = 0);
/// Indices of the samples of one side, ascending.
std::vector<int64_t> samples_of(const std::vector<Split>& splits, Split split);

/// At most `limit` samples of each side, ascending: those with the smallest hash of their id (another one than the splits'),
/// so that a larger limit keeps what a smaller one kept and each side is a fair sample of itself. limit <= 0: all.
std::vector<int64_t> limit_samples(const std::vector<std::string>& ids, const std::vector<Split>& splits, int64_t limit);

/// Pictures with one label each.
struct ImageSet {
  int64_t channels = 0, height = 0, width = 0;
  Pixels pixels;                ///< [n, channels, height, width]
  std::vector<int32_t> labels;  ///< index into class_names
  std::vector<std::string> class_names, ids, keys;
  std::vector<Split> splits;

  int64_t size() const { return static_cast<int64_t>(labels.size()); }
  int64_t sample_bytes() const { return channels * height * width; }
};

/// Texts with one label each (-1: none known).
struct TextSet {
  std::vector<std::string> ids, texts;
  std::vector<int32_t> labels;
  std::vector<std::string> class_names, keys;
  std::vector<Split> splits;

  int64_t size() const { return static_cast<int64_t>(texts.size()); }
};

/// Texts with any number of labels each.
struct MultiLabelSet {
  std::vector<std::string> ids, texts;
  std::vector<std::vector<int32_t>> labels;  ///< ascending indices into label_names
  std::vector<std::string> label_names, label_texts, keys;
  std::vector<Split> splits;

  int64_t size() const { return static_cast<int64_t>(texts.size()); }
};

/// Texts that are the nodes of an undirected graph without self loops.
struct GraphSet {
  TextSet nodes;
  std::vector<int64_t> row_begin;   ///< [n + 1]: the neighbours of node i are neighbours[row_begin[i], row_begin[i + 1])
  std::vector<int32_t> neighbours;  ///< ascending in each row; j is in row i exactly if i is in row j
};

/// Queries and the documents that answer them, one for one.
struct PairSet {
  std::vector<std::string> ids, queries, documents, keys;
  std::vector<Split> splits;

  int64_t size() const { return static_cast<int64_t>(queries.size()); }
};

/// What every builder `X_set(const DataOptions&)` takes.
struct DataOptions {
  bool fetch = true;        ///< get the packages if the set is not in the cache; otherwise a FileError says how to get it
  int64_t limit = 0;        ///< keep at most so many samples of each split, spread over the set by hash of their ids; 0: all
  uint64_t split_seed = 0;  ///< another split of the same keys (`lighten reproduce --seed`)
};

/// Throws FormatError, naming `name` and the first offending sample, if a set's vectors have different lengths, ids repeat, a
/// label has no class, a key stands on two sides, or a graph's rows are not sorted, symmetric and free of self loops.
void check_set(const ImageSet& set, const std::string& name);
void check_set(const TextSet& set, const std::string& name);
void check_set(const MultiLabelSet& set, const std::string& name);
void check_set(const GraphSet& set, const std::string& name);
void check_set(const PairSet& set, const std::string& name);

}  // namespace lighten
