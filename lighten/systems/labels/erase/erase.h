// ERASE: node embeddings that resist wrong labels, by coding-rate reduction over labels that the graph has smoothed.
#pragma once
#include <torch/torch.h>

#include <vector>

#include "lighten/base/options.h"
#include "lighten/train/graph_task.h"

namespace lighten {

/// Defaults are those of the paper for Cora, but for `embedding` (512 there: the graphs here are small).
struct EraseOptions {
  int64_t hidden = 256, heads = 8, embedding = 128;
  double dropout = 0.5;
  double alpha = 0.6;  ///< how much of its own label a node keeps in a propagation step
  double beta = 0.6;   ///< weight of propagated labels against prototypes
  double gamma1 = 1, gamma2 = 2, epsilon = 0.05;
  int64_t steps = 5;       ///< propagation steps
  bool denoise = true;     ///< propagate the given labels before training (step 1)
  bool prototypes = true;  ///< take prototypes into the labels while training (step 3)
  double learning_rate = 1e-3, weight_decay = 5e-4;
  int64_t epochs = 400, patience = 150;
  uint64_t seed = 0;
};
OptionList describe(EraseOptions& options);

struct EraseResult {
  torch::Tensor embeddings;       ///< [n, embedding]
  torch::Tensor probabilities;    ///< [n, classes] of the readout
  std::vector<int32_t> denoised;  ///< [n]: labels at the end, argmax; train nodes' are what the readout was fitted to
  int64_t best_epoch = 0;
  double validation_accuracy = 0;
};

/// Nodes i with given labels Y0 (one-hot on training nodes, else 0), embeddings Z [n, d].
///  1. Y: T times Y <- (1 - alpha) A1 Y + alpha Y, A1 = A D^-1 among training nodes.
///  2. Z: a GAT of two layers; rows divided by their L1 norm after each, ReLU at the end.
///  3. each epoch: prototypes = mean Z of the training nodes of each argmax Y; Yh = softmax(beta Y + (1 - beta) |cos(Z,
///     prototypes)|), T times propagated over the whole graph; L = argmax Yh.
///  4. loss = -gamma2 / 2 logdet(I + gamma1 d / (n eps) Z^T Z) + gamma1 sum_j n_j / (2 n) logdet(I + d / (n_j eps) Z_j^T Z_j),
///  Z_j
///     the rows with L = j: spread all, pull each class together.
///  5. readout: logistic regression on Z / |Z| fitted to the training nodes' denoised labels.
/// The epoch whose readout has the highest accuracy on the validation nodes' labels is kept, as in the release.
/// Differences to the release: Adam without amsgrad; columns are normalised as there, written as A D^-1.
/// Source: Chen et al., "ERASE: Error-Resilient Representation Learning on Graphs for Label Noise Tolerance", CIKM 2024.
EraseResult erase(const GraphTask& task, const EraseOptions& options = {}, const std::string& title = "erase",
                  const TrainPlace& place = {});

// The steps, for tests and ablations.

/// 1/2 logdet(I + scale Z^T Z), in double by Cholesky; the smaller of the two Gram matrices is used. Z [m, d].
torch::Tensor coding_rate(const torch::Tensor& z, double scale);
/// The loss of step 4 for labels [n].
torch::Tensor coding_rate_loss(const torch::Tensor& z, const torch::Tensor& labels, int64_t classes,
                               const EraseOptions& options);
/// Step 1: [n, classes].
torch::Tensor denoised_labels(const GraphTask& task, const EraseOptions& options);
/// Step 3: Yh [n, classes] before argmax. `a`: A D^-1 of the whole graph.
torch::Tensor prototype_labels(const GraphTask& task, const Sparse& a, const torch::Tensor& y, const torch::Tensor& z,
                               const EraseOptions& options);
/// Logistic regression on unit rows, full batch: weights of `z` [n, d] for nodes with labels; -> probabilities [n, classes].
torch::Tensor logistic_readout(const torch::Tensor& z, const std::vector<int64_t>& nodes, const std::vector<int32_t>& labels,
                               int64_t classes);

}  // namespace lighten
