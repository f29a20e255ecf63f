// LP-ICP: for every sample a set of label sets that holds the true one with probability 1 - eps, around any multi-label
// classifier. Torch-free: it needs scores and nothing else.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/options.h"

namespace lighten {

struct LpIcpOptions {
  double eps = 0.1;        ///< the true label set may be missed with at most this probability
  double power = 1;        ///< s of the nonconformity score
  int64_t max_sets = 100;  ///< list at most so many label sets of a sample, the most plausible first
};
/// Declared once: flags, validation, --help, result.json and the README table come from here.
OptionList describe(LpIcpOptions& options);

/// Nonconformity scores in units of 2^-30, so that equal is equal: alpha(t) = sum_j |t_j - o_j|^s, t_j in {0, 1}, every term
/// rounded to a whole number.
using Alpha = int64_t;
constexpr double kAlphaUnit = 1.0 / (1 << 30);

/// What calibration leaves behind.
struct LpIcpCalibration {
  int64_t labels = 0;                   ///< c
  double power = 1;                     ///< s
  std::vector<Alpha> scores;            ///< of the calibration samples with their true sets, ascending
  std::vector<std::string> names = {};  ///< of the labels; may be empty
  std::optional<bool> logits = {};      ///< whether the scores were logits that a sigmoid turned into these; not always known

  /// p = (#{i: alpha_i >= alpha} + 1) / (q + 1).
  double p_value(Alpha alpha) const;
  /// The largest alpha with p > eps: the n0-th largest score, n0 = floor(eps (q + 1)). Throws OptionError if eps (q + 1) < 1:
  /// so few samples exclude nothing.
  Alpha threshold(double eps) const;
};
Json to_json(const LpIcpCalibration& calibration);
/// Throws FormatError that begins with `where`.
LpIcpCalibration calibration_from_json(const Json& json, const std::string& where);

/// alpha of one sample: `scores` [c] in [0, 1], `labels` [c] of 0 and 1.
Alpha nonconformity(std::span<const float> scores, std::span<const uint8_t> labels, double power);

/// scores, labels [q, c] of samples that the classifier was not trained on, drawn as those to come are (exchangeable: split by
/// the same key). Throws OptionError on lengths that do not fit and on a score outside [0, 1], naming row and column.
LpIcpCalibration lp_icp_calibrate(std::span<const float> scores, std::span<const uint8_t> labels, int64_t columns,
                                  double power = 1);

struct PlausibleSet {
  std::vector<int32_t> labels;  ///< ascending
  double p = 0;
};

/// Gamma = {t: p(t) > eps} of one sample.
struct LpIcpPrediction {
  std::vector<int32_t> point;  ///< [o_j >= 0.5], the most plausible set
  double credibility = 0;      ///< p(point): small means that no set fits well
  double confidence = 0;       ///< 1 - the second largest p
  /// How many sets Gamma holds: equal where all were listed, else bounds from sums rounded up and down.
  double count_low = 0, count_high = 0;
  bool complete = true;                    ///< `sets` is all of Gamma
  std::vector<PlausibleSet> sets;          ///< most plausible first
  std::vector<int32_t> always, undecided;  ///< labels in every set of Gamma, and those in some; all others are in none
  int64_t visited = 0;                     ///< sets looked at
};

/// Finds Gamma without looking at the 2^c sets. Against the point set, flipping label j costs d_j = ||1 - o_j|^s - o_j^s|, and
/// a set of flips the sum. Subsets of the flips, d ascending, are visited in order of their sums (from a subset whose last flip
/// is i follow: i + 1 added, and i replaced by i + 1) until the sum exceeds the threshold; what is never visited has p <= eps,
/// so the guarantee P(truth in Gamma) >= 1 - eps is untouched.
///
/// Source: "Well-calibrated Confidence Measures for Multi-label Text Classification with a Large Number of Labels" (inductive
/// conformal prediction on the label powerset; the elimination here is by exact sums instead of by the number of flips).
LpIcpPrediction lp_icp_predict(const LpIcpCalibration& calibration, std::span<const float> scores, const LpIcpOptions& options);

/// Whether `labels` [c] is in Gamma, without listing it.
bool lp_icp_contains(const LpIcpCalibration& calibration, std::span<const float> scores, std::span<const uint8_t> labels,
                     double eps);

/// Bounds on the number of subsets of `costs` with a sum of at most `limit`, by dynamic programming on sums in 4,096 steps.
std::pair<double, double> count_subsets(std::span<const Alpha> costs, Alpha limit);

/// Throws OptionError that names row and column of the first score outside [0, 1] (or not a number).
void check_scores(std::span<const float> scores, int64_t columns, const std::string& name);

}  // namespace lighten
