// For tests of the graphics card's kernels: random weights of the kinds it knows.
#pragma once
#include <vector>

#include "lighten/base/random.h"
#include "lighten/kernels/blob_test.h"
#include "lighten/kernels/linear.h"

namespace lighten::test {

struct RandomWeight {
  LinearSpec spec;
  Blob packed{0};

  RandomWeight(const LinearSpec& of, Random& random) : spec(of), packed(packed_bytes(of)) {
    const uint64_t levels = spec.codes == PackedCodes::trits ? 3 : uint64_t{1} << spec.bits;
    const int64_t groups = spec.rows * (spec.group_size == 0 ? 1 : spec.columns / spec.group_size);
    std::vector<uint8_t> codes, zero_points;
    std::vector<Half> scales, minimums;
    for (int64_t i = 0; i < spec.rows * spec.columns; ++i) codes.push_back(static_cast<uint8_t>(random.below(levels)));
    for (int64_t i = 0; i < groups; ++i) {
      scales.push_back(float_to_half(static_cast<float>(0.01 + random.uniform() * 0.05)));
      zero_points.push_back(static_cast<uint8_t>(random.below(levels)));
      minimums.push_back(float_to_half(static_cast<float>(random.uniform() * -0.2)));
    }
    pack_linear(spec, codes.data(), scales.data(), zero_points.data(), minimums.data(), packed.data());
  }
};

/// Bits, kind, group and shape at random; at least one row, up to `most` inputs (more where a group is longer).
inline LinearSpec random_device_spec(Random& random, int64_t most) {
  const int bits[] = {2, 3, 4, 8};
  const PackedZero zeros[] = {PackedZero::symmetric, PackedZero::integer, PackedZero::minimum};
  const int64_t groups[] = {0, 32, 64, 96, 128};
  LinearSpec spec{.bits = bits[random.below(4)], .zero = zeros[random.below(3)]};
  if (spec.bits == 2 && random.below(4) == 0) {
    spec.codes = PackedCodes::trits;
    spec.zero = PackedZero::symmetric;
  }
  spec.group_size = groups[random.below(5)];
  spec.rows = 1 + static_cast<int64_t>(random.below(70));
  const auto limit = static_cast<uint64_t>(most);
  spec.columns = spec.group_size == 0 ? 1 + static_cast<int64_t>(random.below(limit))
                                      : spec.group_size * (1 + static_cast<int64_t>(random.below(limit / 96)));
  return spec;
}

}  // namespace lighten::test
