// Learning rates over the steps of a training.
#pragma once
#include <cstdint>
#include <string>

namespace lighten {

struct Schedule {
  std::string kind = "cosine";  ///< "constant", "step", "cosine"
  int64_t warmup_steps = 0;     ///< the rate rises linearly from rate / warmup_steps to the full one
  double step_factor = 0.1;     ///< step: the rate is multiplied by this ...
  double first_drop = 0.5;      ///< ... when this share of the steps is done
  double second_drop = 0.75;    ///< ... and once more here
  double final_factor = 0;      ///< cosine: what remains of the rate at the end
};

/// What the base rate is multiplied by at `step` of `total` (0 <= step < total):
///   step < warmup:  (step + 1) / warmup
///   constant: 1;  step: step_factor^(number of drops d with step >= d * total);
///   cosine: final + (1 - final) (1 + cos(pi t)) / 2, t = (step - warmup) / (total - warmup).
/// Throws OptionError for an unknown kind.
double schedule_factor(const Schedule& schedule, int64_t step, int64_t total);

}  // namespace lighten
