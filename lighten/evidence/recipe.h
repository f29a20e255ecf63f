// A reproduction: arms, metrics over seeds, claims that hold or fail, a result file and a report.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/options.h"
#include "lighten/evidence/report.h"

namespace lighten {

enum class RecipeSize : uint8_t { smoke, standard, full };
/// "smoke", "default", "full".
std::string to_string(RecipeSize size);

/// What a recipe writes into while it runs. Every finished (arm, seed) is kept in the output folder, so a killed run goes on
/// where it was.
class Bench {
 public:
  Bench(std::string id, std::string claim, RecipeSize size, uint64_t first_seed, fs::path folder, int threads);
  ~Bench();
  RecipeSize size() const;
  int threads() const;
  const fs::path& folder() const;            ///< for scratch files and caches
  std::vector<uint64_t> seeds(int n) const;  ///< first_seed, first_seed + 1, ...
  /// Runs `measure` (metrics by name) unless the result for (arm, seed) is already there.
  std::map<std::string, double> arm(const std::string& name, uint64_t seed,
                                    const std::function<std::map<std::string, double>()>& measure);
  /// Values of a metric over the seeds run so far, in order of seed.
  std::vector<double> values(const std::string& arm, const std::string& metric) const;
  double mean(const std::string& arm, const std::string& metric) const;
  /// Sample standard deviation (n - 1); 0 for one value.
  double sd(const std::string& arm, const std::string& metric) const;
  /// Claim: metric of `better` is below that of `worse`. margin = mean over paired seeds of (worse - better) / worse. Holds if
  /// margin > 0.
  void claim_below(const std::string& text, const std::string& better, const std::string& worse, const std::string& metric);
  /// Any other claim: margin relative, positive where it holds.
  void claim(const std::string& text, double margin);
  /// A claim that was judged seed by seed: margin is the mean of `paired`.
  void claim_paired(const std::string& text, const std::vector<double>& paired);
  void note(const std::string& text);  ///< shown in the report
  void plot_lines(const std::string& title, const std::string& x_label, const std::string& y_label, std::vector<Series> series,
                  bool log_y = false);
  void plot_bars(const std::string& title, const std::string& y_label, std::vector<Series> series);
  void plot(Plot plot);
  void setting(const std::string& name, Json value);  ///< goes into result.json: data, options
  void version(const std::string& name, const std::string& value);
  /// How tables and plots call a metric: "perplexity, near text", unit "" or "MB". Metrics are shown in the order they are
  /// described, others after them.
  void describe_metric(const std::string& metric, const std::string& label, const std::string& unit = "");
  /// The arm that the tables compare the others with.
  void baseline(const std::string& arm);
  /// result.json and report.html (atomically), and the table and claims as text.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct Recipe {
  std::string id, claim;  ///< the published claim in a sentence
  std::function<void(Bench&)> run;
};

}  // namespace lighten
