// lighten distill --method vqgraph: the graph teaches, the perceptron answers without it.
#include <iostream>

#include "lighten/apps/lighten/distill.h"
#include "lighten/apps/lighten/task.h"
#include "lighten/apps/lighten/train.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/catalogue/apply.h"
#include "lighten/data/graph_files.h"
#include "lighten/eval/predictions.h"
#include "lighten/features/feature_rows.h"
#include "lighten/systems/distillation/vqgraph/vqgraph.h"

namespace lighten {
namespace {

struct VqGraphVerb {
  std::string edges, features, labels, apply;
  VqGraphOptions method;
};

int apply_student(const Common& common, const DistillOptions& shared, const VqGraphVerb& options) {
  if (options.features.empty()) throw OptionError("--apply needs --features: the rows whose classes are wanted");
  AtomicFolder output(shared.output, shared.force);
  FeatureNet net = load_feature_net(options.apply);
  const std::vector<std::string> classes = class_names_of(options.apply, "classes", net->config.outputs);
  const torch::Tensor x = rows_for(options.features, net->config.inputs);
  write_file(output.path() / "predictions.csv", predictions_csv(torch::softmax(predict(net, x), 1), classes));
  output.commit();
  if (common.for_people()) fmt::print("{}: predictions.csv, {} rows\n", shared.output, x.size(0));
  write_json(common, {{"rows", x.size(0)}, {"classes", classes}});
  return 0;
}

int distill_graph(const Common& common, const DistillOptions& shared, VqGraphVerb& options) {
  if (options.edges.empty() || options.labels.empty() || options.features.empty())
    throw OptionError("--method vqgraph needs --edges, --features and --labels");
  options.method.seed = common.seed;
  validate(describe(options.method));
  AtomicFolder output(shared.output, shared.force);
  GraphTask task;
  task.x = read_feature_rows(options.features, "node");
  const EdgeList edges = read_edges(options.edges, task.x.size(0));
  info(fmt::format("{} nodes, {} edges ({} self loops and {} repeated ones left out), {} nodes without a neighbour",
                   task.x.size(0), edges.neighbours.size() / 2, edges.self_loops, edges.repeats, edges.isolated));
  const NodeLabels labels = read_node_labels(options.labels, task.x.size(0));
  task.adjacency = make_sparse(task.x.size(0), edges.row_begin, edges.neighbours);
  task.labels = labels.labels;
  task.classes = std::ssize(labels.class_names);
  std::vector<int64_t> test;
  for (size_t i = 0; i < labels.labels.size(); ++i) {
    if (labels.labels[i] < 0) continue;
    (labels.splits[i] == Split::train        ? task.train
     : labels.splits[i] == Split::validation ? task.validation
                                             : test)
        .push_back(static_cast<int64_t>(i));
  }
  const TrainPlace place =
      work_place(shared.output, describe(options.method),
                 {{"--edges", options.edges}, {"--features", options.features}, {"--labels", options.labels}});
  VqGraphResult result = vqgraph(task, options.method, "vqgraph", place);
  const torch::Tensor student = predict(result.student.net, task.x);
  Json figures = {{"nodes", task.x.size(0)}, {"used_codes", result.teacher.used_codes}};
  Table table({"nodes", "count", "teacher (graph)", "student (features alone)"});
  for (const auto& [name, nodes] : {std::pair<std::string, const std::vector<int64_t>*>{"train", &task.train},
                                    {"validation", &task.validation},
                                    {"test", &test}}) {
    if (nodes->empty()) continue;
    const double teacher = accuracy_on(*nodes, argmax_of(result.teacher.logits), task.labels),
                 own = accuracy_on(*nodes, argmax_of(student), task.labels);
    figures["teacher_" + name] = teacher;
    figures["student_" + name] = own;
    table.row(
        {name, fmt::format("{}", nodes->size()), fmt::format("{:.1f} %", 100 * teacher), fmt::format("{:.1f} %", 100 * own)});
  }
  save_feature_net(result.student.net, output.path(),
                   {{"classes", labels.class_names}, {"figures", figures}, {"options", to_json(describe(options.method))}});
  write_file(output.path() / "predictions.csv", predictions_csv(torch::softmax(student, 1), labels.class_names));
  output.commit();
  remove_work(place);
  if (common.for_people()) fmt::print("{}\n{}: model.safetensors, predictions.csv\n", table.text(), shared.output);
  write_json(common, figures);
  return 0;
}

}  // namespace

void add_vqgraph(CLI::App& app, const std::shared_ptr<Common>& common, const std::shared_ptr<DistillOptions>& shared,
                 DistillMethods& methods) {
  auto options = std::make_shared<VqGraphVerb>();
  const std::string group = "vqgraph";
  app.add_option("--edges", options->edges, "TSV: two node numbers a line (undirected)")->type_name("FILE")->group(group);
  app.add_option("--features", options->features, feature_rows_help("nodes"))->type_name("FILE")->group(group);
  app.add_option("--labels", options->labels, "table id,label[,split]")->type_name("FILE")->group(group);
  app.add_option("--apply", options->apply, "a folder that was distilled before: classify --features with it")
      ->type_name("DIR")
      ->group(group);
  bind_options(app, describe(options->method), group);
  methods.emplace_back("vqgraph", [&app, options, shared, common] {
    return applies(app, {"features", "output", "force", "method"}) ? apply_student(*common, *shared, *options)
                                                                   : distill_graph(*common, *shared, *options);
  });
}

}  // namespace lighten
