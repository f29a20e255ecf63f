#include "lighten/runtime/activation_split.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lighten/base/random.h"
#include "lighten/runtime/aligned_bytes.h"

namespace lighten {
namespace {

struct Case {
  LinearSpec spec;
  runtime::AlignedBytes packed;
};

Case random_weight(int bits, int64_t columns, int64_t group_size) {
  const LinearSpec spec{
      .bits = bits, .zero = PackedZero::integer, .bfloat = false, .rows = 48, .columns = columns, .group_size = group_size};
  Random random(static_cast<uint64_t>(bits));
  std::vector<uint8_t> codes(static_cast<size_t>(spec.rows * columns));
  for (uint8_t& code : codes) code = static_cast<uint8_t>(random.below(1ull << bits));
  const auto groups = static_cast<size_t>(spec.rows * (group_size == 0 ? 1 : columns / group_size));
  const std::vector<Half> scales(groups, float_to_half(0.01f));
  const std::vector<uint8_t> zeros(groups, static_cast<uint8_t>(1 << (bits - 1)));
  Case made{spec, runtime::AlignedBytes(packed_bytes(spec))};
  pack_linear(spec, codes.data(), scales.data(), zeros.data(), nullptr, made.packed.data());
  return made;
}

/// Activations of order one, but every 50th channel a hundred times larger: what small language models have.
std::vector<float> with_outliers(int64_t n, int64_t columns) {
  Random random(9);
  std::vector<float> x(static_cast<size_t>(n * columns));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(random.normal() * (i % 50 == 7 ? 100 : 1));
  return x;
}

double relative(const std::vector<float>& got, const std::vector<float>& want) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - static_cast<double>(want[i]), 2);
    norm += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(difference / norm);
}

TEST(ActivationSplit, TheTwoRowsSumToTheInput) {
  const Case weight = random_weight(4, 192, 64);
  const std::vector<float> x = with_outliers(3, 192);
  std::vector<float> halves(2 * x.size()), sum(x.size());
  runtime::split_activations(weight.spec, x.data(), 3, halves.data());
  runtime::join_pairs(halves.data(), nullptr, 3, 192, sum.data());
  EXPECT_EQ(sum, x);
  std::vector<float> bias(192, 2.0f);
  runtime::join_pairs(halves.data(), bias.data(), 3, 192, sum.data());
  EXPECT_EQ(sum[191 + 192], x[191 + 192] + 2.0f);
}

TEST(ActivationSplit, MakesEightBitProductsAHundredTimesFiner) {
  ThreadPool pool(1);
  for (const auto& [bits, columns, group] : {std::tuple{3, 192, 64}, {4, 160, 32}, {2, 256, 128}, {8, 200, 0}}) {
    const Case weight = random_weight(bits, columns, group);
    const int64_t n = 5, rows = weight.spec.rows;
    const std::vector<float> x = with_outliers(n, columns);
    std::vector<float> exact(static_cast<size_t>(n * rows)), plain(exact), pairs(2 * exact.size()), split(exact),
        halves(2 * x.size());
    linear(weight.spec, weight.packed.data(), x.data(), columns, n, exact.data(), rows, nullptr, Arithmetic::exact, pool);
    linear(weight.spec, weight.packed.data(), x.data(), columns, n, plain.data(), rows, nullptr, Arithmetic::fast, pool);
    runtime::split_activations(weight.spec, x.data(), n, halves.data());
    linear(weight.spec, weight.packed.data(), halves.data(), columns, 2 * n, pairs.data(), rows, nullptr, Arithmetic::fast,
           pool);
    runtime::join_pairs(pairs.data(), nullptr, n, rows, split.data());
    EXPECT_LT(relative(split, exact), 1e-4) << bits << " bits";
    EXPECT_LT(relative(split, exact), relative(plain, exact) / 100) << bits << " bits";
  }
}

}  // namespace
}  // namespace lighten
