// The module that is trained: the recurrent binarizer, with the copy and the queue that training needs.
#pragma once
#include <torch/torch.h>

#include <vector>

#include "lighten/systems/labels/bebr/bebr.h"

namespace lighten::bebr {

/// sign with sign(0) = +1; backward: the gradient where |x| <= 1, else 0.
torch::Tensor straight_through_sign(const torch::Tensor& x);

/// phi: [n, d] unit rows -> [n, m] values b_u.
struct BinarizerImpl : torch::nn::Module {
  BinarizerImpl(int64_t columns, const BebrOptions& options);
  torch::Tensor forward(const torch::Tensor& f);
  /// Weights that make a good code before any training, from unit rows [n, d]. The first layers stand in the linear part of
  /// their ReLU (batch norm's shift is kLinearPart standard deviations), so that
  ///   W_j = signs of P: the rows' m principal axes, turned at random (more than d dimensions: again, turned anew);
  ///   R_j = ridge regression from b_j to the rows.
  /// With `targets` [n, m], the codes that rows should have, P is the ridge regression from rows to targets instead.
  void warm_start(const torch::Tensor& rows, const torch::Tensor& targets = {});
  /// The nets with batch norms folded in, as the index runs them.
  CodeEncoder encoder() const;

  int64_t columns, dimensions, loops;
  std::vector<torch::nn::Sequential> binarizers, reconstructors;
};
TORCH_MODULE(Binarizer);

/// -log softmax of the positive among positive and negatives, mean over rows. positive [n], negatives [n, k]: cosines.
torch::Tensor contrastive_loss(const torch::Tensor& positive, const torch::Tensor& negatives, double temperature);

}  // namespace lighten::bebr
