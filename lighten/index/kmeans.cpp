#include "lighten/index/kmeans.h"

#include <algorithm>
#include <numeric>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"

namespace lighten {
namespace {
constexpr int64_t kRowsAtOnce = 1024;
}

Centroids::Centroids(std::vector<float> values, int64_t dimensions)
    : count_(static_cast<int64_t>(values.size()) / dimensions), dimensions_(dimensions), values_(std::move(values)) {
  spec_ = {.bits = 32, .rows = count_, .columns = dimensions_};
  packed_.resize(packed_bytes(spec_) + 64);
  offset_ = (64 - reinterpret_cast<uintptr_t>(packed_.data()) % 64) % 64;
  pack_float(spec_, values_.data(), packed_.data() + offset_);
  for (int64_t c = 0; c < count_; ++c) {
    double square = 0;
    for (int64_t d = 0; d < dimensions_; ++d) {
      const double value = values_[static_cast<size_t>(c * dimensions_ + d)];
      square += value * value;
    }
    bias_.push_back(static_cast<float>(-square / 2));
  }
}

std::vector<int32_t> Centroids::nearest(const float* x, int64_t rows, int64_t best, ThreadPool& pool) const {
  best = std::min(best, count_);
  std::vector<int32_t> found(static_cast<size_t>(rows * best));
  std::vector<float> y(static_cast<size_t>(std::min(rows, kRowsAtOnce) * count_));
  for (int64_t begin = 0; begin < rows; begin += kRowsAtOnce) {
    const int64_t n = std::min(kRowsAtOnce, rows - begin);
    linear(spec_, packed_.data() + offset_, x + begin * dimensions_, dimensions_, n, y.data(), count_, bias_.data(),
           Arithmetic::exact, pool);
    pool.parallel_for(n, 16, [&](int64_t first, int64_t last) {
      std::vector<int32_t> order(static_cast<size_t>(count_));
      for (int64_t i = first; i < last; ++i) {
        const float* scores = y.data() + i * count_;
        int32_t* out = found.data() + (begin + i) * best;
        if (best == 1) {
          *out = static_cast<int32_t>(std::max_element(scores, scores + count_) - scores);
          continue;
        }
        std::iota(order.begin(), order.end(), 0);
        std::partial_sort(order.begin(), order.begin() + best, order.end(),
                          [&](int32_t a, int32_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
        std::copy_n(order.begin(), best, out);
      }
    });
  }
  return found;
}

Centroids kmeans(const std::vector<float>& x, int64_t dimensions, int64_t clusters, int iterations, uint64_t seed,
                 ThreadPool& pool) {
  const int64_t rows = static_cast<int64_t>(x.size()) / dimensions;
  if (clusters < 1 || clusters > rows)
    throw_error<OptionError>("{} lists need at least as many vectors, not {}", clusters, rows);
  Random random(seed);
  std::vector<int64_t> order(static_cast<size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  random.shuffle(order);
  std::vector<float> values;
  for (int64_t c = 0; c < clusters; ++c) {
    const float* row = x.data() + order[static_cast<size_t>(c)] * dimensions;
    values.insert(values.end(), row, row + dimensions);
  }
  Progress progress("k-means", iterations, "rounds");
  for (int round = 0; round < iterations; ++round) {
    const Centroids now(values, dimensions);
    const std::vector<int32_t> home = now.nearest(x.data(), rows, 1, pool);
    std::vector<double> sums(values.size(), 0.0);
    std::vector<int64_t> sizes(static_cast<size_t>(clusters), 0);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t c = home[static_cast<size_t>(i)];
      ++sizes[static_cast<size_t>(c)];
      for (int64_t d = 0; d < dimensions; ++d)
        sums[static_cast<size_t>(c * dimensions + d)] += x[static_cast<size_t>(i * dimensions + d)];
    }
    for (int64_t c = 0; c < clusters; ++c) {
      float* out = values.data() + c * dimensions;
      if (const int64_t size = sizes[static_cast<size_t>(c)]; size > 0) {
        for (int64_t d = 0; d < dimensions; ++d)
          out[d] = static_cast<float>(sums[static_cast<size_t>(c * dimensions + d)] / static_cast<double>(size));
        continue;
      }
      const auto largest = static_cast<int32_t>(std::max_element(sizes.begin(), sizes.end()) - sizes.begin());
      int64_t member = static_cast<int64_t>(random.below(static_cast<uint64_t>(rows)));
      while (home[static_cast<size_t>(member)] != largest) member = (member + 1) % rows;
      std::copy_n(x.data() + member * dimensions, dimensions, out);
    }
    progress.advance();
  }
  return {std::move(values), dimensions};
}

}  // namespace lighten
