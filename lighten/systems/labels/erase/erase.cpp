#include "lighten/systems/labels/erase/erase.h"

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/train/loop.h"

namespace lighten {
namespace {

torch::Tensor unit_l1(const torch::Tensor& x) { return x / x.abs().sum(1, /*keepdim=*/true).clamp_min(1e-12); }
torch::Tensor unit_l2(const torch::Tensor& x) { return x / x.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12); }

torch::Tensor embed_nodes(GraphNet& net, const Sparse& a, const torch::Tensor& x) {
  const torch::Tensor h = unit_l1(net->layer(a, x, 0));
  return torch::relu(unit_l1(net->layer(a, h, 1)));
}

torch::Tensor one_hot(const GraphTask& task, torch::Dtype dtype = torch::kFloat) {
  torch::Tensor y = torch::zeros({task.x.size(0), task.classes}, dtype);
  for (const int64_t node : task.train) y[node][task.labels[static_cast<size_t>(node)]] = 1;
  return y;
}

/// Mean embedding of the training nodes of each class [classes, d]; 0 for a class that nobody has.
torch::Tensor prototypes_of(const GraphTask& task, const torch::Tensor& y, const torch::Tensor& z) {
  const torch::Tensor nodes = torch::tensor(task.train), labels = y.index_select(0, nodes).argmax(1);
  const torch::Tensor sums = torch::zeros({task.classes, z.size(1)}).index_add(0, labels, z.index_select(0, nodes));
  const torch::Tensor counts = torch::bincount(labels, {}, task.classes).clamp_min(1).unsqueeze(1);
  return sums / counts;
}

}  // namespace

OptionList describe(EraseOptions& options) {
  return {
      option("hidden", options.hidden, range(1, 4096), "width of the first GAT layer", "paper, appendix"),
      option("heads", options.heads, range(1, 64), "its heads; must divide the width", "paper, appendix"),
      option("embedding", options.embedding, range(2, 4096), "width of the embeddings",
             "512 in the paper; smaller graphs here"),
      option("dropout", options.dropout, range(0, 0.95), "before each layer", "paper, appendix"),
      option("alpha", options.alpha, range(0, 1), "how much of its own label a node keeps in a propagation step",
             "paper, Cora"),
      option("beta", options.beta, range(0, 1), "weight of propagated labels against prototypes", "paper, Cora"),
      option("gamma1", options.gamma1, above(0), "weight of pulling classes together", "paper"),
      option("gamma2", options.gamma2, above(0), "weight of spreading all nodes", "paper, Cora"),
      option("epsilon", options.epsilon, above(0), "precision of the coding rate", "paper, Cora"),
      option("steps", options.steps, range(0, 200), "propagation steps", "paper, Cora"),
      Option("denoise", options.denoise, "propagate the given labels before training", "paper, step 1"),
      Option("prototypes", options.prototypes, "take prototypes into the labels while training", "paper, step 3"),
      option("learning-rate", options.learning_rate, above(0), "of Adam", "paper"),
      option("weight-decay", options.weight_decay, range(0, 1), "of Adam", "paper"),
      option("epochs", options.epochs, range(1, 100000), "at most", "paper"),
      option("patience", options.patience, range(0, 100000), "epochs without a better validation score; 0: never stop",
             "paper"),
  };
}

torch::Tensor coding_rate(const torch::Tensor& z, double scale) {
  const torch::Tensor wide = z.to(torch::kDouble);
  const torch::Tensor gram = z.size(0) < z.size(1) ? torch::mm(wide, wide.t()) : torch::mm(wide.t(), wide);
  const torch::Tensor matrix = torch::eye(gram.size(0), torch::kDouble) + scale * gram;
  return torch::linalg_cholesky(matrix).diagonal().log().sum();  // half of logdet
}

torch::Tensor coding_rate_loss(const torch::Tensor& z, const torch::Tensor& labels, int64_t classes,
                               const EraseOptions& options) {
  const auto n = static_cast<double>(z.size(0)), d = static_cast<double>(z.size(1));
  torch::Tensor loss = -options.gamma2 * coding_rate(z, options.gamma1 * d / (n * options.epsilon));
  for (int64_t j = 0; j < classes; ++j) {
    const torch::Tensor members = torch::nonzero(labels == j).squeeze(1);
    const auto count = static_cast<double>(members.size(0));
    if (count == 0) continue;
    loss = loss + options.gamma1 * count / n * coding_rate(z.index_select(0, members), d / (count * options.epsilon));
  }
  return loss;
}

torch::Tensor denoised_labels(const GraphTask& task, const EraseOptions& options) {
  const torch::Tensor y = one_hot(task);
  if (!options.denoise) return y;
  std::vector<bool> training(static_cast<size_t>(task.x.size(0)), false);
  for (const int64_t node : task.train) training[static_cast<size_t>(node)] = true;
  return propagate(normalised(restricted(task.adjacency, training), Normalisation::column, false), y, options.alpha,
                   options.steps);
}

torch::Tensor prototype_labels(const GraphTask& task, const Sparse& a, const torch::Tensor& y, const torch::Tensor& z,
                               const EraseOptions& options) {
  const torch::NoGradGuard no_grad;
  torch::Tensor mixed = options.beta * y;
  if (options.prototypes) {
    const torch::Tensor cosine = torch::mm(unit_l2(z), unit_l2(prototypes_of(task, y, z)).t());
    mixed = mixed + (1 - options.beta) * cosine.abs();
  }
  return propagate(a, torch::softmax(mixed, 1), options.alpha, options.steps);
}

torch::Tensor logistic_readout(const torch::Tensor& z, const std::vector<int64_t>& nodes, const std::vector<int32_t>& labels,
                               int64_t classes) {
  const torch::Tensor unit = unit_l2(z.detach()), x = unit.index_select(0, torch::tensor(nodes));
  std::vector<int64_t> targets;
  for (const int64_t node : nodes) targets.push_back(labels[static_cast<size_t>(node)]);
  const torch::Tensor y = torch::tensor(targets);
  torch::Tensor weight = torch::zeros({classes, z.size(1)}).requires_grad_(true),
                bias = torch::zeros({classes}).requires_grad_(true);
  torch::optim::LBFGS optimizer({weight, bias}, torch::optim::LBFGSOptions(1).max_iter(200).line_search_fn("strong_wolfe"));
  const double decay = 1 / static_cast<double>(nodes.size());  // scikit-learn's C = 1
  optimizer.step([&] {
    optimizer.zero_grad();
    const torch::Tensor loss =
        torch::nn::functional::cross_entropy(torch::linear(x, weight, bias), y) + decay / 2 * weight.square().sum();
    loss.backward();
    return loss;
  });
  const torch::NoGradGuard no_grad;
  return torch::softmax(torch::linear(unit, weight, bias), 1);
}

EraseResult erase(const GraphTask& task, const EraseOptions& options, const std::string& title, const TrainPlace& place) {
  check_task(task);
  validate(describe(const_cast<EraseOptions&>(options)));
  GraphNet net(GraphNetConfig{.kind = "gat",
                              .inputs = task.x.size(1),
                              .hidden = options.hidden,
                              .outputs = options.embedding,
                              .heads = options.heads,
                              .dropout = options.dropout},
               options.seed);
  const Sparse loops = net->prepare(task.adjacency), spread = normalised(task.adjacency, Normalisation::column, false);
  const torch::Tensor y = denoised_labels(task, options);
  TrainTask training;
  training.title = title;
  training.modules = {{.name = "encoder", .module = net.get()}};
  training.samples = {0};  // one step an epoch, on the whole graph
  training.loss = [&](const TrainStep&) {
    const torch::Tensor z = embed_nodes(net, loops, task.x);
    const torch::Tensor labels = prototype_labels(task, spread, y, z.detach(), options).argmax(1);
    return coding_rate_loss(z, labels, task.classes, options).to(torch::kFloat);
  };
  if (!task.validation.empty())
    training.validate = [&] {
      torch::Tensor z;
      std::vector<int32_t> labels;
      {
        const torch::NoGradGuard no_grad;
        z = embed_nodes(net, loops, task.x);
        labels = argmax_of(prototype_labels(task, spread, y, z, options));
      }
      const torch::AutoGradMode grad(true);  // the readout is fitted
      return accuracy_on(task.validation, argmax_of(logistic_readout(z, task.train, labels, task.classes)), task.labels);
    };
  const TrainResult trained = train(training,
                                    full_batch({.epochs = options.epochs,
                                                .patience = options.patience,
                                                .learning_rate = options.learning_rate,
                                                .weight_decay = options.weight_decay,
                                                .seed = options.seed}),
                                    place);
  EraseResult result;
  {
    const torch::NoGradGuard no_grad;
    result.embeddings = embed_nodes(net, loops, task.x);
    result.denoised = argmax_of(prototype_labels(task, spread, y, result.embeddings, options));
  }
  result.probabilities = logistic_readout(result.embeddings, task.train, result.denoised, task.classes);
  result.best_epoch = trained.best_epoch;
  result.validation_accuracy = accuracy_on(task.validation, argmax_of(result.probabilities), task.labels);
  return result;
}

}  // namespace lighten
