#pragma once
#include <cstdint>

namespace lighten::cuda {

/// Which scale a unit of 32 inputs has.
struct Grouping {
  uint32_t units;  ///< that share one
  int shift;       ///< units = 2^shift, or -1
};

}  // namespace lighten::cuda
