#include "lighten/train/schedule.h"

#include <cmath>
#include <numbers>

#include "lighten/base/error.h"
#include "lighten/base/options.h"

namespace lighten {

double schedule_factor(const Schedule& schedule, int64_t step, int64_t total) {
  if (step < schedule.warmup_steps) return static_cast<double>(step + 1) / static_cast<double>(schedule.warmup_steps);
  if (schedule.kind == "constant") return 1;
  if (schedule.kind == "step") {
    double factor = 1;
    for (const double drop : {schedule.first_drop, schedule.second_drop})
      if (static_cast<double>(step) >= drop * static_cast<double>(total)) factor *= schedule.step_factor;
    return factor;
  }
  if (schedule.kind != "cosine")
    throw OptionError(unknown_name_message("schedule", schedule.kind, {"constant", "step", "cosine"}));
  const double done = static_cast<double>(step - schedule.warmup_steps) /
                      static_cast<double>(std::max<int64_t>(total - schedule.warmup_steps, 1));
  return schedule.final_factor + (1 - schedule.final_factor) * (1 + std::cos(std::numbers::pi * std::min(done, 1.0))) / 2;
}

}  // namespace lighten
