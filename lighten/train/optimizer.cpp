#include "lighten/train/optimizer.h"

#include <ATen/Parallel.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/base/options.h"

namespace lighten {

namespace {

constexpr int64_t kGrain = 16384;  // values a thread updates at a time

struct AdamFactors {
  float rate, decay, weight_decay, beta1, beta2, new1, new2, correction1, correction2, epsilon;
};

void sgd(float* w, const float* g, float* v, int64_t n, float rate, float decay, float momentum, bool first, bool nesterov) {
  for (int64_t i = 0; i < n; ++i) {
    const float gradient = g[i] + decay * w[i];
    v[i] = first ? gradient : momentum * v[i] + gradient;
    w[i] -= rate * (nesterov ? gradient + momentum * v[i] : v[i]);
  }
}

void adam(float* w, const float* g, float* m, float* s, int64_t n, const AdamFactors& f) {
  for (int64_t i = 0; i < n; ++i) {
    const float weight = w[i] * f.decay, gradient = g[i] + f.weight_decay * weight;
    m[i] = f.beta1 * m[i] + f.new1 * gradient;
    s[i] = f.beta2 * s[i] + f.new2 * gradient * gradient;
    w[i] = weight - f.rate * (m[i] * f.correction1) / (std::sqrt(s[i] * f.correction2) + f.epsilon);
  }
}

}  // namespace

Optimizer::Optimizer(std::vector<ParameterGroup> groups, const OptimizerOptions& options)
    : groups_(std::move(groups)), options_(options), steps_(torch::zeros({1}, torch::kInt64)) {
  if (options_.kind != "sgd" && options_.kind != "adam" && options_.kind != "adamw")
    throw OptionError(unknown_name_message("optimizer", options_.kind, {"sgd", "adam", "adamw"}));
  for (const ParameterGroup& group : groups_) {
    size_t trained = 0;
    for (const auto& [name, parameter] : group.parameters) {
      if (!parameter.requires_grad()) continue;
      if (parameter.scalar_type() != torch::kFloat32 || !parameter.is_contiguous())
        throw_error<OptionError>("optimizer: {} of {} is not contiguous float32", name, group.name);
      ++trained;
      Slot slot{.parameter = parameter,
                .first = torch::zeros_like(parameter, torch::MemoryFormat::Contiguous).detach(),
                .second = {},
                .rate_scale = group.rate_scale,
                .weight_decay = group.weight_decay,
                .name = group.name + "." + name};
      if (options_.kind != "sgd") slot.second = torch::zeros_like(slot.first);
      slots_.push_back(std::move(slot));
    }
    if (trained == 0)
      throw_error<OptionError>("optimizer: the group '{}' has no parameter that requires a gradient", group.name);
  }
}

void Optimizer::zero_grad() {
  for (Slot& slot : slots_) slot.parameter.mutable_grad().reset();
}

void Optimizer::step(double learning_rate) {
  const torch::NoGradGuard no_grad;
  int64_t& steps = *steps_.data_ptr<int64_t>();
  const bool first = steps == 0, sgd_kind = options_.kind == "sgd", decoupled = options_.kind == "adamw";
  ++steps;
  const double t = static_cast<double>(steps);
  for (Slot& slot : slots_) {
    if (!slot.parameter.grad().defined()) continue;
    const torch::Tensor gradient = slot.parameter.grad().contiguous();
    const double rate = learning_rate * slot.rate_scale;
    const AdamFactors factors{.rate = static_cast<float>(rate),
                              .decay = static_cast<float>(decoupled ? 1 - rate * slot.weight_decay : 1),
                              .weight_decay = static_cast<float>(decoupled ? 0 : slot.weight_decay),
                              .beta1 = static_cast<float>(options_.beta1),
                              .beta2 = static_cast<float>(options_.beta2),
                              .new1 = static_cast<float>(1 - options_.beta1),
                              .new2 = static_cast<float>(1 - options_.beta2),
                              .correction1 = static_cast<float>(1 / (1 - std::pow(options_.beta1, t))),
                              .correction2 = static_cast<float>(1 / (1 - std::pow(options_.beta2, t))),
                              .epsilon = static_cast<float>(options_.epsilon)};
    float* w = slot.parameter.data_ptr<float>();
    const float* g = gradient.const_data_ptr<float>();
    float* m = slot.first.data_ptr<float>();
    float* s = sgd_kind ? nullptr : slot.second.data_ptr<float>();
    at::parallel_for(0, slot.parameter.numel(), kGrain, [&](int64_t begin, int64_t end) {
      if (sgd_kind)
        sgd(w + begin, g + begin, m + begin, end - begin, factors.rate, factors.weight_decay,
            static_cast<float>(options_.momentum), first, options_.nesterov);
      else
        adam(w + begin, g + begin, m + begin, s + begin, end - begin, factors);
    });
  }
}

double Optimizer::gradient_norm() const {
  double sum = 0;
  for (const Slot& slot : slots_) {
    if (!slot.parameter.grad().defined()) continue;
    const double norm = slot.parameter.grad().norm().item<double>();
    sum += norm * norm;
  }
  return std::sqrt(sum);
}

void Optimizer::scale_gradients(double factor) {
  const torch::NoGradGuard no_grad;
  for (Slot& slot : slots_)
    if (slot.parameter.grad().defined()) slot.parameter.mutable_grad().mul_(factor);
}

NamedTensors Optimizer::state() const {
  NamedTensors tensors = {{"steps", steps_}};
  for (const Slot& slot : slots_) {
    tensors.emplace_back("momentum." + slot.name, slot.first);
    if (slot.second.defined()) tensors.emplace_back("square." + slot.name, slot.second);
  }
  return tensors;
}

}  // namespace lighten
