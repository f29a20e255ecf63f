// k-means on unit vectors, for the lists of an index.
#pragma once
#include <cstdint>
#include <vector>

#include "lighten/base/threads.h"
#include "lighten/kernels/linear.h"

namespace lighten {

/// Finds the nearest of a fixed set of centroids: argmin |x - c|^2 = argmax x . c - |c|^2 / 2.
class Centroids {
 public:
  Centroids(std::vector<float> values, int64_t dimensions);
  int64_t count() const { return count_; }
  int64_t dimensions() const { return dimensions_; }
  const std::vector<float>& values() const { return values_; }
  /// The `best` nearest centroids of every row of x [rows, dimensions], nearest first (ties by smaller number): [rows, best].
  std::vector<int32_t> nearest(const float* x, int64_t rows, int64_t best, ThreadPool& pool) const;

 private:
  int64_t count_, dimensions_;
  std::vector<float> values_, bias_;
  LinearSpec spec_;
  std::vector<std::byte> packed_;
  size_t offset_ = 0;
};

/// Lloyd's iterations from distinct random rows; an empty cluster takes over a random member of the largest one. Deterministic
/// for a seed. Throws OptionError if there are fewer rows than clusters.
Centroids kmeans(const std::vector<float>& x, int64_t dimensions, int64_t clusters, int iterations, uint64_t seed,
                 ThreadPool& pool);

}  // namespace lighten
