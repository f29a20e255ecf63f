// Nearest neighbours by cosine, exactly, as an undirected graph.
#pragma once
#include <torch/torch.h>

#include <utility>
#include <vector>

namespace lighten {

struct KnnGraph {
  std::vector<std::pair<int32_t, int32_t>> edges;  ///< i < j, each once, sorted
  std::vector<double> distances;                   ///< 1 - cosine of each edge
};
/// The edges from every row of x [n, d] to its k nearest others (1 - cosine, the smaller row first on ties) that are nearer
/// than `longest`. Products of blocks of rows: n^2 d operations, n * 1024 numbers of memory.
KnnGraph knn_graph(const torch::Tensor& x, int64_t k, double longest = 2.0);

}  // namespace lighten
