// Normalisation of channels: over the batch, over the batches of all processes, or over groups of channels of one sample.
#pragma once
#include <torch/torch.h>

#include <string>

#include "lighten/base/ranks.h"

namespace lighten {

/// x [n, channels, ...] float32 -> the same shape: weight * (x - mean) / sqrt(variance + epsilon) + bias per channel.
///   "batch"  mean and variance over n and all positions; running averages (momentum 0.1, unbiased variance) in evaluation.
///            State: weight, bias, running_mean, running_var, num_batches_tracked, as torch's BatchNorm1d and 2d.
///   "group"  of each sample, over gcd(channels, 8) groups of channels and all positions. State: weight, bias. Needs no batch,
///            and no statistics that clients with few samples would spoil.
struct ChannelNormImpl : torch::nn::Module {
  explicit ChannelNormImpl(int64_t channels, const std::string& kind = "batch");
  torch::Tensor forward(const torch::Tensor& x);

  int64_t channels;
  std::string kind;
  torch::Tensor weight, bias, running_mean, running_var, num_batches_tracked;
  /// Set: batch statistics in training are those of the batches of all these processes together, forward and backward; all must
  /// come here in the same order. What gradients mean: each process differentiates its share of one common loss.
  Ranks* ranks = nullptr;
};
TORCH_MODULE(ChannelNorm);

/// Sets `ranks` in every ChannelNorm "batch" below the module (nullptr: batches of this process alone). Returns their number.
int64_t synchronise_norms(torch::nn::Module& module, Ranks* ranks);

}  // namespace lighten
