#include "lighten/eval/calibration.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lighten/base/error.h"
#include "lighten/eval/statistics.h"

namespace lighten {
namespace {

void check(std::span<const uint8_t> came_true, std::span<const double> probabilities) {
  if (came_true.size() != probabilities.size() || came_true.empty())
    throw_error<OptionError>("{} outcomes, but {} probabilities", came_true.size(), probabilities.size());
  for (size_t i = 0; i < probabilities.size(); ++i)
    if (!(probabilities[i] >= 0 && probabilities[i] <= 1))
      throw_error<OptionError>("sample {}: {} is no probability", i, probabilities[i]);
}

}  // namespace

std::vector<ReliabilityBin> reliability(std::span<const uint8_t> came_true, std::span<const double> probabilities, int bins) {
  check(came_true, probabilities);
  if (bins < 1) throw_error<OptionError>("{} bins", bins);
  std::vector<ReliabilityBin> result(static_cast<size_t>(bins));
  std::vector<double> edges;
  for (int b = 1; b <= bins; ++b) {
    ReliabilityBin& bin = result[static_cast<size_t>(b - 1)];
    bin.low = static_cast<double>(b - 1) / bins;
    bin.high = static_cast<double>(b) / bins;
    edges.push_back(bin.high);
  }
  edges.back() = 1;
  for (size_t i = 0; i < probabilities.size(); ++i) {
    ReliabilityBin& bin =
        result[static_cast<size_t>(std::lower_bound(edges.begin(), edges.end(), probabilities[i]) - edges.begin())];
    ++bin.samples;
    bin.confidence += probabilities[i];
    bin.accuracy += came_true[i] ? 1 : 0;
  }
  for (ReliabilityBin& bin : result)
    if (bin.samples > 0) {
      bin.confidence /= static_cast<double>(bin.samples);
      bin.accuracy /= static_cast<double>(bin.samples);
    }
  return result;
}

double expected_calibration_error(std::span<const uint8_t> came_true, std::span<const double> probabilities, int bins) {
  double error = 0;
  for (const ReliabilityBin& bin : reliability(came_true, probabilities, bins))
    error +=
        static_cast<double>(bin.samples) / static_cast<double>(probabilities.size()) * std::abs(bin.accuracy - bin.confidence);
  return error;
}

double brier_score(std::span<const uint8_t> came_true, std::span<const double> probabilities) {
  check(came_true, probabilities);
  double sum = 0;
  for (size_t i = 0; i < probabilities.size(); ++i) {
    const double gap = probabilities[i] - (came_true[i] ? 1 : 0);
    sum += gap * gap;
  }
  return sum / static_cast<double>(probabilities.size());
}

double log_loss(std::span<const int32_t> labels, std::span<const double> probabilities, int64_t classes) {
  if (labels.empty() || probabilities.size() != labels.size() * static_cast<size_t>(classes))
    throw_error<OptionError>("{} probabilities are not {} rows of {}", probabilities.size(), labels.size(), classes);
  double sum = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= classes) throw_error<OptionError>("sample {}: class {} of {}", i, labels[i], classes);
    sum -= std::log(std::max(probabilities[i * static_cast<size_t>(classes) + static_cast<size_t>(labels[i])],
                             std::numeric_limits<double>::epsilon()));
  }
  return sum / static_cast<double>(labels.size());
}

double fit_temperature(std::span<const int32_t> labels, std::span<const float> logits, int64_t classes) {
  const auto width = static_cast<size_t>(classes);
  if (labels.empty() || logits.size() != labels.size() * width)
    throw_error<OptionError>("{} logits are not {} rows of {}", logits.size(), labels.size(), classes);
  const auto loss = [&](double log_temperature) {
    const double scale = std::exp(-log_temperature);
    double sum = 0;
    for (size_t i = 0; i < labels.size(); ++i) {
      const auto row = logits.subspan(i * width, width);
      const double highest = *std::max_element(row.begin(), row.end());
      double total = 0;
      for (const float logit : row) total += std::exp((logit - highest) * scale);
      sum += std::log(total) - (row[static_cast<size_t>(labels[i])] - highest) * scale;
    }
    return sum;
  };
  // The loss is convex in 1/T and so has one minimum in ln T.
  const double golden = (std::sqrt(5.0) - 1) / 2;
  double low = std::log(0.05), high = std::log(20.0);
  double a = high - golden * (high - low), b = low + golden * (high - low), at_a = loss(a), at_b = loss(b);
  for (int step = 0; step < 60; ++step) {
    if (at_a < at_b) {
      high = b;
      b = a;
      at_b = at_a;
      at_a = loss(a = high - golden * (high - low));
    } else {
      low = a;
      a = b;
      at_a = at_b;
      at_b = loss(b = low + golden * (high - low));
    }
  }
  return std::exp((low + high) / 2);
}

SetQuality set_quality(std::span<const uint8_t> holds_truth, std::span<const double> sizes) {
  if (holds_truth.size() != sizes.size() || sizes.empty())
    throw_error<OptionError>("{} sets, but {} sizes", holds_truth.size(), sizes.size());
  SetQuality quality;
  const auto n = static_cast<double>(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) {
    quality.coverage += (holds_truth[i] ? 1 : 0) / n;
    quality.mean_size += sizes[i] / n;
    quality.empty += (sizes[i] == 0 ? 1 : 0) / n;
  }
  std::vector<double> sorted(sizes.begin(), sizes.end());
  quality.median_size = quantile(sorted, 0.5);
  return quality;
}

}  // namespace lighten
