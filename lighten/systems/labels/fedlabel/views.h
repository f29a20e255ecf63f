// What a client trains on: feature vectors or pictures, and how they are varied.
#pragma once
#include <torch/torch.h>

#include "lighten/data/dataset.h"
#include "lighten/nn/mlp.h"
#include "lighten/nn/vision.h"
#include "lighten/systems/labels/fedlabel/fedlabel.h"
#include "lighten/train/loader.h"

namespace lighten {

/// Rows scaled to a root mean square of 1, which needs no statistics of other clients; rows of zeros stay. x [n, width].
torch::Tensor scaled_rows(const torch::Tensor& x);

/// Views of feature rows: weak: as they are; strong: a tenth of the entries set to 0, the rest scaled up. Net: an MLP with one
/// hidden layer of `width`. Both are put into `task`.
void use_features(FederatedTask& task, const torch::Tensor& x, int64_t width, uint64_t seed);

/// Views of pictures: weak: moved by up to 1 pixel; strong: moved by 2, turned by up to 10 degrees, area 0.85 to 1 (more, with
/// erased squares, costs 5 points of accuracy on letters: the last steps of a visit are taken on the strong view). Net: conv3
/// with group norm, `width` channels at first. `set` must outlive the task.
void use_pictures(FederatedTask& task, const ImageSet& set, const Normalization& normalization, int64_t width, uint64_t seed);

/// Logits of samples in evaluation mode without gradients, [samples, classes].
torch::Tensor federated_logits(const FederatedTask& task, const FederatedNet& net, const std::vector<int64_t>& samples);

/// Share of samples whose largest logit is at the label; 0 without samples.
double federated_accuracy(const FederatedTask& task, const FederatedNet& net, const std::vector<int64_t>& samples,
                          const std::vector<int32_t>& labels);

}  // namespace lighten
