#include "lighten/eval/statistics.h"

#include <algorithm>
#include <cmath>

#include "lighten/base/random.h"

namespace lighten {

Interval bootstrap(size_t rows, int resamples, uint64_t seed,
                   const std::function<double(const std::vector<size_t>& picked)>& statistic) {
  if (rows < 2 || resamples <= 0) return {};
  Random random(seed);
  std::vector<size_t> picked(rows);
  std::vector<double> values(static_cast<size_t>(resamples));
  for (double& value : values) {
    for (size_t& pick : picked) pick = random.below(rows);
    value = statistic(picked);
  }
  return {quantile(values, 0.025), quantile(values, 0.975)};
}

double quantile(std::vector<double>& values, double share) {
  if (values.empty()) return 0;
  const double at = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(at);
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(values.begin(), middle, values.end());
  if (below + 1 == values.size()) return *middle;
  const double above = *std::min_element(middle + 1, values.end());
  return *middle + (at - static_cast<double>(below)) * (above - *middle);
}

namespace {

size_t highest(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

PositionScore score_position(std::span<const float> logits, int32_t target, std::span<const float> reference) {
  PositionScore score;
  const size_t best = highest(logits);
  const double top = logits[best];
  double sum = 0;
  if (reference.empty()) {
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  } else {
    // With a_i and b_i the logits below their maxima: KL = sum_i e^{a_i} (a_i - b_i) / S_a - ln S_a + ln S_b.
    const size_t reference_best = highest(reference);
    const double reference_top = reference[reference_best];
    double reference_sum = 0, weighted = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double a = static_cast<double>(reference[i]) - reference_top, b = static_cast<double>(logits[i]) - top;
      const double mass = std::exp(a);
      reference_sum += mass;
      sum += std::exp(b);
      if (mass != 0) weighted += mass * (a - b);
    }
    const double kl = weighted / reference_sum - std::log(reference_sum) + std::log(sum);
    score.kl = kl < 0 ? 0 : kl;  // rounding only; a NaN stays
    score.agrees = best == reference_best;
    score.reference_nll = std::log(reference_sum) + reference_top - static_cast<double>(reference[static_cast<size_t>(target)]);
  }
  score.nll = std::log(sum) + top - static_cast<double>(logits[static_cast<size_t>(target)]);
  return score;
}

}  // namespace lighten
