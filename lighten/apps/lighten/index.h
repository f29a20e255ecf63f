// What the files of `lighten index` share.
#pragma once
#include <chrono>
#include <string>
#include <vector>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/progress.h"
#include "lighten/formats/npy.h"
#include "lighten/index/index.h"
#include "lighten/systems/labels/bebr/bebr.h"

namespace lighten {

struct IndexArguments {
  std::string folder, vectors, codes, pairs, like, compatible, ids, queries, output, distances, method = "hamming",
                                                                                                format = "faiss";
  int64_t bits = 0, lists = 0, k = 10, batch = 0, repeat = 1, probes = 16, train_rows = 30000;
  bool force = false;
  BebrOptions bebr = {};
  CLI::App* build = nullptr;  ///< knows which flags were given
};

double seconds_since(std::chrono::steady_clock::time_point begin);

/// 0 or above, and where `expected` of them are to be, each once (-1: any number, repeats may be).
std::vector<int64_t> read_ids(const std::string& path, int64_t expected = -1);

/// Rows of a float matrix as codes.
std::vector<uint8_t> encode(const NpyFile& vectors, const CodeWriter& writer, int64_t first, int64_t count, ThreadPool& pool,
                            Progress* progress = nullptr);

/// What an index is, for --json and for people.
Json facts(const Index& index);
void print_facts(const Index& index);

/// `lighten index build`.
int build_index(const IndexArguments& arguments, const Common& common);

}  // namespace lighten
