// Numbers over logits and over windows.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

namespace lighten {

struct Interval {
  double low = std::numeric_limits<double>::quiet_NaN(), high = std::numeric_limits<double>::quiet_NaN();
  bool known() const { return low <= high; }
};

/// 95 % percentile bootstrap interval of `statistic` over `rows` rows drawn with replacement. Unknown with fewer than two rows
/// or without resamples: nothing can be said of the spread.
Interval bootstrap(size_t rows, int resamples, uint64_t seed,
                   const std::function<double(const std::vector<size_t>& picked)>& statistic);

/// The `share` quantile (0-1), linear between neighbours as numpy's default. Reorders `values`. 0 if empty.
double quantile(std::vector<double>& values, double share);

/// What one position says about the token that follows.
struct PositionScore {
  double nll = 0;            ///< -ln softmax(logits)[target]
  double kl = 0;             ///< D(reference || model) = sum_i p_i (ln p_i - ln q_i) in nats; 0 without a reference
  double reference_nll = 0;  ///< the reference's; 0 without one
  bool agrees = false;       ///< both give the highest logit to the same token (the lowest id on ties)
};
/// logits [vocab], reference [vocab] or empty. Sums in double. A NaN among the logits comes out as a NaN.
PositionScore score_position(std::span<const float> logits, int32_t target, std::span<const float> reference = {});

}  // namespace lighten
