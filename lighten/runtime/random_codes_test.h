// Random low-bit weights for tests.
#pragma once
#include "lighten/base/random.h"
#include "lighten/formats/quant_tensor.h"

namespace lighten::test {

/// Codes that use every value, scales so that weights are about 0.5 wide.
inline QuantTensor random_codes(int64_t rows, int64_t columns, int bits, int64_t group_size, ZeroKind zero, Random& random) {
  QuantTensor tensor;
  tensor.bits = bits;
  tensor.rows = rows;
  tensor.columns = columns;
  tensor.group_size = group_size;
  tensor.zero = zero;
  tensor.codes.resize(static_cast<size_t>(rows * columns));
  for (uint8_t& code : tensor.codes) code = static_cast<uint8_t>(random.below(1ull << bits));
  const auto groups = static_cast<size_t>(rows * tensor.groups_per_row());
  const double step = 0.5 / static_cast<double>(1 << bits);
  for (size_t i = 0; i < groups; ++i) {
    tensor.scales.push_back(float_to_half(static_cast<float>(step * (0.5 + random.uniform()))));
    if (zero == ZeroKind::integer) tensor.zero_points.push_back(static_cast<uint8_t>(random.below(1ull << bits)));
    if (zero == ZeroKind::minimum)
      tensor.minimums.push_back(float_to_half(static_cast<float>(-0.25 * (0.8 + 0.4 * random.uniform()))));
  }
  return tensor;
}

}  // namespace lighten::test
