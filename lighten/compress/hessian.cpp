#include "lighten/compress/hessian.h"

#include <algorithm>
#include <numeric>

#include "lighten/base/error.h"
#include "lighten/nn/product.h"

namespace lighten {
namespace {

constexpr int64_t kPanel = 384;  // panels of the upper half: 62 % of the products at width 1536

}  // namespace

HessianAccumulator::HessianAccumulator(int64_t inputs) : sum_(torch::zeros({inputs, inputs}, torch::kDouble)) {}

void HessianAccumulator::add(const torch::Tensor& x) {
  torch::NoGradGuard no_grad;
  const int64_t inputs = sum_.size(0);
  const torch::Tensor rows = x.reshape({-1, inputs}).to(torch::kFloat);
  for (int64_t begin = 0; begin < inputs; begin += kPanel) {
    const int64_t end = std::min(begin + kPanel, inputs);
    sum_.slice(0, begin, end).slice(1, begin).add_(product(rows.slice(1, begin, end).t(), rows.slice(1, begin).t()));
  }
  count_ += rows.size(0);
}

torch::Tensor HessianAccumulator::hessian() const {
  const torch::Tensor upper = sum_.triu();
  return (upper + upper.triu(1).t()) * (2.0 / static_cast<double>(std::max<int64_t>(count_, 1)));
}

HessianFactor factor_hessian(const torch::Tensor& hessian, const DampingOptions& options) {
  torch::NoGradGuard no_grad;
  torch::Tensor h = hessian.to(torch::kDouble).clone();
  if (!torch::isfinite(h).all().item<bool>())
    throw_error<ModelError>(
        "the calibration inputs of a linear hold NaN or infinity; check the model and the blocks before it");
  const int64_t n = h.size(0);
  HessianFactor factor;
  factor.dead.assign(static_cast<size_t>(n), 0);
  torch::Tensor diagonal = h.diagonal();
  auto values = diagonal.accessor<double, 1>();
  for (int64_t j = 0; j < n; ++j)
    if (values[j] <= 0) {
      factor.dead[static_cast<size_t>(j)] = 1;
      values[j] = 1;
    }
  factor.order.resize(static_cast<size_t>(n));
  std::iota(factor.order.begin(), factor.order.end(), int64_t{0});
  if (options.act_order) {
    std::stable_sort(factor.order.begin(), factor.order.end(), [&](int64_t a, int64_t b) { return values[a] > values[b]; });
    const torch::Tensor order = torch::tensor(factor.order);
    h = h.index_select(0, order).index_select(1, order);
  }
  // With J the reversal, J H J = L L^T gives H = R R^T, R = J L J upper; then U = R^-1 has U^T U = H^-1.
  const double mean = h.diagonal().mean().item<double>();
  for (double damping = options.damping; damping <= 1.0; damping = damping == 0 ? 1e-6 : damping * 10) {
    torch::Tensor damped = h.clone();
    damped.diagonal().add_(damping * mean);
    const auto [lower, info] = torch::linalg_cholesky_ex(damped.flip({0, 1}));
    if (info.item<int64_t>() != 0) continue;
    const torch::Tensor right = lower.flip({0, 1});
    const torch::Tensor upper = torch::linalg_solve_triangular(right, torch::eye(n, torch::kDouble), /*upper=*/true);
    if (!torch::isfinite(upper).all().item<bool>()) continue;
    factor.upper = upper.to(torch::kFloat).contiguous();
    factor.damping = damping;
    return factor;
  }
  throw_error<ModelError>(
      "the Hessian of a linear ({} inputs) is not positive definite even with damping 1; give more calibration text", n);
}

}  // namespace lighten
