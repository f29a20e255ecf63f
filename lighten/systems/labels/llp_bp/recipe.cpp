// The reproduction: is a Debian package a program? Told only is how many of a bag are.
#include "lighten/systems/labels/llp_bp/recipe.h"

#include <algorithm>
#include <optional>

#include "lighten/base/error.h"
#include "lighten/data/deb_sets.h"
#include "lighten/data/inject.h"
#include "lighten/eval/classification.h"
#include "lighten/evidence/seeds.h"
#include "lighten/features/text_features.h"
#include "lighten/systems/labels/llp_bp/llp_bp.h"

namespace lighten {
namespace {

using Metrics = std::map<std::string, double>;
constexpr const char* kTag = "role::program";

struct Extent {
  int64_t limit;  ///< samples of each split
  std::vector<int64_t> bag_sizes;
  int64_t epochs;
  int seeds;
  bool whole;
};

Extent extent_of(RecipeSize size) {
  switch (size) {
    case RecipeSize::smoke:
      return {160, {16}, 3, 1, false};
    case RecipeSize::standard:
      return {3000, {8, 128}, 30, 3, false};
    case RecipeSize::full:
      break;
  }
  return {4000, {8, 32, 128}, 30, 3, true};
}

/// Labelled packages of the validation side that choose epochs and settings, for every method alike.
constexpr size_t kLabelled = 300;
/// The settings that each method chooses from, three each: strengths of neighbours (beside lambda_bag = 10), learning rates.
const std::vector<double> kStrengths = {0.1, 1, 10}, kRates = {3e-4, 1e-3, 3e-3};

/// Features and truth of training and test packages (split by source package).
struct Ground {
  torch::Tensor x;
  std::vector<int32_t> labels;  ///< 0 or 1
  std::vector<int64_t> train, validation, test;
};

Ground ground_of(const std::vector<DebianRecord>& records, int64_t limit, uint64_t seed) {
  const MultiLabelSet set = deb_tag_from(records, {.limit = limit, .split_seed = seed});
  const auto tag = std::find(set.label_names.begin(), set.label_names.end(), kTag);
  if (tag == set.label_names.end()) throw_error<FormatError>("deb-tag has no label {}", kTag);
  Ground ground;
  const Features features = minilm_features(set.texts, "deb-tag");
  ground.x = torch::tensor(features.values).view({features.rows, features.columns});
  for (const auto& labels : set.labels)
    ground.labels.push_back(
        std::binary_search(labels.begin(), labels.end(), static_cast<int32_t>(tag - set.label_names.begin())));
  ground.train = samples_of(set.splits, Split::train);
  ground.validation = samples_of(set.splits, Split::validation);
  if (ground.validation.size() > kLabelled) ground.validation.resize(kLabelled);
  ground.test = samples_of(set.splits, Split::test);
  return ground;
}

/// Bags of training packages; behind their rows stand the labelled packages.
BagTask bag_task(const Ground& ground, int64_t size, uint64_t seed) {
  std::vector<int32_t> labels;
  for (const int64_t i : ground.train) labels.push_back(ground.labels[static_cast<size_t>(i)]);
  const Bags bags = make_bags(labels, 2, size, seed + 5);
  std::vector<int64_t> rows = ground.train;
  rows.insert(rows.end(), ground.validation.begin(), ground.validation.end());
  BagTask task;
  task.x = ground.x.index_select(0, torch::tensor(rows));
  for (size_t b = 0; b < bags.members.size(); ++b) {
    task.bags.push_back(bags.members[b]);
    task.counts.push_back(bags.counts[b][1]);
  }
  for (size_t i = 0; i < ground.validation.size(); ++i) {
    task.labelled.push_back(static_cast<int64_t>(ground.train.size() + i));
    task.labels.push_back(static_cast<uint8_t>(ground.labels[static_cast<size_t>(ground.validation[i])]));
  }
  return task;
}

double auc_of(const Ground& ground, const torch::Tensor& probabilities) {
  const torch::Tensor p = probabilities.to(torch::kDouble).contiguous();
  std::vector<uint8_t> truth;
  for (const int64_t i : ground.test) truth.push_back(static_cast<uint8_t>(ground.labels[static_cast<size_t>(i)]));
  return auc(truth, {p.data_ptr<double>(), static_cast<size_t>(p.numel())});
}

LlpBpOptions options_of(const Extent& extent, uint64_t seed) {
  LlpBpOptions options;
  options.epochs = extent.epochs;
  options.patience = 10;  // epochs are short here; the release stops after 4
  options.batch = 256;    // the release's 1024 is for hundreds of thousands of instances
  options.seed = seed;
  return options;
}

/// Belief propagation with each strength; the one whose last net ranks the labelled packages best.
Metrics measure_method(const Ground& ground, const BagTask& task, const std::string& arm, LlpBpOptions options,
                       const std::string& title) {
  const torch::Tensor test = ground.x.index_select(0, torch::tensor(ground.test));
  std::vector<double> strengths = kStrengths;
  if (arm == "llp-bp-1-round") options.rounds = 1;
  if (arm == "llp-bp-no-neighbours") {
    options.neighbours = 0;
    strengths = {options.lambda_edge};
  }
  Metrics metrics;
  double best = -1;
  for (const double strength : strengths) {
    options.lambda_edge = strength;
    LlpBpModel model = llp_bp(task, options, fmt::format("{}, lambda_edge {}", title, strength));
    if (model.rounds.back().fit.score <= best) continue;
    best = model.rounds.back().fit.score;
    int64_t right = 0;
    for (size_t i = 0; i < ground.train.size(); ++i)
      right += model.rounds.back().pseudo[i] == ground.labels[static_cast<size_t>(ground.train[i])];
    metrics["pseudo_accuracy"] = static_cast<double>(right) / static_cast<double>(ground.train.size());
    metrics["iterations"] = model.rounds[0].beliefs.iterations;
    metrics["converged"] = model.rounds[0].beliefs.converged;
    metrics["chosen"] = strength;
    metrics["validation"] = best;
    metrics["auc"] = auc_of(ground, model.probabilities(test));
  }
  return metrics;
}

Metrics measure(const Ground& ground, const std::string& arm, int64_t size, const Extent& extent, uint64_t seed) {
  const BagTask task = bag_task(ground, size, seed);
  const std::string title = fmt::format("{}, bags of {}, seed {}", arm, size, seed);
  LlpBpOptions options = options_of(extent, seed);
  if (arm.starts_with("llp-bp")) return measure_method(ground, task, arm, options, title);
  BagLosses losses{.targets = torch::zeros({task.x.size(0)}), .instance_weight = 1, .bag_weight = 0};
  if (arm == "dllp") {
    losses = {.targets = {}, .instance_weight = 0, .bag_weight = 1, .through_mean = true};
  } else if (arm == "proportion-labels") {
    for (size_t b = 0; b < task.bags.size(); ++b)
      for (const int64_t row : task.bags[b])
        losses.targets[row] = static_cast<double>(task.counts[b]) / static_cast<double>(task.bags[b].size());
  } else {  // supervised
    for (size_t i = 0; i < ground.train.size(); ++i)
      losses.targets[static_cast<int64_t>(i)] = ground.labels[static_cast<size_t>(ground.train[i])];
  }
  const torch::Tensor test = ground.x.index_select(0, torch::tensor(ground.test));
  Metrics metrics;
  double best = -1;
  for (const double rate : kRates) {
    options.learning_rate = rate;
    BagFit fit;
    BagNet net = train_bag_net(task, task.x, losses, options, fmt::format("{}, learning rate {}", title, rate), &fit);
    if (fit.score <= best) continue;
    best = fit.score;
    const torch::NoGradGuard no_grad;
    metrics = {{"auc", auc_of(ground, net->instances(test))}, {"validation", best}, {"chosen", rate}};
  }
  return metrics;
}

void run(Bench& bench) {
  at::set_num_threads(bench.threads());
  bench.describe_metric("auc", "AUC of test instances");
  bench.describe_metric("pseudo_accuracy", "pseudo-labels that are right (last round)");
  bench.describe_metric("iterations", "iterations of belief propagation (first round)");
  bench.describe_metric("converged", "converged");
  bench.describe_metric("chosen", "lambda_edge or learning rate chosen");
  bench.describe_metric("validation", "AUC of the labelled validation instances");
  const Extent extent = extent_of(bench.size());
  const std::vector<DebianRecord> records = debian_records(bench.size() != RecipeSize::smoke);
  const std::vector<std::string> arms = {"llp-bp", "dllp", "proportion-labels", "supervised"};
  for (const uint64_t seed : bench.seeds(extent.seeds)) {
    std::optional<Ground> ground;
    const auto run_arm = [&](const std::string& arm, int64_t size) {
      bench.arm(fmt::format("{}-{}", arm, size), seed, [&] {
        if (!ground) ground = ground_of(records, extent.limit, seed);
        return measure(*ground, arm, size, extent, seed);
      });
    };
    for (const int64_t size : extent.bag_sizes)
      for (const std::string& arm : arms) run_arm(arm, size);
    if (extent.whole)
      for (const std::string arm : {"llp-bp-1-round", "llp-bp-no-neighbours"}) run_arm(arm, extent.bag_sizes.back());
  }
  for (const int64_t size : extent.bag_sizes)
    for (const std::string baseline : {"dllp", "proportion-labels"})
      claim_higher(bench, fmt::format("LLP-BP has a higher AUC than {} with bags of {}", baseline, size),
                   fmt::format("llp-bp-{}", size), fmt::format("{}-{}", baseline, size), "auc");
  if (extent.whole) {
    const int64_t size = extent.bag_sizes.back();
    for (const std::string without : {"llp-bp-1-round", "llp-bp-no-neighbours"})
      claim_higher(bench, fmt::format("LLP-BP has a higher AUC than {} with bags of {}", without, size),
                   fmt::format("llp-bp-{}", size), fmt::format("{}-{}", without, size), "auc");
  }
  std::vector<SweepLine> lines;
  for (const std::string& arm : arms) {
    lines.push_back({arm, {}});
    for (const int64_t size : extent.bag_sizes)
      lines.back().points.emplace_back(static_cast<double>(size), fmt::format("{}-{}", arm, size));
  }
  plot_sweep(bench, "AUC of instances against bag size", "instances in a bag", "auc", lines, 1, "AUC on test packages");
  bench.note(fmt::format(
      "Packages with debtags; positive: role::program. Random bags of training packages. {} packages of the validation side "
      "have labels and choose, by AUC and for every method alike, the epoch and one of three settings (the paper tunes on "
      "labelled validation instances too): lambda_edge for LLP-BP, the learning rate for the others. All methods train the "
      "same "
      "net with the same optimiser, epochs and patience: DLLP by the cross-entropy between a bag's proportion and its mean "
      "prediction, proportion-labels by giving every instance its bag's proportion as a soft label; supervised sees the "
      "instances' labels (an upper bound).",
      kLabelled));
  bench.setting("data", "deb-tag");
  bench.setting("label", kTag);
  bench.setting("samples_per_split", extent.limit);
  LlpBpOptions options = options_of(extent, 0);
  bench.setting("llp-bp", to_json(describe(options)));
  bench.version("torch", TORCH_VERSION);
}

}  // namespace

Recipe llp_bp_recipe() {
  return {.id = "llp-bp",
          .claim =
              "Pseudo-labels by belief propagation over bags and neighbours train a better instance classifier from bag counts "
              "than the proportion "
              "loss does, above all with large bags.",
          .run = run};
}

}  // namespace lighten
