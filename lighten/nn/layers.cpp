// Linear, RMS norm, rotary embedding, MLP.
#include <numbers>

#include "lighten/nn/decoder.h"
#include "lighten/nn/product.h"

namespace lighten {

LinearImpl::LinearImpl(torch::Tensor weight, torch::Tensor bias) : weight(std::move(weight)), bias(std::move(bias)) {}

torch::Tensor LinearImpl::forward(const torch::Tensor& x) {
  if (observer) observer(x);
  return product(x, weight, bias);
}

RmsNormImpl::RmsNormImpl(torch::Tensor weight, double epsilon) : weight(std::move(weight)), epsilon(epsilon) {}

torch::Tensor RmsNormImpl::forward(const torch::Tensor& x) {
  return x * torch::rsqrt(x.square().mean(-1, /*keepdim=*/true) + epsilon) * weight;
}

std::vector<double> rotary_frequencies(const RopeConfig& rope, int64_t head_dim) {
  std::vector<double> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double plain = std::pow(rope.base, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    switch (rope.scaling) {
      case RopeConfig::Scaling::none:
        frequencies[i] = plain;
        break;
      case RopeConfig::Scaling::linear:
        frequencies[i] = plain / rope.factor;
        break;
      case RopeConfig::Scaling::llama3: {
        const double turns = rope.original_context * plain / (2 * std::numbers::pi);  // in the original context
        const double keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
        const double share = std::clamp(keep, 0.0, 1.0);
        frequencies[i] = share * plain + (1 - share) * plain / rope.factor;
        break;
      }
    }
  }
  return frequencies;
}

RotaryTables rotary_tables(const RopeConfig& rope, int64_t head_dim, int64_t tokens, torch::Dtype dtype) {
  // Angles in double: in float32 a position of 100,000 would already be off by 0.004 radians.
  const auto frequencies = torch::tensor(rotary_frequencies(rope, head_dim), torch::kFloat64);
  const auto angles = torch::outer(torch::arange(tokens, torch::kFloat64), frequencies);
  const auto both = torch::cat({angles, angles}, -1);
  return {both.cos().to(dtype), both.sin().to(dtype)};
}

torch::Tensor rotate(const torch::Tensor& x, const RotaryTables& rotary) {
  const auto halves = x.chunk(2, -1);
  return x * rotary.cos + torch::cat({-halves[1], halves[0]}, -1) * rotary.sin;
}

MlpImpl::MlpImpl(Activation activation, Linear gate, Linear up, Linear down)
    : gate_proj(std::move(gate)), up_proj(std::move(up)), down_proj(std::move(down)), activation(activation) {}

torch::Tensor MlpImpl::hidden(const torch::Tensor& x) {
  const auto gate = gate_proj->forward(x);
  const auto active = activation == Activation::silu ? torch::silu(gate) : torch::gelu(gate, "tanh");
  return active * up_proj->forward(x);
}

torch::Tensor MlpImpl::forward(const torch::Tensor& x) { return down_proj->forward(hidden(x)); }

}  // namespace lighten
