// The reproduction: sections of Debian packages from their descriptions; the teachers see the dependency graph, the students do
// not.
#include "lighten/systems/distillation/vqgraph/recipe.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/data/deb_sets.h"
#include "lighten/evidence/seeds.h"
#include "lighten/features/text_features.h"
#include "lighten/systems/distillation/vqgraph/vqgraph.h"

namespace lighten {
namespace {

using Metrics = std::map<std::string, double>;

struct Extent {
  int64_t nodes, labelled, codes, teacher_epochs, epochs;
  std::vector<double> code_weights;  ///< tried on validation data
  int seeds;
};

Extent extent_of(RecipeSize size) {
  switch (size) {
    case RecipeSize::smoke:
      return {60, 5, 32, 3, 3, {0.3}, 1};
    case RecipeSize::standard:
      return {700, 20, 256, 60, 40, {0.1, 1.0}, 3};
    case RecipeSize::full:
      break;
  }
  return {1500, 20, 1024, 200, 100, {0.1, 1.0}, 3};
}

/// The graph with a fifth of its test nodes cut out: what is learned without them must hold for them (inductive).
struct Ground {
  GraphTask task;                     ///< of the observed nodes
  std::vector<int64_t> seen, unseen;  ///< test nodes: observed (numbers of `task`), and left out (numbers of `x`)
  std::vector<int32_t> labels;        ///< of `x`
  torch::Tensor x;                    ///< of all nodes
  Sparse adjacency;                   ///< of all nodes
  std::vector<int64_t> observed;      ///< numbers of `x`
};

Ground ground_of(const std::vector<DebianRecord>& records, const Extent& extent, uint64_t seed) {
  const GraphSet graph = deb_section_graph(records, topical_sections(), {.limit = extent.nodes, .split_seed = seed});
  const Features features = minilm_features(graph.nodes.texts, "deb-graph");
  Ground ground;
  ground.x = torch::tensor(features.values).view({features.rows, features.columns});
  ground.labels = graph.nodes.labels;
  ground.adjacency = make_sparse(graph.nodes.size(), graph.row_begin, graph.neighbours);
  std::vector<int64_t> test;
  for (int64_t i = 0; i < graph.nodes.size(); ++i) {
    const auto at = static_cast<size_t>(i);
    const bool left_out = graph.nodes.splits[at] == Split::test &&
                          split_of(graph.nodes.keys[at], {.validation = 0, .test = 0.2}, seed + 50) == Split::test;
    (left_out ? ground.unseen : ground.observed).push_back(i);
  }
  const GraphSet part = subgraph(graph, ground.observed);
  ground.task = {make_sparse(part.nodes.size(), part.row_begin, part.neighbours),
                 ground.x.index_select(0, torch::tensor(ground.observed)),
                 part.nodes.labels,
                 std::ssize(topical_sections()),
                 {},
                 samples_of(part.nodes.splits, Split::validation)};
  ground.seen = samples_of(part.nodes.splits, Split::test);
  std::vector<int64_t> train = samples_of(part.nodes.splits, Split::train), count(topical_sections().size());
  Random random(seed + 23);
  random.shuffle(train);
  for (const int64_t node : train)
    if (count[static_cast<size_t>(part.nodes.labels[static_cast<size_t>(node)])]++ < extent.labelled)
      ground.task.train.push_back(node);
  return ground;
}

VqGraphOptions options_of(const Extent& extent, uint64_t seed) {
  VqGraphOptions options;
  options.codes = extent.codes;
  options.teacher_epochs = extent.teacher_epochs;
  options.epochs = extent.epochs;
  options.patience = 50;
  options.seed = seed;
  return options;
}

void measure_student(Metrics& metrics, const Ground& ground, FeatureNet net) {
  metrics["accuracy"] = accuracy_on(ground.seen, argmax_of(predict(net, ground.task.x)), ground.task.labels);
  metrics["unseen"] = accuracy_on(ground.unseen, argmax_of(predict(net, ground.x)), ground.labels);
}

double milliseconds(const std::function<void()>& work) {
  work();
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    times.push_back(1000 * std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  return times[2];
}

/// The nets of one seed; each is trained at most once.
class Laboratory {
 public:
  Laboratory(const std::vector<DebianRecord>& records, const Extent& extent, uint64_t seed)
      : ground_(ground_of(records, extent, seed)), extent_(extent), options_(options_of(extent, seed)) {}

  Metrics measure(const std::string& arm) {
    Metrics metrics;
    const std::string title = fmt::format("{}, seed {}", arm, options_.seed);
    if (arm == "mlp") {
      measure_student(metrics, ground_, best_student({}, {}, {}, title).net);
    } else if (arm == "gcn") {
      GraphNet& net = gcn();
      const torch::NoGradGuard no_grad;
      const Sparse all = net->prepare(ground_.adjacency);
      metrics["accuracy"] = accuracy_on(
          ground_.seen, argmax_of(net->forward(net->prepare(ground_.task.adjacency), ground_.task.x)), ground_.task.labels);
      metrics["unseen"] =
          accuracy_on(ground_.unseen, argmax_of(net->forward(all, ground_.x)), ground_.labels);  // told their edges
      metrics["ms_100_nodes"] =
          milliseconds([&] { net->forward(all, ground_.x); });  // one node's answer needs its neighbourhood
    } else if (arm == "glnn") {
      torch::Tensor logits;
      {
        GraphNet& net = gcn();
        const torch::NoGradGuard no_grad;
        logits = net->forward(net->prepare(ground_.task.adjacency), ground_.task.x);
      }
      measure_student(metrics, ground_, best_student(logits, {}, {}, title).net);
    } else if (arm == "vqgraph-teacher") {
      metrics["accuracy"] = accuracy_on(ground_.seen, argmax_of(teacher().logits), ground_.task.labels);
      metrics["used_codes"] = teacher().used_codes;
    } else if (arm == "vqgraph-without-codes") {
      measure_student(metrics, ground_, best_student(teacher().logits, {}, {}, title).net);
    } else {
      DistilledStudent best = best_student(teacher().logits, teacher().assignments, teacher().codes, title);
      measure_student(metrics, ground_, best.net);
      metrics["code_weight"] = code_weight_;
      const torch::Tensor some = ground_.x.slice(0, 0, 100);
      metrics["ms_100_nodes"] = milliseconds([&] { predict(best.net, some); });
    }
    return metrics;
  }

 private:
  /// Every student gets the same search on validation data: two dropouts, and with codes their weights.
  DistilledStudent best_student(const torch::Tensor& logits, const torch::Tensor& assignments, const torch::Tensor& codes,
                                const std::string& title) {
    DistilledStudent best;
    best.validation_accuracy = -1;
    for (const double dropout : {0.2, 0.5})
      for (const double weight : assignments.defined() ? extent_.code_weights : std::vector<double>{0}) {
        VqGraphOptions options = options_;
        options.dropout = dropout;
        options.code_weight = weight;
        DistilledStudent student = train_student(ground_.task, logits, assignments, codes, options, title);
        if (student.validation_accuracy <= best.validation_accuracy) continue;
        best = student;
        code_weight_ = weight;
      }
    return best;
  }
  GraphNet& gcn() {
    double best = -1;
    for (const double rate : gcn_ ? std::vector<double>{} : std::vector<double>{3e-3, 1e-2}) {
      GraphNet net = fit_graph_net(
          ground_.task, "gcn",
          {.hidden = 128, .epochs = extent_.teacher_epochs, .patience = 50, .learning_rate = rate, .seed = options_.seed},
          fmt::format("gcn, rate {}, seed {}", rate, options_.seed));
      const torch::NoGradGuard no_grad;
      const double accuracy =
          accuracy_on(ground_.task.validation, argmax_of(net->forward(net->prepare(ground_.task.adjacency), ground_.task.x)),
                      ground_.task.labels);
      if (accuracy > best) gcn_ = net;
      best = std::max(best, accuracy);
    }
    return *gcn_;
  }
  /// The better of two dropouts and rates on the validation nodes; the GCN chooses its rate likewise.
  const VqTeacherResult& teacher() {
    if (teacher_) return *teacher_;
    for (const auto& [dropout, rate] : {std::pair(0.5, 0.01), {0.2, 0.003}}) {
      VqGraphOptions options = options_;
      options.teacher_dropout = dropout;
      options.teacher_rate = rate;
      VqTeacherResult found =
          train_vq_teacher(ground_.task, options, fmt::format("vqgraph, rate {}, seed {}", rate, options_.seed));
      if (!teacher_ || found.validation_accuracy > teacher_->validation_accuracy) teacher_ = std::move(found);
    }
    return *teacher_;
  }
  Ground ground_;
  Extent extent_;
  VqGraphOptions options_;
  std::optional<GraphNet> gcn_;
  std::optional<VqTeacherResult> teacher_;
  double code_weight_ = 0;
};

void run(Bench& bench) {
  at::set_num_threads(bench.threads());
  bench.describe_metric("accuracy", "accuracy, test nodes in the graph");
  bench.describe_metric("unseen", "accuracy, nodes left out of training");
  bench.describe_metric("code_weight", "weight of the codes, chosen on validation nodes");
  bench.describe_metric("used_codes", "codes in use");
  bench.describe_metric("ms_100_nodes", "time to classify 100 new nodes", "ms");
  bench.baseline("mlp");
  const Extent extent = extent_of(bench.size());
  const std::vector<DebianRecord> records = debian_records(bench.size() != RecipeSize::smoke);
  const std::vector<std::string> arms = {"mlp", "glnn", "vqgraph-without-codes", "vqgraph", "gcn", "vqgraph-teacher"};
  for (const uint64_t seed : bench.seeds(extent.seeds)) {
    std::optional<Laboratory> laboratory;
    for (const std::string& arm : arms)
      bench.arm(arm, seed, [&] {
        if (!laboratory) laboratory.emplace(records, extent, seed);
        return laboratory->measure(arm);
      });
  }
  claim_higher(bench, "VQGraph's student is more accurate than the plain perceptron", "vqgraph", "mlp", "accuracy");
  claim_higher(bench, "and than one distilled from a GCN's class labels alone (GLNN)", "vqgraph", "glnn", "accuracy");
  claim_higher(bench, "the codes help: with them the student is more accurate than without", "vqgraph", "vqgraph-without-codes",
               "accuracy");
  claim_higher(bench, "on nodes that were left out it is more accurate than GLNN", "vqgraph", "glnn", "unseen");
  claim_higher(bench, "VQGraph's student is more accurate than the GCN, which sees the graph", "vqgraph", "gcn", "accuracy");
  bench.claim("100 new nodes are classified faster than by the GCN (relative to its time)",
              1 - bench.mean("vqgraph", "ms_100_nodes") / bench.mean("gcn", "ms_100_nodes"));
  bench.note(fmt::format(
      "{} topical sections of Debian, {} labelled nodes a class, MiniLM features, hubs of more than 500 neighbours without "
      "edges; split by source "
      "package. All students are perceptrons of 128 hidden units with the same search (dropout 0.2 or 0.5; the weight of the "
      "codes) on "
      "validation nodes. A fifth of the test nodes is left out of the graph; the GCN is told their edges afterwards, the "
      "students need none. "
      "The GCN's time is that of its pass over the graph, which an answer needs when nothing is cached: {:.1f} times the "
      "perceptron's.",
      topical_sections().size(), extent.labelled, bench.mean("gcn", "ms_100_nodes") / bench.mean("vqgraph", "ms_100_nodes")));
  bench.setting("data", "deb-graph");
  bench.setting("nodes_per_split", extent.nodes);
  VqGraphOptions options = options_of(extent, 0);
  bench.setting("vqgraph", to_json(describe(options)));
  bench.version("torch", TORCH_VERSION);
}

}  // namespace

Recipe vqgraph_recipe() {
  return {.id = "vqgraph",
          .claim =
              "A perceptron that learns from a graph network's soft assignments to a codebook of local structures beats one "
              "that learns from its "
              "class labels, and needs no graph.",
          .run = run};
}

}  // namespace lighten
