// The distance of two tables of logits.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

namespace lighten {

/// Largest ||a - b|| / ||b|| over rows, both [rows, vocab].
inline double worst_relative_error(const std::vector<float>& a, const std::vector<float>& b, size_t vocab) {
  double worst = 0;
  for (size_t row = 0; row < b.size(); row += vocab) {
    double difference = 0, norm = 0;
    for (size_t i = row; i < row + vocab; ++i) {
      const double reference = b[i], delta = a[i] - reference;
      difference += delta * delta;
      norm += reference * reference;
    }
    worst = std::max(worst, std::sqrt(difference / norm));
  }
  return worst;
}

}  // namespace lighten
