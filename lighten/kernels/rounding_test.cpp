// How activations are rounded, and the integer sums made of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lighten/base/random.h"
#include "lighten/kernels/blob_test.h"
#include "lighten/kernels/isa_fixture.h"
#include "lighten/kernels/kernel_table.h"

namespace lighten {
namespace {

class Rounding : public ForEachIsa {};
INSTANTIATE_TEST_SUITE_P(Cpu, Rounding, testing::ValuesIn(available_isas()), name_of_isa);

TEST_P(Rounding, IntegerSumsAreExactAtTheExtremes) {
  // Codes at their largest against activations of +-127 (and +-127 in the second byte) would overflow 16-bit sums. Scales are
  // 1, so that the products are the integers themselves.
  Random random(4);
  ThreadPool pool(1);
  constexpr int64_t rows = 32, columns = 192;
  for (const int bits : {2, 3, 4, 8}) {
    for (const int64_t group : {32, 64}) {
      for (const PackedZero zero : {PackedZero::symmetric, PackedZero::integer, PackedZero::minimum}) {
        for (const int kind : {0, 1, 2, 3}) {
          const int top = (1 << bits) - 1, zero_point = kind % 2 == 0 ? 0 : top;
          std::vector<uint8_t> codes, zeros(static_cast<size_t>(rows * columns / group), static_cast<uint8_t>(zero_point));
          for (int64_t i = 0; i < rows * columns; ++i)
            codes.push_back(static_cast<uint8_t>(kind < 2    ? top
                                                 : kind == 2 ? 0
                                                             : random.below(static_cast<uint64_t>(top) + 1)));
          const std::vector<Half> ones(zeros.size(), float_to_half(1.0f));
          const LinearSpec spec{.bits = bits, .zero = zero, .rows = rows, .columns = columns, .group_size = group};
          test::Blob packed(packed_bytes(spec));
          pack_linear(spec, codes.data(), ones.data(), zeros.data(), ones.data(), packed.data());
          const double center = zero == PackedZero::symmetric ? 1 << (bits - 1) : zero == PackedZero::integer ? zero_point : -1;
          for (const int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17}) {
            // Steps of exactly 1: the largest of every block is 127. The last halves are the rests that need a second byte.
            std::vector<float> x;
            for (int64_t i = 0; i < tokens * columns; ++i) {
              const float sign = kind == 0 || random.below(2) ? 1.0f : -1.0f;
              x.push_back(sign * (i % 32 == 0 ? 127.0f : random.below(2) ? 127.0f - 127.0f / 256 : 126.5f - 1.0f / 256));
            }
            std::vector<float> y(static_cast<size_t>(tokens * rows));
            linear(spec, packed.data(), x.data(), columns, tokens, y.data(), rows, nullptr, Arithmetic::bits16, pool);
            for (int64_t t = 0; t < tokens; ++t) {
              for (int64_t r = 0; r < rows; ++r) {
                double sum = 0, size = 0;
                for (int64_t c = 0; c < columns; ++c) {
                  const double term = (codes[static_cast<size_t>(r * columns + c)] - center) *
                                      static_cast<double>(x[static_cast<size_t>(t * columns + c)]);
                  sum += term;
                  size += (top + 1) * std::fabs(static_cast<double>(x[static_cast<size_t>(t * columns + c)]));
                }
                ASSERT_NEAR(y[static_cast<size_t>(t * rows + r)], sum, 2e-7 * size)
                    << isa_name(current_isa()) << " bits " << bits << " group " << group << " kind " << kind << " tokens "
                    << tokens;
              }
            }
          }
        }
      }
    }
  }
}

/// What `table` makes of activations.
struct Rounded {
  std::vector<int8_t> q, fine;
  std::vector<float> scale, sum;
  std::vector<int32_t> q_sum, fine_sum;
  std::vector<uint8_t> has_fine;
  bool operator==(const Rounded&) const = default;
};
Rounded rounded_by(const kernels::KernelTable& table, const std::vector<float>& x, int block, int lanes, int fine_ratio,
                   uint8_t flip = 0) {
  const size_t n = x.size() * static_cast<size_t>(lanes), blocks = x.size() / static_cast<size_t>(block);
  const size_t m = blocks * static_cast<size_t>(lanes);
  Rounded r{std::vector<int8_t>(n),  std::vector<int8_t>(n),  std::vector<float>(m),       std::vector<float>(m),
            std::vector<int32_t>(m), std::vector<int32_t>(m), std::vector<uint8_t>(blocks)};
  table.quantize(
      x.data(), static_cast<int64_t>(blocks), block, lanes, fine_ratio, flip,
      {r.q.data(), r.fine.data(), r.scale.data(), r.sum.data(), r.q_sum.data(), r.fine_sum.data(), r.has_fine.data(), 4});
  return r;
}

TEST_P(Rounding, ActivationsRoundToTheSameBytesAsTheScalarDefinition) {
  Random random(5);
  int64_t fine_blocks = 0;
  for (int i = 0; i < 600; ++i) {
    const int block = random.below(2) ? 32 : 64, lanes = 1 + static_cast<int>(random.below(8));
    const auto blocks = 1 + static_cast<int64_t>(random.below(4));
    const int ratio = i % 5 == 0 ? 0 : kernels::kFineRatio;
    const uint8_t flip = random.below(2) ? 0x80 : 0;
    std::vector<float> x;
    const double size = std::pow(10.0, random.uniform() * 76 - 38);
    for (int64_t c = 0; c < blocks * block; ++c) x.push_back(static_cast<float>((random.uniform() * 2 - 1) * size));
    for (size_t c = 0; c < x.size(); c += 1 + random.below(40)) x[c] *= i % 3 == 0 && size < 1e30 ? 100.0f : 1.0f;
    if (i % 10 == 0) std::fill(x.begin(), x.end(), 0.0f);
    const Rounded expected = rounded_by(kernels::scalar_table(), x, block, lanes, ratio, flip);
    ASSERT_EQ(rounded_by(kernels::table(), x, block, lanes, ratio, flip), expected);
    if (ratio > 0) fine_blocks += std::count(expected.has_fine.begin(), expected.has_fine.end(), 4);
  }
  EXPECT_GT(fine_blocks, 50);
}

TEST_P(Rounding, BytesSayWhatTheActivationsAre) {
  // One byte is off by half a step of largest / 127 at most, two by half a 256th of it and what +-127 leave out: a 256th.
  Random random(6);
  for (const int ratio : {0, 127 * 64}) {
    std::vector<float> x;
    for (int i = 0; i < 4 * 64; ++i) x.push_back(static_cast<float>(random.normal() * (i % 50 == 7 ? 100 : 1)));
    const Rounded r = rounded_by(kernels::table(), x, 64, 1, ratio);
    for (size_t i = 0; i < x.size(); ++i) {
      const double step = r.scale[i / 64];
      EXPECT_NEAR(x[i], step * (r.q[i] + r.fine[i] / 256.0), step * (ratio == 0 ? 1.0 / 256 : 0.5) * 1.0001);
      EXPECT_EQ(r.has_fine[i / 64], ratio == 0 ? 4 : 0);
    }
    for (size_t b = 0; b < 4; ++b) {
      int32_t q = 0, fine = 0;
      for (size_t i = b * 64; i < (b + 1) * 64; ++i) {
        q += r.q[i];
        fine += r.fine[i];
      }
      EXPECT_EQ(r.q_sum[b], q);
      EXPECT_EQ(r.fine_sum[b], fine);
      EXPECT_FLOAT_EQ(r.sum[b], r.scale[b] * (static_cast<float>(q) + static_cast<float>(fine) / 256));
    }
  }
}

}  // namespace
}  // namespace lighten
