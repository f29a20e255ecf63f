// The reproduction: label sets of Debian's packages, certified around two classifiers (MiniLM features and a bag of words).
#include "lighten/systems/labels/lp_icp/recipe.h"

#include <torch/torch.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>

#include "lighten/base/error.h"
#include "lighten/data/deb_sets.h"
#include "lighten/eval/classification.h"
#include "lighten/features/bag_of_words.h"
#include "lighten/nn/mlp.h"
#include "lighten/systems/labels/lp_icp/lp_icp.h"
#include "lighten/train/loop.h"

namespace lighten {
namespace {

using Metrics = std::map<std::string, double>;
constexpr double kEps[] = {0.01, 0.02, 0.05, 0.1, 0.2, 0.3};

struct Extent {
  int64_t limit;                ///< samples of each split of the data set
  std::vector<int64_t> labels;  ///< how many of the most frequent
  int64_t epochs, words;
  int64_t powerset_samples;
  int seeds;
};

Extent extent_of(RecipeSize size) {
  switch (size) {
    case RecipeSize::smoke:
      return {120, {10}, 3, 256, 20, 1};
    case RecipeSize::standard:
      return {2000, {20, 54}, 12, 1024, 50, 3};
    case RecipeSize::full:
      break;
  }
  return {9000, {20, 54, 120}, 20, 2048, 100, 3};
}

enum class Role : uint8_t { train, stop, calibrate, test };

/// The set with its `count` most frequent labels, and what every sample is for. Calibration and test samples are drawn by the
/// same rule, the hash of the source package, and none of them is seen in training.
struct Task {
  std::vector<std::string> texts;
  std::vector<Role> roles;
  std::vector<uint8_t> labels;  ///< [n, columns]
  int64_t columns = 0;

  std::vector<int64_t> samples(Role role) const {
    std::vector<int64_t> list;
    for (size_t i = 0; i < roles.size(); ++i)
      if (roles[i] == role) list.push_back(static_cast<int64_t>(i));
    return list;
  }
  std::vector<uint8_t> labels_of(const std::vector<int64_t>& samples) const {
    std::vector<uint8_t> rows;
    for (const int64_t i : samples) rows.insert(rows.end(), labels.begin() + i * columns, labels.begin() + (i + 1) * columns);
    return rows;
  }
};

Role role_of(Split split, const std::string& key, uint64_t seed) {
  if (split == Split::test) return Role::test;
  if (split == Split::validation) return Role::calibrate;
  const Split inner = split_of(key, {.validation = 0.08, .test = 0.06}, seed + 1000);
  return inner == Split::test ? Role::calibrate : inner == Split::validation ? Role::stop : Role::train;
}

Task task_of(const std::vector<DebianRecord>& records, int64_t limit, int64_t count, uint64_t seed) {
  const MultiLabelSet set = deb_tag_from(records, {.limit = limit, .split_seed = seed});
  Task task;
  task.texts = set.texts;
  std::vector<int64_t> frequency(set.label_names.size());
  for (size_t i = 0; i < set.texts.size(); ++i) {
    task.roles.push_back(role_of(set.splits[i], set.keys[i], seed));
    if (task.roles.back() == Role::train)
      for (const int32_t label : set.labels[i]) ++frequency[static_cast<size_t>(label)];
  }
  std::vector<int32_t> order(frequency.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return frequency[static_cast<size_t>(a)] > frequency[static_cast<size_t>(b)]; });
  task.columns = std::min<int64_t>(count, std::ssize(order));
  std::vector<int64_t> column(frequency.size(), -1);
  for (int64_t c = 0; c < task.columns; ++c) column[static_cast<size_t>(order[static_cast<size_t>(c)])] = c;
  task.labels.assign(set.texts.size() * static_cast<size_t>(task.columns), 0);
  for (size_t i = 0; i < set.texts.size(); ++i)
    for (const int32_t label : set.labels[i])
      if (const int64_t c = column[static_cast<size_t>(label)]; c >= 0)
        task.labels[i * static_cast<size_t>(task.columns) + static_cast<size_t>(c)] = 1;
  return task;
}

torch::Tensor rows_of(const torch::Tensor& matrix, const std::vector<int64_t>& samples) {
  return matrix.index_select(0, torch::tensor(samples));
}

/// Probabilities [samples, columns] of the samples of `role`.
struct Classified {
  std::vector<int64_t> samples;
  std::vector<float> scores;
  std::vector<uint8_t> labels;
  std::span<const float> row(size_t i, int64_t columns) const {
    return std::span(scores).subspan(i * static_cast<size_t>(columns), static_cast<size_t>(columns));
  }
  std::span<const uint8_t> truth(size_t i, int64_t columns) const {
    return std::span(labels).subspan(i * static_cast<size_t>(columns), static_cast<size_t>(columns));
  }
};

struct Classifiers {
  Classified calibration, test;
};

Classifiers train_classifier(const Task& task, const Features& features, int64_t epochs, uint64_t seed,
                             const std::string& title) {
  const torch::Tensor x = torch::tensor(features.values).view({features.rows, features.columns});
  const torch::Tensor y = torch::tensor(task.labels).view({features.rows, task.columns}).to(torch::kFloat);
  FeatureNet net(FeatureNetConfig{.inputs = features.columns, .widths = {256}, .outputs = task.columns, .dropout = 0.2}, seed);
  const torch::Tensor stop_x = rows_of(x, task.samples(Role::stop)), stop_y = rows_of(y, task.samples(Role::stop));
  TrainTask training;
  training.title = title;
  training.modules = {{.name = "net", .module = net.get()}};
  training.samples = task.samples(Role::train);
  training.loss = [&](const TrainStep& step) {
    const torch::Tensor batch = torch::tensor(std::vector<int64_t>(step.samples.begin(), step.samples.end()));
    return torch::binary_cross_entropy_with_logits(net->forward(x.index_select(0, batch)), y.index_select(0, batch));
  };
  training.validate = [&] { return -torch::binary_cross_entropy_with_logits(predict(net, stop_x), stop_y).item<double>(); };
  train(training, {.epochs = epochs,
                   .batch_size = 128,
                   .optimizer = "adamw",
                   .learning_rate = 2e-3,
                   .weight_decay = 1e-4,
                   .patience = 4,
                   .seed = seed});
  const auto classify = [&](Role role) {
    Classified result{task.samples(role), {}, {}};
    const torch::Tensor scores = torch::sigmoid(predict(net, rows_of(x, result.samples))).contiguous();
    result.scores.assign(scores.data_ptr<float>(), scores.data_ptr<float>() + scores.numel());
    result.labels = task.labels_of(result.samples);
    return result;
  };
  return {classify(Role::calibrate), classify(Role::test)};
}

/// Sets of one sample from the whole powerset, by Gray code: how many, and the sum of their hashes.
std::pair<int64_t, uint64_t> powerset(std::span<const float> scores, Alpha limit) {
  const size_t c = scores.size();
  std::vector<Alpha> absent, present;
  for (const float o : scores) {
    absent.push_back(std::llround(static_cast<double>(o) / kAlphaUnit));
    present.push_back(std::llround((1 - static_cast<double>(o)) / kAlphaUnit));
  }
  Alpha alpha = std::accumulate(absent.begin(), absent.end(), Alpha{0});
  uint64_t bits = 0, hashes = 0;
  int64_t count = 0;
  for (uint64_t i = 0;;) {
    if (alpha <= limit) {
      ++count;
      hashes += (bits + 1) * 0x9e3779b97f4a7c15ULL;
    }
    if (++i >> c) break;
    const auto j = static_cast<size_t>(std::countr_zero(i));
    bits ^= uint64_t{1} << j;
    alpha += (bits >> j) & 1U ? present[j] - absent[j] : absent[j] - present[j];
  }
  return {count, hashes};
}

/// Finds the same sets as the whole powerset does on the first samples? And how many times faster?
void compare_with_powerset(Metrics& metrics, const LpIcpCalibration& calibration, const Classified& test, int64_t columns,
                           int64_t samples) {
  const Alpha limit = calibration.threshold(0.1);
  int64_t same = 0;
  double slow = 0, fast = 0;
  const auto seconds = [](auto start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  samples = std::min(samples, std::ssize(test.samples));
  for (int64_t i = 0; i < samples; ++i) {
    const auto scores = test.row(static_cast<size_t>(i), columns);
    auto start = std::chrono::steady_clock::now();
    const auto [count, hashes] = powerset(scores, limit);
    slow += seconds(start);
    start = std::chrono::steady_clock::now();
    const LpIcpPrediction found = lp_icp_predict(calibration, scores, {.eps = 0.1, .max_sets = 10'000'000});
    fast += seconds(start);
    uint64_t sum = 0;
    for (const PlausibleSet& set : found.sets) {
      uint64_t bits = 0;
      for (const int32_t label : set.labels) bits |= uint64_t{1} << label;
      sum += (bits + 1) * 0x9e3779b97f4a7c15ULL;
    }
    same += std::ssize(found.sets) == count && sum == hashes;
  }
  metrics["identical"] = static_cast<double>(same) / static_cast<double>(samples);
  metrics["speedup"] = slow / fast;
}

/// The baseline: every label by itself at eps / columns (Bonferroni), which guarantees the joint set too.
Metrics per_label_sets(const Classified& calibration, const Classified& test, int64_t columns) {
  const auto width = static_cast<size_t>(columns);
  std::vector<std::vector<double>> scores(width);
  for (size_t i = 0; i < calibration.labels.size(); ++i)
    scores[i % width].push_back(std::abs(calibration.labels[i] - static_cast<double>(calibration.scores[i])));
  for (auto& column : scores) std::sort(column.begin(), column.end());
  Metrics metrics;
  std::vector<double> log_sizes;
  for (const double eps : kEps) {
    double wrong = 0;
    for (size_t i = 0; i < test.samples.size(); ++i) {
      bool held = true;
      double doubled = 0;
      for (size_t j = 0; j < width; ++j) {
        const auto plausible = [&](double alpha) {
          const auto at_least = scores[j].end() - std::lower_bound(scores[j].begin(), scores[j].end(), alpha);
          return static_cast<double>(at_least + 1) / static_cast<double>(scores[j].size() + 1) >
                 eps / static_cast<double>(columns);
        };
        const double o = test.scores[i * width + j];
        const bool in[2] = {plausible(o), plausible(1 - o)};
        held = held && in[test.labels[i * width + j]];
        doubled += in[0] && in[1];
      }
      wrong += !held;
      if (eps == 0.1) log_sizes.push_back(doubled * std::log10(2.0));
    }
    metrics[fmt::format("error_{:02.0f}", 100 * eps)] = wrong / static_cast<double>(test.samples.size());
  }
  metrics["log_sets"] = std::accumulate(log_sizes.begin(), log_sizes.end(), 0.0) / static_cast<double>(log_sizes.size());
  metrics["median_sets"] = std::pow(10, quantile(log_sizes, 0.5));
  return metrics;
}

Metrics certified(const Classified& calibration_samples, const Classified& test, int64_t columns, const Extent& extent) {
  Metrics metrics;
  std::vector<uint8_t> point;
  for (const float o : test.scores) point.push_back(o >= 0.5F);
  metrics["micro_f1"] = f1_multilabel(test.labels, point, columns).micro;
  metrics["point_error"] = 1 - subset_accuracy(test.labels, point, columns);
  const LpIcpCalibration calibration = lp_icp_calibrate(calibration_samples.scores, calibration_samples.labels, columns);
  for (const double eps : kEps) {
    if (eps * static_cast<double>(calibration.scores.size() + 1) < 1) continue;
    double wrong = 0;
    for (size_t i = 0; i < test.samples.size(); ++i)
      wrong += !lp_icp_contains(calibration, test.row(i, columns), test.truth(i, columns), eps);
    metrics[fmt::format("error_{:02.0f}", 100 * eps)] = wrong / static_cast<double>(test.samples.size());
  }
  std::vector<double> sizes;
  const auto n = static_cast<double>(test.samples.size());
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < test.samples.size(); ++i) {
    const LpIcpPrediction p = lp_icp_predict(calibration, test.row(i, columns), {.eps = 0.1, .max_sets = 10'000});
    const double size = std::sqrt(p.count_low * p.count_high);
    sizes.push_back(size);
    metrics["log_sets"] += std::log10(std::max(size, 1.0)) / n;
    metrics["visited"] += static_cast<double>(p.visited) / n;
    metrics["undecided"] += static_cast<double>(p.undecided.size()) / n;
    metrics["credibility"] += p.credibility / n;
    metrics["confidence"] += p.confidence / n;
  }
  metrics["ms_a_sample"] = 1000 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / n;
  metrics["median_sets"] = quantile(sizes, 0.5);
  if (columns <= 20) compare_with_powerset(metrics, calibration, test, columns, extent.powerset_samples);
  return metrics;
}

void describe_metrics(Bench& bench) {
  bench.describe_metric("micro_f1", "micro-F1 of the point prediction");
  bench.describe_metric("point_error", "point prediction not exactly right");
  for (const double eps : kEps)
    bench.describe_metric(fmt::format("error_{:02.0f}", 100 * eps), fmt::format("truth missed at eps = {}", eps));
  bench.describe_metric("median_sets", "label sets a sample at eps = 0.1, median");
  bench.describe_metric("log_sets", "log10 of the label sets at eps = 0.1, mean");
  bench.describe_metric("undecided", "labels that are undecided at eps = 0.1");
  bench.describe_metric("visited", "label sets looked at, at eps = 0.1 (list of at most 10,000)");
  bench.describe_metric("ms_a_sample", "time a sample", "ms");
  bench.describe_metric("confidence", "confidence, mean");
  bench.describe_metric("credibility", "credibility, mean");
  bench.describe_metric("identical", "share of samples with the sets of the whole powerset");
  bench.describe_metric("speedup", "times faster than the whole powerset");
}

void plot_errors(Bench& bench, const std::vector<std::string>& arms) {
  Plot plot{
      Plot::Kind::lines,
      "Error against eps",
      "Share of test samples whose true label set is not in the predicted set of sets. On or below the diagonal is valid.",
      "eps",
      "share missed",
      {}};
  plot.series.push_back({.name = "eps", .x = {0, 0.3}, .y = {0, 0.3}, .labels = {}, .error = {}});
  for (const std::string& arm : arms) {
    Series series{.name = arm, .x = {}, .y = {}, .labels = {}, .error = {}};
    for (const double eps : kEps) {
      const std::string metric = fmt::format("error_{:02.0f}", 100 * eps);
      if (bench.values(arm, metric).empty()) continue;
      series.x.push_back(eps);
      series.y.push_back(bench.mean(arm, metric));
      series.error.push_back(bench.sd(arm, metric));
    }
    plot.series.push_back(series);
  }
  bench.plot(plot);
}

/// How far the mean error stays below eps + 0.01, relative, at the eps where it is nearest.
double validity(const Bench& bench, const std::string& arm) {
  double least = 1;
  for (const double eps : kEps) {
    const std::string metric = fmt::format("error_{:02.0f}", 100 * eps);
    if (!bench.values(arm, metric).empty()) least = std::min(least, 1 - bench.mean(arm, metric) / (eps + 0.01));
  }
  return least;
}

void run(Bench& bench) {
  at::set_num_threads(bench.threads());
  describe_metrics(bench);
  const Extent extent = extent_of(bench.size());
  const std::vector<DebianRecord> records = debian_records(bench.size() != RecipeSize::smoke);
  std::vector<std::string> arms;
  for (const int64_t columns : extent.labels) {
    const std::string suffix = fmt::format("-{}", columns);
    arms.push_back("minilm" + suffix);
    arms.push_back("words" + suffix);
    for (const uint64_t seed : bench.seeds(extent.seeds)) {
      std::optional<Task> task;
      std::map<std::string, Classifiers> classified;  // trained at most once, and not at all for a finished arm
      const auto classifiers = [&](const std::string& kind) -> const Classifiers& {
        if (!task) task = task_of(records, extent.limit, columns, seed);
        if (!classified.contains(kind)) {
          const Features features = kind == "minilm" ? minilm_features(task->texts, "deb-tag")
                                                     : bag_of_words(task->texts, extent.words, task->samples(Role::train));
          classified[kind] =
              train_classifier(*task, features, extent.epochs, seed, fmt::format("{}{}, seed {}", kind, suffix, seed));
        }
        return classified[kind];
      };
      for (const std::string kind : {"minilm", "words"})
        bench.arm(kind + suffix, seed, [&] {
          const Classifiers& c = classifiers(kind);
          return certified(c.calibration, c.test, task->columns, extent);
        });
      bench.arm("minilm-per-label" + suffix, seed, [&] {
        const Classifiers& c = classifiers("minilm");
        return per_label_sets(c.calibration, c.test, task->columns);
      });
    }
  }
  for (const std::string& arm : arms)
    bench.claim(fmt::format("{}: the true label set is missed with at most eps + 0.01 at every eps (mean over seeds)", arm),
                validity(bench, arm));
  const std::string small = fmt::format("-{}", extent.labels.front()), large = fmt::format("-{}", extent.labels.back());
  if (extent.labels.front() <= 20) {
    bench.claim(fmt::format("with {} labels the sets found are those of the whole powerset, every one", extent.labels.front()),
                bench.mean("minilm" + small, "identical") == 1 && bench.mean("words" + small, "identical") == 1 ? 1 : -1);
    bench.claim("and are found faster (relative to the powerset's time)", 1 - 1 / bench.mean("minilm" + small, "speedup"));
  }
  bench.claim_below(fmt::format("the better encoder has fewer plausible sets with {} labels (log10)", extent.labels.back()),
                    "minilm" + large, "words" + large, "log_sets");
  bench.claim_below(
      fmt::format("one set of sets is smaller than certifying {} labels one by one (log10)", extent.labels.back()),
      "minilm" + large, "minilm-per-label" + large, "log_sets");
  plot_errors(bench, arms);
  bench.note(
      "Classifiers: one hidden layer of 256 on MiniLM's vectors or on hashed TF-IDF, binary cross-entropy, stopped early on "
      "training "
      "packages that were set aside. Calibration and test samples are split by source package and unseen in training. "
      "\"per-label\" is the "
      "baseline: a conformal set for every label at eps / labels, which guarantees the same (Bonferroni). The point prediction "
      "is the "
      "classifier's own at 0.5: certifying changes no F1.");
  bench.setting("data", "deb-tag");
  bench.setting("labels", extent.labels);
  LpIcpOptions options;
  bench.setting("lp-icp", to_json(describe(options)));
  bench.version("torch", TORCH_VERSION);
}

}  // namespace

Recipe lp_icp_recipe() {
  return {.id = "lp-icp",
          .claim =
              "The set of plausible label sets misses the true one with at most the chosen probability, and is found exactly "
              "although "
              "there are 2^labels sets.",
          .run = run};
}

}  // namespace lighten
