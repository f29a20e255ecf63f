#include "lighten/systems/labels/llp_bp/llp_bp.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lighten/base/error.h"
#include "lighten/eval/classification.h"
#include "lighten/nn/knn.h"
#include "lighten/nn/product.h"
#include "lighten/train/loop.h"

namespace lighten {
namespace {

constexpr int64_t kHidden = 320, kEmbedding = 128, kBagHidden = 64;

torch::Tensor bce(const torch::Tensor& logits, const torch::Tensor& targets) {
  return torch::binary_cross_entropy_with_logits(logits, targets);
}

/// -p ln q - (1 - p) ln(1 - q)
torch::Tensor proportion_loss(const torch::Tensor& predicted, const torch::Tensor& proportion) {
  const torch::Tensor q = predicted.clamp(1e-6, 1 - 1e-6);
  return -(proportion * q.log() + (1 - proportion) * (1 - q).log());
}

std::vector<int64_t> training_bags(const BagTask& task) {
  std::vector<bool> aside(task.bags.size(), false);
  for (const int64_t bag : task.validation) aside[static_cast<size_t>(bag)] = true;
  std::vector<int64_t> bags;
  for (size_t b = 0; b < task.bags.size(); ++b)
    if (!aside[b]) bags.push_back(static_cast<int64_t>(b));
  return bags;
}

/// Several bags as one batch: their rows, the bag of each row (0, 1, ... in the batch) and their proportions.
struct BagBatch {
  torch::Tensor rows, bag, sizes, proportions;
};
BagBatch batch_of(const BagTask& task, std::span<const int64_t> bags) {
  std::vector<int64_t> rows, bag;
  std::vector<float> sizes, proportions;
  for (size_t k = 0; k < bags.size(); ++k) {
    const auto& members = task.bags[static_cast<size_t>(bags[k])];
    rows.insert(rows.end(), members.begin(), members.end());
    bag.insert(bag.end(), members.size(), static_cast<int64_t>(k));
    sizes.push_back(static_cast<float>(members.size()));
    proportions.push_back(static_cast<float>(task.counts[static_cast<size_t>(bags[k])]) / sizes.back());
  }
  return {torch::tensor(rows), torch::tensor(bag), torch::tensor(sizes), torch::tensor(proportions)};
}

torch::Tensor bag_means(const torch::Tensor& values, const BagBatch& batch) {
  const torch::Tensor rows = values.dim() == 1 ? values.unsqueeze(1) : values;
  return torch::zeros({batch.sizes.size(0), rows.size(1)}).index_add(0, batch.bag, rows) / batch.sizes.unsqueeze(1);
}

}  // namespace

OptionList describe(LlpBpOptions& options) {
  return {
      option("neighbours", options.neighbours, range(0, 1000), "nearest neighbours of every instance", "release"),
      option("longest", options.longest, above(0), "edges need a cosine distance below this", "release (2: all)"),
      option("length", options.length, above(0), "length of the Matern-1/2 kernel", "release"),
      option("lambda-bag", options.lambda_bag, above(0), "strength of the bags' counts", "release"),
      option("lambda-edge", options.lambda_edge, range(0, 1e6), "strength of the neighbours", "release"),
      option("iterations", options.iterations, range(1, 100000), "of belief propagation, at most",
             "release (100, with fixed damping)"),
      option("hard-labels", options.hard, one_of(std::vector<std::string>{"half", "count"}),
             "positive is what has a belief above 0.5, or as many of the surest in each bag as its count says", "paper (half)"),
      option("rounds", options.rounds, range(1, 10), "the first on the features, each next on the hidden layer", "paper"),
      option("bag-weight", options.bag_weight, range(0, 1e6), "of the loss on bags' proportions", "release"),
      Option("propagate", options.propagate, "off: the bags' proportions are the pseudo-labels", "paper"),
      option("learning-rate", options.learning_rate, above(0), "of AdamW", "release"),
      option("weight-decay", options.weight_decay, range(0, 10), "of AdamW", "Lighten"),
      option("epochs", options.epochs, range(1, 100000), "of each round, at most", "Lighten"),
      option("patience", options.patience, range(0, 100000), "epochs without a better validation score", "release"),
      option("batch", options.batch, range(1, 1'000'000), "instances in a batch of whole bags", "release"),
  };
}

void check_task(const BagTask& task) {
  if (task.bags.size() != task.counts.size())
    throw_error<OptionError>("{} bags, but {} counts", task.bags.size(), task.counts.size());
  std::vector<int64_t> bag_of(static_cast<size_t>(task.x.size(0)), -1);
  bool positive = false, negative = false;
  for (size_t b = 0; b < task.bags.size(); ++b) {
    const auto size = std::ssize(task.bags[b]);
    if (size == 0) throw_error<OptionError>("bag {} is empty", b);
    if (task.counts[b] < 0 || task.counts[b] > size)
      throw_error<OptionError>("bag {}: {} positives among {} instances", b, task.counts[b], size);
    positive = positive || task.counts[b] > 0;
    negative = negative || task.counts[b] < size;
    for (const int64_t row : task.bags[b]) {
      if (row < 0 || row >= task.x.size(0)) throw_error<OptionError>("bag {}: instance {} of {}", b, row, task.x.size(0));
      if (bag_of[static_cast<size_t>(row)] >= 0)
        throw_error<OptionError>("instance {} is in the bags {} and {}; bags must be disjoint", row,
                                 bag_of[static_cast<size_t>(row)], b);
      bag_of[static_cast<size_t>(row)] = static_cast<int64_t>(b);
    }
  }
  if (!positive || !negative) throw OptionError("the counts of all bags say one class; there is nothing to learn");
  for (const int64_t bag : task.validation)
    if (bag < 0 || bag >= std::ssize(task.bags)) throw_error<OptionError>("validation bag {} of {}", bag, task.bags.size());
  if (task.labelled.size() != task.labels.size())
    throw_error<OptionError>("{} labelled instances, but {} labels", task.labelled.size(), task.labels.size());
  std::array<bool, 2> seen{};
  for (size_t i = 0; i < task.labelled.size(); ++i) {
    const int64_t row = task.labelled[i];
    if (row < 0 || row >= task.x.size(0)) throw_error<OptionError>("labelled instance {} of {}", row, task.x.size(0));
    if (const int64_t bag = bag_of[static_cast<size_t>(row)]; bag >= 0)
      throw_error<OptionError>("instance {} has a label and is in bag {}; give labels to instances outside the bags", row, bag);
    if (task.labels[i] > 1) throw_error<OptionError>("instance {}: label {} is neither 0 nor 1", row, task.labels[i]);
    seen[task.labels[i]] = true;
  }
  if (!task.labelled.empty() && !(seen[0] && seen[1]))
    throw OptionError("all labelled instances have one class; they cannot choose an epoch");
  if (training_bags(task).empty()) throw OptionError("all bags are set aside for validation; none is left for training");
}

BagNetImpl::BagNetImpl(int64_t inputs, uint64_t seed) {
  // The trunk's own last layer is the embedding; its ReLU comes here.
  trunk = register_module("trunk",
                          FeatureNet(FeatureNetConfig{.inputs = inputs, .widths = {kHidden}, .outputs = kEmbedding}, seed));
  bag_head = register_module(
      "bag_head", FeatureNet(FeatureNetConfig{.inputs = kEmbedding, .widths = {kBagHidden}, .outputs = 1}, seed + 1));
  auto generator = torch::make_generator<at::CPUGeneratorImpl>(seed + 2);
  const double limit = 1 / std::sqrt(static_cast<double>(kEmbedding));
  weight = register_parameter("weight", torch::empty({1, kEmbedding}).uniform_(-limit, limit, generator));
  bias = register_parameter("bias", torch::zeros({1}));
}

torch::Tensor BagNetImpl::embed(const torch::Tensor& x) { return torch::relu(trunk->forward(x)); }
torch::Tensor BagNetImpl::instances(const torch::Tensor& x) { return product(embed(x), weight, bias).squeeze(1); }

LlpBpRound infer_labels(const BagTask& task, const torch::Tensor& covariates, const LlpBpOptions& options) {
  // Instances of training bags get new numbers, in order of their bags.
  std::vector<int64_t> rows;
  BagModel model;
  model.lambda_bag = options.lambda_bag;
  model.lambda_edge = options.lambda_edge;
  for (const int64_t bag : training_bags(task)) {
    model.bags.emplace_back();
    model.counts.push_back(task.counts[static_cast<size_t>(bag)]);
    for (const int64_t row : task.bags[static_cast<size_t>(bag)]) {
      model.bags.back().push_back(std::ssize(rows));
      rows.push_back(row);
    }
  }
  model.n = std::ssize(rows);
  if (options.neighbours > 0) {
    const KnnGraph graph = knn_graph(covariates.index_select(0, torch::tensor(rows)), options.neighbours, options.longest);
    model.edges = graph.edges;
    for (const double distance : graph.distances) model.weights.push_back(std::exp(-distance / options.length));
  }
  LlpBpRound round;
  round.beliefs =
      propagate_beliefs(model, {.iterations = static_cast<int>(options.iterations), .threads = at::get_num_threads()});
  round.pseudo.assign(static_cast<size_t>(task.x.size(0)), 0);
  if (options.hard == "half") {
    for (size_t i = 0; i < rows.size(); ++i) round.pseudo[static_cast<size_t>(rows[i])] = round.beliefs.log_odds[i] > 0;
    return round;
  }
  for (size_t b = 0; b < model.bags.size(); ++b) {
    std::vector<int64_t> members = model.bags[b];
    std::stable_sort(members.begin(), members.end(), [&](int64_t one, int64_t two) {
      return round.beliefs.log_odds[static_cast<size_t>(one)] > round.beliefs.log_odds[static_cast<size_t>(two)];
    });
    for (int64_t i = 0; i < model.counts[b]; ++i)
      round.pseudo[static_cast<size_t>(rows[static_cast<size_t>(members[static_cast<size_t>(i)])])] = 1;
  }
  return round;
}

BagNet train_bag_net(const BagTask& task, const torch::Tensor& x, const BagLosses& losses, const LlpBpOptions& options,
                     const std::string& title, BagFit* fit, const TrainPlace& place) {
  BagNet net(x.size(1), options.seed * 1000 + 1);
  TrainTask training;
  training.title = title;
  training.modules = {{.name = "net", .module = net.get()}};
  training.samples = training_bags(task);  // batches are whole bags
  training.drop_last = false;
  training.loss = [&](const TrainStep& step) {
    const BagBatch batch = batch_of(task, step.samples);
    const torch::Tensor h = net->embed(x.index_select(0, batch.rows));
    const torch::Tensor logits = product(h, net->weight, net->bias).squeeze(1);
    torch::Tensor loss = torch::zeros({});
    if (losses.targets.defined())
      loss = loss + losses.instance_weight * bce(logits, losses.targets.index_select(0, batch.rows));
    if (losses.bag_weight > 0)
      loss = loss + losses.bag_weight *
                        (losses.through_mean
                             ? proportion_loss(bag_means(torch::sigmoid(logits), batch).squeeze(1), batch.proportions).mean()
                             : bce(net->bag_head->forward(bag_means(h, batch)).squeeze(1), batch.proportions));
    return loss;
  };
  if (!task.labelled.empty()) {
    training.validate = [&net, &x, &task] {
      const torch::Tensor logits =
          net->instances(x.index_select(0, torch::tensor(task.labelled))).to(torch::kDouble).contiguous();
      return auc(task.labels, {logits.data_ptr<double>(), static_cast<size_t>(logits.numel())});
    };
  } else if (!task.validation.empty()) {
    const BagBatch held = batch_of(task, task.validation);
    training.validate = [&net, &x, held] {
      const torch::Tensor means = bag_means(torch::sigmoid(net->instances(x.index_select(0, held.rows))), held).squeeze(1);
      return -(proportion_loss(means, held.proportions) * held.sizes).sum().item<double>() / held.sizes.sum().item<double>();
    };
  }
  double constant = 0.5;  // AUC of a constant
  if (task.labelled.empty() && !task.validation.empty()) {
    double positives = 0, instances = 0;
    for (const int64_t bag : training.samples) {
      positives += static_cast<double>(task.counts[static_cast<size_t>(bag)]);
      instances += static_cast<double>(task.bags[static_cast<size_t>(bag)].size());
    }
    const BagBatch held = batch_of(task, task.validation);
    const torch::Tensor share = torch::full_like(held.proportions, positives / instances);
    constant = -(proportion_loss(share, held.proportions) * held.sizes).sum().item<double>() / held.sizes.sum().item<double>();
  }
  double mean_size = 0;
  for (const int64_t bag : training.samples)
    mean_size += static_cast<double>(task.bags[static_cast<size_t>(bag)].size()) / static_cast<double>(training.samples.size());
  const TrainResult trained =
      train(training,
            {.epochs = options.epochs,
             .batch_size = std::max<int64_t>(1, std::llround(static_cast<double>(options.batch) / mean_size)),
             .optimizer = "adamw",
             .learning_rate = options.learning_rate,
             .weight_decay = options.weight_decay,
             .schedule = "constant",
             .patience = options.patience,
             .seed = options.seed},
            place);
  if (fit) *fit = {trained.best_epoch, trained.best_score, constant};
  return net;
}

LlpBpModel llp_bp(const BagTask& task, const LlpBpOptions& options, const std::string& title, const TrainPlace& place) {
  check_task(task);
  validate(describe(const_cast<LlpBpOptions&>(options)));
  LlpBpModel model;
  torch::Tensor covariates = task.x;
  for (int64_t r = 0; r < options.rounds; ++r) {
    LlpBpRound round;
    BagLosses losses{.targets = torch::zeros({task.x.size(0)}), .bag_weight = options.bag_weight};
    if (options.propagate) {
      round = infer_labels(task, covariates, options);
      for (size_t i = 0; i < round.pseudo.size(); ++i) losses.targets.data_ptr<float>()[i] = round.pseudo[i];
    } else {
      for (size_t b = 0; b < task.bags.size(); ++b)
        for (const int64_t row : task.bags[b])
          losses.targets.data_ptr<float>()[row] = static_cast<float>(task.counts[b]) / static_cast<float>(task.bags[b].size());
    }
    LlpBpOptions own = options;
    own.seed = options.seed + static_cast<uint64_t>(r) * 101;
    model.nets.push_back(train_bag_net(task, covariates, losses, own, fmt::format("{}, round {}", title, r + 1), &round.fit,
                                       place.part(fmt::format("round{}", r + 1))));
    model.rounds.push_back(std::move(round));
    const torch::NoGradGuard no_grad;
    covariates = model.nets.back()->embed(covariates);
  }
  return model;
}

torch::Tensor LlpBpModel::probabilities(const torch::Tensor& x) {
  const torch::NoGradGuard no_grad;
  torch::Tensor h = x;
  for (size_t r = 0; r + 1 < nets.size(); ++r) h = nets[r]->embed(h);
  return torch::sigmoid(nets.back()->instances(h));
}

}  // namespace lighten
