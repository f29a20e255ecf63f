#include "lighten/nn/product.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string_view>

namespace lighten {
namespace {

/// The operator that torch's compiler uses for linears; part of every build of torch with oneDNN.
using LinearPointwise = torch::Tensor(const torch::Tensor&, const torch::Tensor&, const std::optional<torch::Tensor>&,
                                      std::string_view, c10::List<std::optional<torch::Scalar>>,
                                      std::optional<std::string_view>);

const std::optional<c10::TypedOperatorHandle<LinearPointwise>>& linear_pointwise() {
  static const auto handle = []() -> std::optional<c10::TypedOperatorHandle<LinearPointwise>> {
    const auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
    if (!schema || !schema->hasKernelForDispatchKey(c10::DispatchKey::CPU)) return std::nullopt;
    return schema->typed<LinearPointwise>();
  }();
  return handle;
}

bool plain(const torch::Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == torch::kFloat && tensor.layout() == torch::kStrided && tensor.numel() > 0;
}

/// oneDNN has fast code for dense matrices, plain or transposed, and slow reference code for all other strides.
torch::Tensor dense(const torch::Tensor& matrix) {
  if (matrix.is_contiguous() || matrix.t().is_contiguous()) return matrix;
  return matrix.stride(0) == 1 ? matrix.t().contiguous().t() : matrix.contiguous();
}

}  // namespace

torch::Tensor product(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias) {
  const bool wanted = torch::GradMode::is_enabled() &&
                      (x.requires_grad() || weight.requires_grad() || (bias.defined() && bias.requires_grad()));
  if (wanted || !plain(x) || !plain(weight) || weight.dim() != 2 || x.dim() < 2 || (bias.defined() && !plain(bias)) ||
      !linear_pointwise())
    return torch::linear(x, weight, bias);
  return linear_pointwise()->call(x.contiguous(), dense(weight), bias.defined() ? std::optional(bias) : std::nullopt, "none",
                                  c10::List<std::optional<torch::Scalar>>(), "");
}

}  // namespace lighten
