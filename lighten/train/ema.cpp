#include "lighten/train/ema.h"

#include "lighten/base/error.h"

namespace lighten {

Ema::Ema(NamedTensors live, double decay)
    : live_(std::move(live)), average_(cloned(live_)), decay_(decay), updates_(torch::zeros({1}, torch::kInt64)) {
  if (!(decay >= 0) || !(decay < 1)) throw_error<OptionError>("EMA: decay {} must be at least 0 and below 1", decay);
}

double Ema::decay_at(double decay, int64_t step) {
  return std::min(decay, (1 + static_cast<double>(step)) / (10 + static_cast<double>(step)));
}

void Ema::update() {
  const torch::NoGradGuard no_grad;
  int64_t& updates = *updates_.data_ptr<int64_t>();
  const double decay = decay_at(decay_, updates++);
  for (size_t i = 0; i < live_.size(); ++i) {
    const torch::Tensor& value = live_[i].second;
    if (value.is_floating_point())
      average_[i].second.mul_(decay).add_(value, 1 - decay);
    else
      average_[i].second.copy_(value);
  }
}

void Ema::swap() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < live_.size(); ++i) {
    const torch::Tensor held = live_[i].second.clone();
    live_[i].second.copy_(average_[i].second);
    average_[i].second.copy_(held);
  }
}

NamedTensors Ema::state() const {
  NamedTensors tensors = {{"updates", updates_}};
  for (const auto& [name, tensor] : average_) tensors.emplace_back("average." + name, tensor);
  return tensors;
}

}  // namespace lighten
