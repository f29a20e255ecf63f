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

torch::Tensor one_dnn(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias) {
  return linear_pointwise()->call(x.contiguous(), dense(weight), bias.defined() ? std::optional(bias) : std::nullopt, "none",
                                  c10::List<std::optional<torch::Scalar>>(), "");
}

/// y = x W^T + b; dx = dy W, dW = dy^T x, db = sum of dy over rows. All of them by product(), so that second derivatives exist.
struct ProductWithGradient : torch::autograd::Function<ProductWithGradient> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& x, const torch::Tensor& weight,
                               const std::optional<torch::Tensor>& bias) {
    context->save_for_backward({x, weight});
    context->saved_data["biased"] = bias.has_value();
    return one_dnn(x, weight, bias.value_or(torch::Tensor()));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const torch::Tensor &x = saved[0], &weight = saved[1], &dy = gradients[0];
    torch::Tensor dx, dw, db;
    if (context->needs_input_grad(0)) dx = product(dy, weight.t());
    if (context->needs_input_grad(1)) {
      const torch::Tensor rows = x.reshape({-1, x.size(-1)}), d_rows = dy.reshape({-1, dy.size(-1)});
      // The left side is copied into the order that oneDNN wants: the smaller one.
      dw = weight.size(0) <= weight.size(1) ? product(d_rows.t(), rows.t()) : product(rows.t(), d_rows.t()).t();
    }
    if (context->saved_data["biased"].toBool() && context->needs_input_grad(2)) db = dy.reshape({-1, dy.size(-1)}).sum(0);
    return {dx, dw, db};
  }
};

}  // namespace

torch::Tensor product(const torch::Tensor& x, const torch::Tensor& weight, const torch::Tensor& bias) {
  if (!plain(x) || !plain(weight) || weight.dim() != 2 || x.dim() < 2 || (bias.defined() && !plain(bias)) ||
      !linear_pointwise())
    return torch::linear(x, weight, bias);
  const bool wanted = torch::GradMode::is_enabled() &&
                      (x.requires_grad() || weight.requires_grad() || (bias.defined() && bias.requires_grad()));
  return wanted ? ProductWithGradient::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt)
                : one_dnn(x, weight, bias);
}

}  // namespace lighten
