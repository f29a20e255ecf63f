// The reproduction: which packages does a Debian package need? Texts against the texts of 19,000 labels, with and without the
// words of its own name.
#include "lighten/systems/labels/dexml/recipe.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "lighten/base/error.h"
#include "lighten/data/deb_sets.h"
#include "lighten/evidence/seeds.h"
#include "lighten/features/text_features.h"
#include "lighten/nn/state.h"
#include "lighten/systems/labels/dexml/dexml.h"

namespace lighten {
namespace {

using Metrics = std::map<std::string, double>;

// Arms of the decoupled softmax with other labels in each step.
const std::string kHard = "decoupled, hard negatives", kAll = "decoupled, all labels";

struct Extent {
  int64_t limit;  ///< samples of each split
  int64_t pool, epochs;
  int seeds;
  bool whole;
};

Extent extent_of(RecipeSize size) {
  switch (size) {
    case RecipeSize::smoke:
      return {100, 64, 2, 1, false};
    case RecipeSize::standard:
      return {1200, 1024, 5, 3, false};
    case RecipeSize::full:
      break;
  }
  return {3000, 1024, 8, 3, true};
}

/// The set with the labels that at least two of its samples carry (all there are without a limit).
struct Ground {
  MatchTask task;
  torch::Tensor queries, labels;
  std::vector<int64_t> test;
  std::vector<bool> unseen;  ///< labels that no training sample carries
  std::vector<bool> is_hub;  ///< the ten most frequent ones
  IdLists training_labels;
};

Ground ground_of(const std::vector<DebianRecord>& records, int64_t limit, uint64_t seed) {
  const MultiLabelSet set = deb_xml_from(records, {.limit = limit, .split_seed = seed});
  std::vector<int64_t> all(set.label_names.size()), in_training(set.label_names.size());
  for (size_t i = 0; i < set.texts.size(); ++i)
    for (const int32_t label : set.labels[i]) {
      ++all[static_cast<size_t>(label)];
      in_training[static_cast<size_t>(label)] += set.splits[i] == Split::train;
    }
  Ground ground;
  std::vector<int32_t> number(all.size(), -1);
  std::vector<std::string> texts;
  std::vector<std::pair<int64_t, int32_t>> frequency;
  for (size_t l = 0; l < all.size(); ++l) {
    if (all[l] < 2) continue;
    number[l] = static_cast<int32_t>(texts.size());
    texts.push_back(set.label_texts[l]);
    ground.unseen.push_back(in_training[l] == 0);
    frequency.emplace_back(-in_training[l], number[l]);
  }
  std::sort(frequency.begin(), frequency.end());
  ground.is_hub.assign(texts.size(), false);
  for (size_t i = 0; i < std::min<size_t>(10, frequency.size()); ++i)
    ground.is_hub[static_cast<size_t>(frequency[i].second)] = true;
  ground.task.queries = set.size();
  ground.task.labels = std::ssize(texts);
  for (size_t i = 0; i < set.texts.size(); ++i) {
    ground.task.positives.emplace_back();
    for (const int32_t label : set.labels[i])
      if (number[static_cast<size_t>(label)] >= 0) ground.task.positives.back().push_back(number[static_cast<size_t>(label)]);
    if (set.splits[i] == Split::train) ground.training_labels.push_back(ground.task.positives.back());
  }
  ground.task.train = samples_of(set.splits, Split::train);
  ground.task.validation = samples_of(set.splits, Split::validation);
  if (std::ssize(ground.task.validation) > 1000) ground.task.validation.resize(1000);
  ground.test = samples_of(set.splits, Split::test);
  const auto tensor = [](const Features& features) {
    return torch::tensor(features.values).view({features.rows, features.columns});
  };
  ground.queries = tensor(minilm_features(set.texts, "deb-xml"));
  ground.labels = tensor(minilm_features(texts, "the labels of deb-xml"));
  return ground;
}

/// Rankings and truths with only the labels for which keep[label] == wanted.
std::pair<IdLists, IdLists> filtered(const IdLists& ranked, const IdLists& truth, const std::vector<bool>& flag, bool wanted) {
  std::pair<IdLists, IdLists> result{ranked, truth};
  for (IdLists* lists : {&result.first, &result.second})
    for (auto& list : *lists) std::erase_if(list, [&](int32_t label) { return flag[static_cast<size_t>(label)] != wanted; });
  return result;
}

Metrics measure(const Ground& ground, const torch::Tensor& queries, const torch::Tensor& labels) {
  IdLists truth;
  for (const int64_t i : ground.test) truth.push_back(ground.task.positives[static_cast<size_t>(i)]);
  const IdLists ranked = best_labels(queries, labels, 200);
  Metrics metrics;
  metrics["p1"] = precision_at(ranked, truth, 1);
  metrics["p5"] = precision_at(ranked, truth, 5);
  metrics["ndcg5"] = ndcg_at(ranked, truth, 5);
  metrics["r50"] = recall_at(ranked, truth, 50);
  metrics["psp5"] = propensity_precision_at(ranked, truth, propensities(ground.training_labels, ground.task.labels), 5);
  const auto [plain_ranked, plain_truth] = filtered(ranked, truth, ground.is_hub, false);
  metrics["p5_no_hubs"] = precision_at(plain_ranked, plain_truth, 5);
  // Among the labels that training never saw alone: every one of them is ranked.
  std::vector<int64_t> fresh;
  for (size_t l = 0; l < ground.unseen.size(); ++l)
    if (ground.unseen[l]) fresh.push_back(static_cast<int64_t>(l));
  if (!fresh.empty()) {
    const IdLists among = best_labels(queries, labels.index_select(0, torch::tensor(fresh)), 10);
    std::vector<int32_t> place(ground.unseen.size(), -1);
    for (size_t k = 0; k < fresh.size(); ++k) place[static_cast<size_t>(fresh[k])] = static_cast<int32_t>(k);
    IdLists fresh_truth;
    bool any = false;
    for (const auto& list : truth) {
      fresh_truth.emplace_back();
      for (const int32_t label : list)
        if (place[static_cast<size_t>(label)] >= 0) fresh_truth.back().push_back(place[static_cast<size_t>(label)]);
      any = any || !fresh_truth.back().empty();
    }
    if (any) metrics["zero_shot_r10"] = recall_at(among, fresh_truth, 10);
  }
  return metrics;
}

DexmlOptions options_of(const Extent& extent, const std::string& loss, uint64_t seed) {
  DexmlOptions options;
  options.loss = loss;
  if (loss == kHard) {
    options.hard = 4;
    options.refresh = 2;
  }
  if (loss == kHard || loss == kAll) options.loss = "decoupled";
  options.pool = loss == kAll ? 0 : extent.pool;
  options.epochs = extent.epochs;
  options.seed = seed;
  return options;
}

/// One weight vector a label instead of its text: a table that is trained by the same loop and losses.
struct LabelTableImpl : torch::nn::Module {
  LabelTableImpl(const torch::Tensor& start, int64_t hidden, uint64_t seed) {
    table = register_parameter("table", start.clone());
    tower = register_module("tower", MatchTower(start.size(1), hidden, seed));
  }
  torch::Tensor table;
  MatchTower tower{nullptr};
};
TORCH_MODULE(LabelTable);

Metrics arm(const Ground& ground, const std::string& name, const Extent& extent, uint64_t seed) {
  const std::string title = fmt::format("{}, seed {}", name, seed);
  std::vector<int64_t> all(static_cast<size_t>(ground.task.labels));
  std::iota(all.begin(), all.end(), int64_t{0});
  Metrics metrics;
  if (name == "minilm") {
    metrics = measure(ground, ground.queries.index_select(0, torch::tensor(ground.test)), ground.labels);
    metrics["parameters"] = 0;
    return metrics;
  }
  if (name == "label-table") {
    // The classifier with a vector for every label, started from the label's text.
    LabelTable table(ground.labels, 768, seed);
    DualEncoder encoder{{[&](const std::vector<int64_t>& rows) {
                          return table->tower->forward(ground.queries.index_select(0, torch::tensor(rows)));
                        }},
                        {[&](const std::vector<int64_t>& rows) {
                          const torch::Tensor some = table->table.index_select(0, torch::tensor(rows));
                          return some / some.norm(2, 1, true).clamp_min(1e-12);
                        }},
                        table.get()};
    train_dexml(ground.task, encoder, options_of(extent, "decoupled", seed), title);
    metrics = measure(ground, encode_all(encoder.queries, ground.test), encode_all(encoder.labels, all));
    metrics["parameters"] = static_cast<double>(parameter_count(*table));
    return metrics;
  }
  const DexmlOptions options = options_of(extent, name, seed);
  MatchTower tower(ground.queries.size(1), options.hidden, seed);
  DualEncoder encoder = tower_encoder(tower, ground.queries, ground.labels);
  train_dexml(ground.task, encoder, options, title);
  metrics = measure(ground, encode_all(encoder.queries, ground.test), encode_all(encoder.labels, all));
  metrics["parameters"] = static_cast<double>(parameter_count(*tower));
  return metrics;
}

void run(Bench& bench) {
  at::set_num_threads(bench.threads());
  bench.describe_metric("p1", "P@1");
  bench.describe_metric("p5", "P@5");
  bench.describe_metric("ndcg5", "nDCG@5");
  bench.describe_metric("psp5", "propensity-scored P@5");
  bench.describe_metric("r50", "R@50");
  bench.describe_metric("p5_no_hubs", "P@5 without the ten most frequent labels");
  bench.describe_metric("zero_shot_r10", "R@10 among labels never seen in training");
  bench.describe_metric("parameters", "trained parameters");
  bench.baseline("infonce");
  const Extent extent = extent_of(bench.size());
  const std::vector<DebianRecord> records = debian_records(bench.size() != RecipeSize::smoke);
  std::vector<std::string> arms = {"minilm", "infonce", "decoupled", "soft-topk"};
  if (extent.whole) arms.insert(arms.end(), {"one-vs-rest", "label-table", kHard, kAll});
  for (const uint64_t seed : bench.seeds(extent.seeds)) {
    std::optional<Ground> ground;
    for (const std::string& name : arms)
      bench.arm(name, seed, [&] {
        if (!ground) ground = ground_of(records, extent.limit, seed);
        return arm(*ground, name, extent, seed);
      });
  }
  claim_higher(bench, "the decoupled softmax has a higher P@5 than InfoNCE", "decoupled", "infonce", "p5");
  claim_higher(bench, "the decoupled softmax has a higher P@1 than InfoNCE", "decoupled", "infonce", "p1");
  claim_higher(bench, "the soft top-5 loss has the highest P@5 (against the decoupled softmax)", "soft-topk", "decoupled",
               "p5");
  claim_higher(bench, "without the ten most frequent labels the decoupled softmax has a higher P@5 than InfoNCE", "decoupled",
               "infonce", "p5_no_hubs");
  if (extent.whole) {
    claim_higher(bench, "the decoupled softmax has a higher P@5 than one-against-rest", "decoupled", "one-vs-rest", "p5");
    claim_higher(bench, "on labels never seen in training the dual encoder finds more than a table of label vectors",
                 "decoupled", "label-table", "zero_shot_r10");
    claim_higher(bench, "in a pool of the same size, hard negatives have a higher P@5 than random ones", kHard, "decoupled",
                 "p5");
    bench.claim("the dual encoder's size does not grow with the labels: fewer parameters than the table",
                1 - bench.mean("decoupled", "parameters") / bench.mean("label-table", "parameters"));
  }
  bench.note(
      "Descriptions of Debian packages without the words of their own names; labels are the packages they depend on or "
      "recommend, given by name and "
      "synopsis. A tower of two layers that queries and labels share stands on MiniLM's vectors; every arm trains it with the "
      "same pool of labels, steps and "
      "schedule, and keeps the epoch with the best P@5 on validation texts. Split by source package. label-table: a trained "
      "vector for every label, "
      "started from its text. hard negatives: four wrong labels of each text's 100 best, searched every two epochs, take the "
      "place of random ones; all labels: no pool. one-vs-rest trains a bias besides.");
  bench.setting("data", "deb-xml");
  bench.setting("samples_per_split", extent.limit);
  DexmlOptions options = options_of(extent, "decoupled", 0);
  bench.setting("dexml", to_json(describe(options)));
  bench.version("torch", TORCH_VERSION);
}

}  // namespace

Recipe dexml_recipe() {
  return {.id = "dexml",
          .claim =
              "A dual encoder trained with the decoupled softmax, in which a text's positives do not compete, ranks labels "
              "better than one trained with "
              "InfoNCE, and its size does not depend on the number of labels.",
          .run = run};
}

}  // namespace lighten
