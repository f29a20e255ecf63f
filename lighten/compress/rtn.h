// Round to nearest: the baseline that needs no data.
#pragma once
#include "lighten/compress/method.h"
#include "lighten/compress/quantizer.h"

namespace lighten {

struct RtnOptions {
  bool mse = false;  ///< search each group's range (100 steps, L2.4) in place of its minimum and maximum
};
OptionList describe(RtnOptions& options);

/// Every weight goes to the nearest level of its group's grid.
std::unique_ptr<Rounding> make_rtn(const RtnOptions& options = {});
MethodEntry rtn_method();

}  // namespace lighten
