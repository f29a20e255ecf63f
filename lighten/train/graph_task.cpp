#include "lighten/train/graph_task.h"

#include "lighten/base/error.h"
#include "lighten/train/loop.h"

namespace lighten {

void check_task(const GraphTask& task) {
  const int64_t n = task.x.size(0);
  if (task.adjacency->rows != n || task.adjacency->columns != n || std::ssize(task.labels) != n)
    throw_error<OptionError>("{} rows of features, {} nodes in the graph, {} labels: they must be as many", n,
                             task.adjacency->rows, task.labels.size());
  if (task.classes < 2) throw OptionError("labels of at least two classes are needed");
  if (task.train.empty()) throw OptionError("no node has a label for training");
  for (const auto* nodes : {&task.train, &task.validation})
    for (const int64_t node : *nodes)
      if (node < 0 || node >= n || task.labels[static_cast<size_t>(node)] < 0 ||
          task.labels[static_cast<size_t>(node)] >= task.classes)
        throw_error<OptionError>("node {} has no label between 0 and {}", node, task.classes - 1);
}

std::vector<int32_t> argmax_of(const torch::Tensor& scores) {
  const torch::Tensor best = scores.argmax(1).to(torch::kInt).contiguous();
  return {best.data_ptr<int32_t>(), best.data_ptr<int32_t>() + best.numel()};
}

double accuracy_on(const std::vector<int64_t>& nodes, const std::vector<int32_t>& predictions,
                   const std::vector<int32_t>& labels) {
  int64_t right = 0;
  for (const int64_t node : nodes) right += predictions[static_cast<size_t>(node)] == labels[static_cast<size_t>(node)];
  return nodes.empty() ? 0 : static_cast<double>(right) / static_cast<double>(nodes.size());
}

torch::Tensor training_targets(const GraphTask& task) {
  std::vector<int64_t> targets;
  for (const int64_t node : task.train) targets.push_back(task.labels[static_cast<size_t>(node)]);
  return torch::tensor(targets);
}

GraphNet make_graph_net(const GraphTask& task, const std::string& kind, const GraphTrainOptions& options, uint64_t seed) {
  return GraphNet(GraphNetConfig{.kind = kind,
                                 .inputs = task.x.size(1),
                                 .hidden = options.hidden,
                                 .outputs = task.classes,
                                 .heads = options.heads,
                                 .dropout = options.dropout},
                  seed);
}

TrainOptions full_batch(const GraphTrainOptions& options) {
  return {.epochs = options.epochs,
          .batch_size = 1,
          .optimizer = "adam",
          .learning_rate = options.learning_rate,
          .weight_decay = options.weight_decay,
          .schedule = "constant",
          .patience = options.patience,
          .seed = options.seed};
}

GraphNet fit_graph_net(const GraphTask& task, const std::string& kind, const GraphTrainOptions& options,
                       const std::string& title, const TrainPlace& place) {
  check_task(task);
  GraphNet net = make_graph_net(task, kind, options, options.seed);
  const Sparse a = net->prepare(task.adjacency);
  const torch::Tensor nodes = torch::tensor(task.train), targets = training_targets(task);
  TrainTask training;
  training.title = title;
  training.modules = {{.name = "net", .module = net.get()}};
  training.samples = {0};
  training.loss = [&](const TrainStep&) {
    return torch::nn::functional::cross_entropy(net->forward(a, task.x).index_select(0, nodes), targets);
  };
  if (!task.validation.empty())
    training.validate = [&] { return accuracy_on(task.validation, argmax_of(net->forward(a, task.x)), task.labels); };
  train(training, full_batch(options), place);
  return net;
}

torch::Tensor train_graph_net(const GraphTask& task, const std::string& kind, const GraphTrainOptions& options,
                              const std::string& title, const TrainPlace& place) {
  GraphNet net = fit_graph_net(task, kind, options, title, place);
  const torch::NoGradGuard no_grad;
  return torch::softmax(net->forward(net->prepare(task.adjacency), task.x), 1);
}

}  // namespace lighten
