#include "lighten/systems/labels/erase/baselines.h"

#include "lighten/train/loop.h"

namespace lighten {

torch::Tensor train_coteaching(const GraphTask& task, const GraphTrainOptions& options, double forget, const std::string& title,
                               const TrainPlace& place) {
  check_task(task);
  GraphNet first = make_graph_net(task, "gcn", options, options.seed),
           second = make_graph_net(task, "gcn", options, options.seed + 7919);
  const Sparse a = first->prepare(task.adjacency);
  const torch::Tensor nodes = torch::tensor(task.train), targets = training_targets(task);
  const auto losses_of = [&](GraphNet& net) {
    return torch::nn::functional::cross_entropy(net->forward(a, task.x).index_select(0, nodes), targets,
                                                torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kNone));
  };
  const auto mean = [&] {
    return torch::softmax(first->forward(a, task.x), 1) + torch::softmax(second->forward(a, task.x), 1);
  };
  TrainTask training;
  training.title = title;
  training.modules = {{.name = "first", .module = first.get()}, {.name = "second", .module = second.get()}};
  training.samples = {0};
  training.loss = [&](const TrainStep& step) {
    // What is forgotten rises to its final share within a tenth of the epochs.
    const double share = forget * std::min(1.0, static_cast<double>(step.epoch) / (0.1 * static_cast<double>(options.epochs)));
    const auto kept = std::max<int64_t>(1, static_cast<int64_t>((1 - share) * static_cast<double>(task.train.size())));
    const torch::Tensor one = losses_of(first), two = losses_of(second);
    const auto small = [&](const torch::Tensor& losses) {
      return std::get<1>(losses.detach().topk(kept, 0, /*largest=*/false));
    };
    return one.index_select(0, small(two)).mean() + two.index_select(0, small(one)).mean();
  };
  if (!task.validation.empty())
    training.validate = [&] { return accuracy_on(task.validation, argmax_of(mean()), task.labels); };
  train(training, full_batch(options), place);
  const torch::NoGradGuard no_grad;
  return mean() / 2;
}

torch::Tensor label_propagation(const GraphTask& task) {
  check_task(task);
  const Sparse a = normalised(task.adjacency, Normalisation::symmetric, true);
  torch::Tensor start = torch::zeros({task.x.size(0), task.classes}), best;
  for (const int64_t node : task.train) start[node][task.labels[static_cast<size_t>(node)]] = 1;
  double best_score = -1;
  for (const double alpha : {0.02, 0.05, 0.1, 0.2, 0.5}) {
    torch::Tensor y = start;
    for (int step = 0; step < 50; ++step) y = (1 - alpha) * spmm(a, y) + alpha * start;
    const double score = accuracy_on(task.validation, argmax_of(y), task.labels);
    if (score <= best_score) continue;
    best_score = score;
    best = y;
  }
  return best / best.sum(1, true).clamp_min(1e-12);
}

}  // namespace lighten
