// Arms x seeds: every arm measured with every seed, resumably, and compared in pairs.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lighten/evidence/recipe.h"

namespace lighten {

/// One arm of a comparison; `measure` draws everything (data split, noise, weights) from the seed.
struct SeedArm {
  std::string name;
  std::function<std::map<std::string, double>(uint64_t seed)> measure;
};
/// Measures all arms with the first seed, then with the next: a run that is stopped early is still paired. What is already in
/// the bench's folder is not measured again.
void run_seeds(Bench& bench, const std::vector<SeedArm>& arms, const std::vector<uint64_t>& seeds);

/// Differences of one metric between two arms, seed by seed, and the 95 % interval of their mean by Student's t:
/// mean -+ t(n - 1) sd / sqrt(n). With one seed the interval is unknown (infinite).
struct SeedDifference {
  std::vector<double> each;
  double mean = 0, low = 0, high = 0;
  /// "+2.13 [+1.02, +3.24]", values times `scale`.
  std::string text(double scale = 1, int decimals = 2) const;
};
SeedDifference seed_difference(const std::vector<double>& first, const std::vector<double>& second);
/// Student's 97.5 % quantile.
double student_t(int degrees_of_freedom);

/// Claim: `better` has a higher `metric` than `worse` (accuracies and other shares, so that the margin reads as points). Paired
/// over seeds; the text is completed by the difference and its interval. Holds if the mean difference is positive.
SeedDifference claim_higher(Bench& bench, const std::string& text, const std::string& better, const std::string& worse,
                            const std::string& metric);

/// One line of a sweep: the arms that differ in x only.
struct SweepLine {
  std::string name;
  std::vector<std::pair<double, std::string>> points;  ///< x, arm
};
/// Means over seeds with their standard deviations against x (noise rate, bag size, bits).
void plot_sweep(Bench& bench, const std::string& title, const std::string& x_label, const std::string& metric,
                const std::vector<SweepLine>& lines, double scale = 1, const std::string& y_label = "");
/// One value an epoch.
void plot_curves(Bench& bench, const std::string& title, const std::string& y_label,
                 const std::map<std::string, std::vector<double>>& curves);
/// Accuracy against confidence, bin by bin, with the diagonal.
void plot_reliability(Bench& bench, const std::string& title, const std::vector<double>& confidence,
                      const std::vector<double>& accuracy);

}  // namespace lighten
