// SGD, Adam and AdamW in one pass over the memory of each parameter, with a state that is plain named tensors.
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "lighten/nn/state.h"

namespace lighten {

/// The update of one parameter w with gradient g at step t = 1, 2, ..., rate r, weight decay d:
///   sgd:   g' = g + d w;  v = mu v + g' (v = g' at t = 1);  w -= r v, or with nesterov w -= r (g' + mu v)
///   adam:  g' = g + d w;  m = b1 m + (1 - b1) g';  s = b2 s + (1 - b2) g'^2;
///          w -= r (m / (1 - b1^t)) / (sqrt(s / (1 - b2^t)) + epsilon)
///   adamw: w -= r d w first, then adam with g' = g
/// as in torch.optim.
struct OptimizerOptions {
  std::string kind = "sgd";
  double momentum = 0.9;
  bool nesterov = false;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
};

/// Parameters that share a rate and a weight decay.
struct ParameterGroup {
  std::string name;         ///< distinguishes the groups in checkpoints: "student"
  NamedTensors parameters;  ///< float32 leaves that require gradients
  double rate_scale = 1;    ///< multiplies the learning rate of step()
  double weight_decay = 0;
};

class Optimizer {
 public:
  /// Throws OptionError for an unknown kind or a group without parameters that require gradients.
  Optimizer(std::vector<ParameterGroup> groups, const OptimizerOptions& options);
  void zero_grad();
  /// Applies the gradients; parameters without one stay as they are.
  void step(double learning_rate);
  /// Euclidean norm of all gradients together, summed in double.
  double gradient_norm() const;
  /// Multiplies all gradients.
  void scale_gradients(double factor);
  /// "momentum.GROUP.NAME" (and "square." for Adam), and "steps": shares memory with the optimiser.
  NamedTensors state() const;
  const std::vector<ParameterGroup>& groups() const { return groups_; }

 private:
  struct Slot {
    torch::Tensor parameter, first, second;
    double rate_scale, weight_decay;
    std::string name;
  };
  std::vector<ParameterGroup> groups_;
  OptimizerOptions options_;
  std::vector<Slot> slots_;
  torch::Tensor steps_;  ///< [1] int64
};

}  // namespace lighten
