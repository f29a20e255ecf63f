// How far probabilities can be believed, and how large sets are that claim to hold the truth.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace lighten {

/// One bin of a reliability diagram.
struct ReliabilityBin {
  double low = 0, high = 0;  ///< probabilities in (low, high]; the first bin holds 0 too
  int64_t samples = 0;
  double confidence = 0;  ///< mean probability
  double accuracy = 0;    ///< share that came true
};
/// Equal-width bins of P(true) in [0, 1] against what came true.
std::vector<ReliabilityBin> reliability(std::span<const uint8_t> came_true, std::span<const double> probabilities,
                                        int bins = 15);

/// sum over bins of (samples / n) |accuracy - confidence|. For a classifier: came_true = right, probability = the largest one.
double expected_calibration_error(std::span<const uint8_t> came_true, std::span<const double> probabilities, int bins = 15);

/// Mean of (probability - came_true)^2.
double brier_score(std::span<const uint8_t> came_true, std::span<const double> probabilities);

/// Mean of -ln p(label) over rows of class probabilities [samples, classes]; probabilities below 2^-52 count as that.
double log_loss(std::span<const int32_t> labels, std::span<const double> probabilities, int64_t classes);

/// The temperature T > 0 that minimises log_loss(softmax(logits / T)), by golden section on ln T in [ln 0.05, ln 20].
/// Source: Guo et al., "On Calibration of Modern Neural Networks".
double fit_temperature(std::span<const int32_t> labels, std::span<const float> logits, int64_t classes);

/// Coverage and size of sets: how many hold the truth, and how many items they have.
struct SetQuality {
  double coverage = 0, mean_size = 0, median_size = 0, empty = 0;  ///< empty: share of empty sets
};
SetQuality set_quality(std::span<const uint8_t> holds_truth, std::span<const double> sizes);

}  // namespace lighten
