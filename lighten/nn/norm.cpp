#include "lighten/nn/norm.h"

#include <numeric>

#include "lighten/base/error.h"
#include "lighten/base/options.h"

namespace lighten {
namespace {

constexpr double kEpsilon = 1e-5, kMomentum = 0.1;
constexpr int64_t kGroups = 8;

/// Everything but the channels.
std::vector<int64_t> other_dimensions(const torch::Tensor& x) {
  std::vector<int64_t> dimensions = {0};
  for (int64_t d = 2; d < x.dim(); ++d) dimensions.push_back(d);
  return dimensions;
}

/// [channels] as [1, channels, 1, ...].
torch::Tensor along(const torch::Tensor& values, const torch::Tensor& x) {
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[1] = values.size(0);
  return values.view(shape);
}

/// Two sums of each channel, of all ranks: [2, channels] in double.
torch::Tensor channel_sums(const torch::Tensor& first, const torch::Tensor& second, Ranks& ranks) {
  const std::vector<int64_t> over = other_dimensions(first);
  torch::Tensor sums = torch::stack({first.sum(over, false, torch::kDouble), second.sum(over, false, torch::kDouble)});
  sums = sums.contiguous();
  ranks.sum(std::span(sums.data_ptr<double>(), static_cast<size_t>(sums.numel())));
  return sums;
}

/// y = (x - mean) / sqrt(variance + epsilon) with the statistics of all ranks' batches.
struct SharedNormalise : torch::autograd::Function<SharedNormalise> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const torch::Tensor& x,
                                                Ranks* ranks) {
    double count = static_cast<double>(x.numel() / x.size(1));
    ranks->sum(std::span(&count, 1));
    // Two passes: sums of centred values lose nothing to cancellation.
    const torch::Tensor mean = channel_sums(x, x, *ranks)[0] / count;
    const torch::Tensor centred = x - along(mean.to(x.scalar_type()), x);
    const torch::Tensor sums = channel_sums(centred.square(), centred, *ranks);
    const torch::Tensor shift = sums[1] / count;
    const torch::Tensor variance = sums[0] / count - shift.square();
    const torch::Tensor scale = (variance + kEpsilon).rsqrt().to(x.scalar_type());
    const torch::Tensor y = centred * along(scale, x);
    context->save_for_backward({y, scale});
    context->saved_data["ranks"] = reinterpret_cast<int64_t>(ranks);
    context->saved_data["count"] = count;
    const torch::Tensor unbiased = variance * (count / std::max(count - 1, 1.0));
    context->mark_non_differentiable({mean, unbiased});
    return {y, mean, unbiased};
  }
  /// dx = scale (dy - mean(dy) - y mean(dy y)), means over the batches of all ranks.
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const torch::Tensor &y = saved[0], &scale = saved[1], &dy = gradients[0];
    auto* ranks = reinterpret_cast<Ranks*>(context->saved_data["ranks"].toInt());
    const torch::Tensor means =
        (channel_sums(dy, dy * y, *ranks) / context->saved_data["count"].toDouble()).to(dy.scalar_type());
    return {(dy - along(means[0], y) - y * along(means[1], y)) * along(scale, y), torch::Tensor()};
  }
};

}  // namespace

ChannelNormImpl::ChannelNormImpl(int64_t channel_count, const std::string& norm_kind)
    : channels(channel_count), kind(norm_kind) {
  if (kind != "batch" && kind != "group") throw OptionError(unknown_name_message("norm", kind, {"batch", "group"}));
  weight = register_parameter("weight", torch::ones({channels}));
  bias = register_parameter("bias", torch::zeros({channels}));
  if (kind == "group") return;
  running_mean = register_buffer("running_mean", torch::zeros({channels}));
  running_var = register_buffer("running_var", torch::ones({channels}));
  num_batches_tracked = register_buffer("num_batches_tracked", torch::zeros({}, torch::kInt64));
}

torch::Tensor ChannelNormImpl::forward(const torch::Tensor& x) {
  if (kind == "group") return torch::group_norm(x, std::gcd(channels, kGroups), weight, bias, kEpsilon);
  if (is_training()) {
    const torch::NoGradGuard no_gradients;
    num_batches_tracked.add_(1);
  }
  if (!is_training() || !ranks || ranks->size() == 1)
    return torch::batch_norm(x, weight, bias, running_mean, running_var, is_training(), kMomentum, kEpsilon,
                             at::globalContext().userEnabledCuDNN());
  const torch::autograd::variable_list normal = SharedNormalise::apply(x, ranks);
  const torch::NoGradGuard no_gradients;
  running_mean.mul_(1 - kMomentum).add_(normal[1].to(running_mean.scalar_type()), kMomentum);
  running_var.mul_(1 - kMomentum).add_(normal[2].to(running_var.scalar_type()), kMomentum);
  const torch::AutoGradMode with_gradients(true);
  return normal[0] * along(weight, x) + along(bias, x);
}

int64_t synchronise_norms(torch::nn::Module& module, Ranks* ranks) {
  int64_t number = 0;
  for (const auto& part : module.modules())
    if (auto* norm = part->as<ChannelNormImpl>(); norm && norm->kind == "batch") {
      norm->ranks = ranks;
      ++number;
    }
  return number;
}

}  // namespace lighten
