// LLP-BP: a classifier of instances from the number of positives in each bag.
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "lighten/base/options.h"
#include "lighten/nn/mlp.h"
#include "lighten/systems/labels/llp_bp/belief_propagation.h"
#include "lighten/train/loop.h"

namespace lighten {

/// Defaults are those of the release, but for the widths (5040-1280-320-128 there, for click logs).
struct LlpBpOptions {
  int64_t neighbours = 5;
  double longest = 2.0;  ///< edges need a cosine distance below
  double length = 1.0;   ///< of the Matern-1/2 kernel exp(-distance / length)
  double lambda_bag = 10, lambda_edge = 10;
  int64_t iterations = 200;
  std::string hard = "half";  ///< what hard pseudo-labels are: "half" (belief above 0.5), "count" (the bag's count surest ones)
  int64_t rounds = 2;         ///< the first on the features, the next on the hidden layer of the net before
  double bag_weight = 0.1;    ///< of the loss on bags' proportions
  bool propagate = true;      ///< off: pseudo-labels are the bags' proportions (an ablation)
  double learning_rate = 1e-3, weight_decay = 1e-2;
  int64_t epochs = 60, patience = 4, batch = 1024;
  uint64_t seed = 0;
};
OptionList describe(LlpBpOptions& options);

/// Instances in disjoint bags of which only the number of positives is told.
struct BagTask {
  torch::Tensor x;                         ///< [n, features] float32
  std::vector<std::vector<int64_t>> bags;  ///< rows of x; rows in no bag are not trained on
  std::vector<int64_t> counts;             ///< positives of each bag
  std::vector<int64_t> validation;         ///< bags that are set aside: their counts decide which epoch is kept
  /// A few rows of x in no bag whose labels (0, 1) are known: if there are any, the epoch is chosen by AUC on them, as in the
  /// paper, and not by bags.
  std::vector<int64_t> labelled;
  std::vector<uint8_t> labels;
};
/// Throws OptionError that names the bag: empty, a count above its size, an instance in two bags or outside, and when all
/// counts say the same class; or when no bag is left for training; and when a labelled row is in a bag, or all have one class.
void check_task(const BagTask& task);

/// A trunk on features, a head for instances on its last layer, and a head for bags on the mean of that layer.
struct BagNetImpl : torch::nn::Module {
  BagNetImpl(int64_t inputs, uint64_t seed);
  torch::Tensor embed(const torch::Tensor& x);      ///< [n, 128], after ReLU
  torch::Tensor instances(const torch::Tensor& x);  ///< logits [n]
  FeatureNet trunk{nullptr}, bag_head{nullptr};
  torch::Tensor weight, bias;
};
TORCH_MODULE(BagNet);

/// The epoch of a net that was kept, and what it was kept for: AUC on labelled instances, or minus the cross-entropy between
/// proportions and mean predictions on the validation bags (the larger, the better; compares trainings on one task).
struct BagFit {
  int64_t best_epoch = 0;
  double score = 0;
  double constant = 0;  ///< the score of always saying the training bags' share of positives
};

/// What one round did.
struct LlpBpRound {
  Beliefs beliefs;
  std::vector<uint8_t> pseudo;  ///< [n] of the instances in training bags; 0 elsewhere
  BagFit fit;
};

/// The learned classifier: nets in order; each but the first reads the embedding of the one before.
struct LlpBpModel {
  std::vector<BagNet> nets;
  std::vector<LlpBpRound> rounds;
  torch::Tensor probabilities(const torch::Tensor& x);  ///< [n]
};

/// Every round: 1. join every instance of the training bags with its nearest neighbours (cosine) by K = exp(-distance /
/// length);
/// 2. belief propagation over P(y) ~ exp(-lambda_bag sum_bags (sum y - count)^2 - lambda_edge sum_edges K (y_i - y_j)^2)
/// (belief_propagation.h; every bag is one factor); 3. hard labels at 0.5; 4. a net of 320-128 ReLUs is trained on them, with
/// bag_weight times the cross-entropy between a bag's proportion and a second head's view of its mean embedding; batches are
/// whole bags of about `batch` instances; the epoch with the highest AUC on the labelled instances is kept, or, without any,
/// that with the smallest cross-entropy between proportion and mean prediction on the validation bags. The next round's
/// covariates are the net's 128 hidden values. No label of an instance in a bag is used anywhere.
/// Source: Havaldar et al., "Learning from Label Proportions: Bootstrapping Supervised Learners via Belief Propagation", ICLR
/// 2024; the release builds pairs inside bags, O(|S|^2) messages, where this uses the exact message of the count.
LlpBpModel llp_bp(const BagTask& task, const LlpBpOptions& options = {}, const std::string& title = "llp-bp",
                  const TrainPlace& place = {});

/// Step 1 to 3: pseudo-labels of the instances that `rows` lists, from covariates [rows, d].
LlpBpRound infer_labels(const BagTask& task, const torch::Tensor& covariates, const LlpBpOptions& options);

/// Step 4, shared with the baselines: `targets` [n] in [0, 1] for instances (undefined: bag losses alone), `through_mean`: the
/// bag loss is on the mean of the instances' probabilities (DLLP) instead of on the second head.
struct BagLosses {
  torch::Tensor targets;
  double instance_weight = 1, bag_weight = 0.1;
  bool through_mean = false;
};
BagNet train_bag_net(const BagTask& task, const torch::Tensor& x, const BagLosses& losses, const LlpBpOptions& options,
                     const std::string& title, BagFit* fit = nullptr, const TrainPlace& place = {});

}  // namespace lighten
