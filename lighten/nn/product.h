// Matrix products on the processor, with gradients where they are wanted.
#pragma once
#include <torch/torch.h>

namespace lighten {

/// x W^T (+ b): x [..., in], W [out, in], b [out] or undefined. On float32 tensors of the CPU, oneDNN computes it and its
/// gradients: ATen's own choice, MKL, reaches a quarter of oneDNN's speed on AMD processors. Otherwise torch::linear. A B is
/// product(A, B.t()).
torch::Tensor product(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias = {});

}  // namespace lighten
