// Exponential moving average of a net's state.
#pragma once
#include <torch/torch.h>

#include "lighten/nn/state.h"

namespace lighten {

/// e <- d e + (1 - d) w after every step, with d = min(decay, (1 + t) / (10 + t)) at step t = 0, 1, ... so that the first steps
/// are forgotten fast. Floating tensors only; integer buffers are copied.
class Ema {
 public:
  /// `live` shares memory with the net. Starts as a copy of it.
  Ema(NamedTensors live, double decay);
  void update();
  /// Exchanges the averaged values with the net's; calling it twice restores both.
  void swap();
  static double decay_at(double decay, int64_t step);
  /// "average.NAME" and "updates": shares memory.
  NamedTensors state() const;

 private:
  NamedTensors live_, average_;
  double decay_;
  torch::Tensor updates_;
};

}  // namespace lighten
