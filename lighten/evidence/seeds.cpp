#include "lighten/evidence/seeds.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <limits>

#include "lighten/base/error.h"

namespace lighten {

void run_seeds(Bench& bench, const std::vector<SeedArm>& arms, const std::vector<uint64_t>& seeds) {
  for (const uint64_t seed : seeds)
    for (const SeedArm& arm : arms) bench.arm(arm.name, seed, [&] { return arm.measure(seed); });
}

double student_t(int degrees_of_freedom) {
  static constexpr std::array<double, 30> kTable = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                                                    2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                                                    2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
  if (degrees_of_freedom < 1) return std::numeric_limits<double>::infinity();
  if (degrees_of_freedom <= static_cast<int>(kTable.size())) return kTable[degrees_of_freedom - 1];
  // Cornish-Fisher expansion around the normal quantile z.
  const double z = 1.959964, n = degrees_of_freedom;
  return z + (z * z * z + z) / (4 * n) + (5 * std::pow(z, 5) + 16 * z * z * z + 3 * z) / (96 * n * n);
}

SeedDifference seed_difference(const std::vector<double>& first, const std::vector<double>& second) {
  if (first.size() != second.size() || first.empty())
    throw_error<OptionError>("seed_difference: {} and {} values cannot be paired", first.size(), second.size());
  SeedDifference result;
  for (size_t i = 0; i < first.size(); ++i) {
    result.each.push_back(first[i] - second[i]);
    result.mean += result.each.back();
  }
  const double n = static_cast<double>(first.size());
  result.mean /= n;
  double squares = 0;
  for (const double d : result.each) squares += (d - result.mean) * (d - result.mean);
  const double reach = n < 2 ? std::numeric_limits<double>::infinity()
                             : student_t(static_cast<int>(first.size()) - 1) * std::sqrt(squares / (n - 1) / n);
  result.low = result.mean - reach;
  result.high = result.mean + reach;
  return result;
}

std::string SeedDifference::text(double scale, int decimals) const {
  if (!std::isfinite(low)) return fmt::format("{:+.{}f} (one seed)", mean * scale, decimals);
  return fmt::format("{:+.{}f} [{:+.{}f}, {:+.{}f}]", mean * scale, decimals, low * scale, decimals, high * scale, decimals);
}

SeedDifference claim_higher(Bench& bench, const std::string& text, const std::string& better, const std::string& worse,
                            const std::string& metric) {
  SeedDifference difference = seed_difference(bench.values(better, metric), bench.values(worse, metric));
  bench.claim_paired(
      fmt::format("{}: {} points, 95 % interval over {} seed(s)", text, difference.text(100), difference.each.size()),
      difference.each);
  return difference;
}

void plot_sweep(Bench& bench, const std::string& title, const std::string& x_label, const std::string& metric,
                const std::vector<SweepLine>& lines, double scale, const std::string& y_label) {
  Plot plot{Plot::Kind::lines,
            title,
            "Means over seeds; bars: one standard deviation.",
            x_label,
            y_label.empty() ? metric : y_label,
            {}};
  for (const SweepLine& line : lines) {
    Series series{.name = line.name, .x = {}, .y = {}, .labels = {}, .error = {}};
    for (const auto& [x, arm] : line.points) {
      if (bench.values(arm, metric).empty()) continue;
      series.x.push_back(x);
      series.y.push_back(scale * bench.mean(arm, metric));
      series.error.push_back(scale * bench.sd(arm, metric));
    }
    if (!series.x.empty()) plot.series.push_back(std::move(series));
  }
  if (!plot.series.empty()) bench.plot(plot);
}

void plot_curves(Bench& bench, const std::string& title, const std::string& y_label,
                 const std::map<std::string, std::vector<double>>& curves) {
  Plot plot{Plot::Kind::lines, title, "", "epoch", y_label, {}};
  for (const auto& [name, values] : curves) {
    Series series{.name = name, .x = {}, .y = values, .labels = {}, .error = {}};
    for (size_t i = 0; i < values.size(); ++i) series.x.push_back(static_cast<double>(i + 1));
    plot.series.push_back(std::move(series));
  }
  if (!plot.series.empty()) bench.plot(plot);
}

void plot_reliability(Bench& bench, const std::string& title, const std::vector<double>& confidence,
                      const std::vector<double>& accuracy) {
  if (confidence.size() != accuracy.size())
    throw_error<OptionError>("plot_reliability: {} confidences, {} accuracies", confidence.size(), accuracy.size());
  Plot plot{Plot::Kind::lines, title, "Above the diagonal: too modest; below: too sure.", "confidence", "accuracy", {}};
  plot.series.push_back({.name = "measured", .x = confidence, .y = accuracy, .labels = {}, .error = {}});
  plot.series.push_back({.name = "calibrated", .x = {0, 1}, .y = {0, 1}, .labels = {}, .error = {}});
  bench.plot(plot);
}

}  // namespace lighten
