// Node classification: what systems on graphs are given, and the plain training of graph nets that they are measured against.
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "lighten/nn/graph.h"
#include "lighten/train/loop.h"

namespace lighten {

/// Node classification with labels that may be wrong. Every system and baseline on graphs takes this.
struct GraphTask {
  Sparse adjacency;             ///< symmetric, no self loops, values 1
  torch::Tensor x;              ///< [n, features] float32
  std::vector<int32_t> labels;  ///< [n] as given; -1: none
  int64_t classes = 0;
  std::vector<int64_t> train, validation;  ///< nodes; validation decides which epoch is kept
};
/// Throws OptionError: no training node, fewer than two classes, a label outside, sizes that do not fit.
void check_task(const GraphTask& task);

/// Class numbers of the largest entry of each row.
std::vector<int32_t> argmax_of(const torch::Tensor& scores);
/// Share of `nodes` whose prediction equals its label.
double accuracy_on(const std::vector<int64_t>& nodes, const std::vector<int32_t>& predictions,
                   const std::vector<int32_t>& labels);

struct GraphTrainOptions {
  int64_t hidden = 64, heads = 8, epochs = 200, patience = 50;
  double dropout = 0.5, learning_rate = 0.01, weight_decay = 5e-4;
  uint64_t seed = 0;
};
/// Probabilities [n, classes] of a GCN ("gcn") or GAT ("gat") trained by cross-entropy on the given labels.
torch::Tensor train_graph_net(const GraphTask& task, const std::string& kind, const GraphTrainOptions& options,
                              const std::string& title, const TrainPlace& place = {});
/// Labels of the training nodes, int64.
torch::Tensor training_targets(const GraphTask& task);
/// A net for the task, untrained.
GraphNet make_graph_net(const GraphTask& task, const std::string& kind, const GraphTrainOptions& options, uint64_t seed);
/// The loop's options for one step an epoch on the whole graph.
TrainOptions full_batch(const GraphTrainOptions& options);
/// A GraphNet by itself, of kind "gcn" or "gat", and the adjacency as it wants it.
GraphNet fit_graph_net(const GraphTask& task, const std::string& kind, const GraphTrainOptions& options,
                       const std::string& title, const TrainPlace& place = {});

}  // namespace lighten
