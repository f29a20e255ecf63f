// The Hessian of a linear's squared output error and the factor that the OBS sweep reads.
#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace lighten {

/// H = (2 / n) sum_t x_t x_t^T over n tokens: products in float32 a chunk, sums in float64; only the upper half is computed.
class HessianAccumulator {
 public:
  explicit HessianAccumulator(int64_t inputs);
  void add(const torch::Tensor& x);  ///< [..., inputs]
  int64_t count() const { return count_; }
  torch::Tensor hessian() const;  ///< [inputs, inputs] float64, symmetric

 private:
  torch::Tensor sum_;
  int64_t count_ = 0;
};

struct DampingOptions {
  double damping = 0.01;   ///< times mean(diag H), added to the diagonal
  bool act_order = false;  ///< columns in order of falling diag H
};

/// U with H^-1 = U^T U, upper triangular, rows and columns in the order of the sweep.
struct HessianFactor {
  torch::Tensor upper;         ///< [in, in] float32
  std::vector<int64_t> order;  ///< position -> column
  std::vector<uint8_t> dead;   ///< column had H_jj = 0: its weights are set to 0
  double damping = 0;          ///< what was needed (ten times more each time the factorization failed)
};
/// Channels with H_jj = 0 get H_jj = 1. Throws ModelError if H has NaN or stays indefinite (damping above 1).
HessianFactor factor_hessian(const torch::Tensor& hessian, const DampingOptions& options = {});

}  // namespace lighten
