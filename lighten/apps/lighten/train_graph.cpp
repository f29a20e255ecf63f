// lighten train graph: node classification on a user's own graph.
#include <iostream>

#include "lighten/apps/lighten/train.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/data/graph_files.h"
#include "lighten/eval/predictions.h"
#include "lighten/features/feature_rows.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/npy.h"
#include "lighten/systems/labels/erase/baselines.h"

namespace lighten {
namespace {

struct GraphOptions {
  std::string method = "erase", edges, features, labels, output;
  bool force = false;
  EraseOptions erase;
  double forget = 0.3;
  GraphTrainOptions baseline;
};

struct LoadedGraph {
  GraphTask task;
  NodeLabels labels;
  std::vector<int64_t> test;
};

LoadedGraph load(const GraphOptions& options) {
  LoadedGraph graph;
  graph.task.x = read_feature_rows(options.features, "node");
  const int64_t nodes = graph.task.x.size(0);
  const EdgeList edges = read_edges(options.edges, nodes);
  info(fmt::format("{} nodes, {} edges ({} self loops and {} repeated ones left out), {} nodes without a neighbour", nodes,
                   edges.neighbours.size() / 2, edges.self_loops, edges.repeats, edges.isolated));
  graph.labels = read_node_labels(options.labels, nodes);
  graph.task.adjacency = make_sparse(nodes, edges.row_begin, edges.neighbours);
  graph.task.labels = graph.labels.labels;
  graph.task.classes = std::ssize(graph.labels.class_names);
  for (int64_t i = 0; i < nodes; ++i) {
    if (graph.labels.labels[static_cast<size_t>(i)] < 0) continue;
    const Split split = graph.labels.splits[static_cast<size_t>(i)];
    (split == Split::train ? graph.task.train : split == Split::validation ? graph.task.validation : graph.test).push_back(i);
  }
  return graph;
}

/// The flags that are given serve the baselines too; one that means nothing to a baseline is refused.
void take_baseline(const CLI::App& app, GraphOptions& options) {
  if (options.method == "erase") return;
  const bool trained = options.method != "label-propagation";
  const auto given = [&](const std::string& name) { return app.count("--" + name) > 0; };
  for (const Option& option : describe(options.erase)) {
    const std::string& name = option.name;
    if (!given(name)) continue;
    const EraseOptions& from = options.erase;
    GraphTrainOptions& to = options.baseline;
    if (trained && name == "hidden")
      to.hidden = from.hidden;
    else if (options.method == "gat" && name == "heads")
      to.heads = from.heads;
    else if (trained && name == "dropout")
      to.dropout = from.dropout;
    else if (trained && name == "learning-rate")
      to.learning_rate = from.learning_rate;
    else if (trained && name == "weight-decay")
      to.weight_decay = from.weight_decay;
    else if (trained && name == "epochs")
      to.epochs = from.epochs;
    else if (trained && name == "patience")
      to.patience = from.patience;
    else
      throw_error<OptionError>("--{} means nothing to --method {}; leave it out", name, options.method);
  }
}

void write_results(const fs::path& folder, const LoadedGraph& graph, const torch::Tensor& probabilities,
                   const EraseResult* result) {
  const auto& names = graph.labels.class_names;
  const std::vector<int32_t> best = argmax_of(probabilities);
  std::string suspects = "id,score,given,suggested\n";
  write_file(folder / "predictions.csv", predictions_csv(probabilities, names));
  if (!result) return;
  for (const int64_t node : graph.task.train) {
    const auto i = static_cast<size_t>(node);
    if (best[i] == graph.task.labels[i]) continue;
    suspects += fmt::format("{},{:.6f},{},{}\n", node, 1 - probabilities[node][graph.task.labels[i]].item<double>(),
                            csv_field(names[static_cast<size_t>(graph.task.labels[i])]),
                            csv_field(names[static_cast<size_t>(best[i])]));
  }
  write_file(folder / "suspects.csv", suspects);
  const torch::Tensor z = result->embeddings.contiguous();
  write_npy(folder / "embeddings.npy", {z.size(0), z.size(1)},
            std::vector<float>(z.data_ptr<float>(), z.data_ptr<float>() + z.numel()));
}

int train_graph(const Common& common, GraphOptions& options) {
  options.erase.seed = options.baseline.seed = common.seed;
  validate(describe(options.erase));
  AtomicFolder output(options.output, options.force);
  LoadedGraph graph = load(options);
  TrainPlace place = work_place(options.output, describe(options.erase),
                                {{"--edges", options.edges}, {"--features", options.features}, {"--labels", options.labels}});
  place.identity["method"] = options.method;
  std::optional<EraseResult> result;
  torch::Tensor probabilities;
  if (options.method == "erase") {
    result = erase(graph.task, options.erase, options.method, place);
    probabilities = result->probabilities;
  } else if (options.method == "label-propagation") {
    probabilities = label_propagation(graph.task);
  } else if (options.method == "coteaching-gcn") {
    probabilities = train_coteaching(graph.task, options.baseline, options.forget, options.method, place);
  } else {
    probabilities = train_graph_net(graph.task, options.method, options.baseline, options.method, place);
  }
  write_results(output.path(), graph, probabilities, result ? &*result : nullptr);
  const std::vector<int32_t> best = argmax_of(probabilities);
  Json figures = {{"method", options.method},
                  {"nodes", best.size()},
                  {"classes", graph.labels.class_names},
                  {"training_nodes", graph.task.train.size()}};
  Table table({"nodes", "count", "accuracy against given labels"});
  for (const auto& [name, nodes] : {std::pair<std::string, const std::vector<int64_t>*>{"train", &graph.task.train},
                                    {"validation", &graph.task.validation},
                                    {"test", &graph.test}}) {
    if (nodes->empty()) continue;
    const double accuracy = accuracy_on(*nodes, best, graph.task.labels);
    figures["accuracy_" + name] = accuracy;
    table.row({name, fmt::format("{}", nodes->size()), fmt::format("{:.1f} %", 100 * accuracy)});
  }
  const GraphTrainOptions& own = options.baseline;
  const Json used = result ? to_json(describe(options.erase))
                           : Json{{"hidden", own.hidden},
                                  {"heads", own.heads},
                                  {"dropout", own.dropout},
                                  {"learning-rate", own.learning_rate},
                                  {"weight-decay", own.weight_decay},
                                  {"epochs", own.epochs},
                                  {"patience", own.patience}};
  write_file(output.path() / "training.json", json_text({{"figures", figures}, {"options", used}}, 1) + "\n");
  output.commit();
  remove_work(place);
  if (common.for_people())
    fmt::print("{}\n{}: predictions.csv{}\n", table.text(), options.output, result ? ", suspects.csv, embeddings.npy" : "");
  write_json(common, figures);
  return 0;
}

}  // namespace

void add_train_graph(CLI::App& train, const std::shared_ptr<Common>& common, VerbActions& actions) {
  CLI::App* app = train.add_subcommand("graph", "classifies the nodes of a graph from labels that may be wrong");
  app->fallthrough();
  auto options = std::make_shared<GraphOptions>();
  app->add_option("--method", options->method, "default erase; baselines: gcn, gat, label-propagation, coteaching-gcn")
      ->check(CLI::IsMember({"erase", "gcn", "gat", "label-propagation", "coteaching-gcn"}));
  app->add_option("--edges", options->edges, "TSV: two node numbers a line (undirected)")->required()->type_name("FILE");
  app->add_option("--features", options->features, feature_rows_help("nodes"))->required()->type_name("FILE");
  app->add_option("--labels", options->labels,
                  "table id,label[,split]; id: row of the features; split: train, validation or test")
      ->required()
      ->type_name("FILE");
  app->add_option("-o,--output", options->output, "folder for predictions, suspects and embeddings")
      ->required()
      ->type_name("DIR");
  app->add_flag("--force", options->force, "replace an existing folder");
  bind_options(*app, describe(options->erase), "ERASE");
  actions.emplace_back(app, [app, options, common] {
    take_baseline(*app, *options);
    return train_graph(*common, *options);
  });
}

}  // namespace lighten
