// Metrics of classifiers, from labels and scores as plain arrays. Equal to scikit-learn's where it has them (a test says so).
//
// Single-label: labels and predictions are class numbers in [0, classes). Multi-label: matrices [samples, labels] of 0 and 1,
// row by row. All throw OptionError where lengths do not fit or a value cannot be.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lighten/eval/statistics.h"

namespace lighten {

/// Share of predictions that equal their label.
double accuracy(std::span<const int32_t> labels, std::span<const int32_t> predictions);

/// [label][prediction]: how many samples.
std::vector<std::vector<int64_t>> confusion_matrix(std::span<const int32_t> labels, std::span<const int32_t> predictions,
                                                   int32_t classes);

/// Harmonic mean of precision and recall, 2 tp / (2 tp + fp + fn); 0 where nothing was there and nothing predicted.
struct F1Scores {
  double micro = 0;               ///< of the counts of all classes together (single-label: the accuracy)
  double macro = 0;               ///< mean over classes
  std::vector<double> per_class;  ///< every class, also those that neither labels nor predictions hold
};
/// `macro` is the mean over the classes that labels or predictions hold.
F1Scores f1_scores(std::span<const int32_t> labels, std::span<const int32_t> predictions, int32_t classes);
/// `macro` is the mean over all columns.
F1Scores f1_multilabel(std::span<const uint8_t> labels, std::span<const uint8_t> predictions, int64_t columns);

/// Share of entries that differ.
double hamming_loss(std::span<const uint8_t> labels, std::span<const uint8_t> predictions);
/// Share of rows that are right in every entry.
double subset_accuracy(std::span<const uint8_t> labels, std::span<const uint8_t> predictions, int64_t columns);

/// Area under the ROC curve: P(score of a positive > score of a negative) + P(equal) / 2. Throws if one kind is missing.
double auc(std::span<const uint8_t> labels, std::span<const double> scores);

/// McNemar's test of two classifiers on the same samples.
struct McNemar {
  int64_t only_first = 0;   ///< right where the second is wrong
  int64_t only_second = 0;  ///< the other way round
  double chi_squared = 0;   ///< (|b - c| - 1)^2 / (b + c), Edwards' continuity correction; 0 if b + c = 0
  double p_exact = 1;       ///< two-sided binomial test of b against b + c at 1/2
};
McNemar mcnemar(std::span<const uint8_t> first_right, std::span<const uint8_t> second_right);

/// Mean of `first[i] - second[i]` over paired samples (or seeds) and its 95 % bootstrap interval.
struct PairedDifference {
  double mean = 0;
  Interval interval;
};
PairedDifference paired_difference(std::span<const double> first, std::span<const double> second, int resamples = 2000,
                                   uint64_t seed = 0);

/// The index of the largest value of every row (the first on ties).
std::vector<int32_t> argmax_rows(std::span<const float> scores, int64_t columns);

}  // namespace lighten
