#include "lighten/kernels/linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/kernels/blob_test.h"
#include "lighten/kernels/cpu.h"
#include "lighten/kernels/isa_fixture.h"
#include "lighten/kernels/kernel_table.h"

namespace lighten {
namespace {

using test::Blob;

/// A random weight, its parts and what they mean in double.
struct Weight {
  LinearSpec spec;
  std::vector<uint8_t> codes, zero_points;
  std::vector<Half> scales, minimums;
  std::vector<float> floats;  // bits 16 and 32
  std::vector<int8_t> levels;
  Blob packed{0};

  int64_t planes() const { return spec.planes; }
  int64_t groups() const { return spec.group_size == 0 ? 1 : spec.columns / spec.group_size; }
  size_t group_at(int64_t plane, int64_t r, int64_t c) const {
    return static_cast<size_t>((plane * spec.rows + r) * groups() + (spec.group_size == 0 ? 0 : c / spec.group_size));
  }
  double plane_offset(int64_t plane, int64_t r, int64_t c) const {
    const size_t at = group_at(plane, r, c);
    if (spec.zero == PackedZero::minimum) return half_to_float(minimums[at]);
    if (spec.codes == PackedCodes::levels) return 0;
    const int symmetric = spec.codes == PackedCodes::trits ? 1 : 1 << (spec.bits - 1);
    const int zero = spec.zero == PackedZero::integer ? zero_points[at] : symmetric;
    return -static_cast<double>(half_to_float(scales[at])) * zero;
  }
  double offset(int64_t r, int64_t c) const {
    double sum = 0;
    for (int64_t plane = 0; plane < planes(); ++plane) sum += plane_offset(plane, r, c);
    return sum;
  }
  double value(int64_t r, int64_t c) const {
    const auto at = static_cast<size_t>(r * spec.columns + c);
    if (spec.bits == 32) return floats[at];
    if (spec.bits == 16) {
      return spec.bfloat ? bfloat16_to_float(float_to_bfloat16(floats[at])) : round_to_half(floats[at]);
    }
    double sum = 0;
    for (int64_t plane = 0; plane < planes(); ++plane) {
      const uint8_t code = codes[static_cast<size_t>(plane * spec.rows * spec.columns) + at];
      const int q = spec.codes == PackedCodes::levels ? levels[code] : code;
      sum += static_cast<double>(half_to_float(scales[group_at(plane, r, c)])) * q + plane_offset(plane, r, c);
    }
    return sum;
  }
};

Weight random_weight(const LinearSpec& spec, Random& random) {
  Weight w{.spec = spec, .codes = {}, .zero_points = {}, .scales = {}, .minimums = {}, .floats = {}, .levels = {}};
  const auto n = static_cast<size_t>(spec.planes * spec.rows * spec.columns);
  w.packed = Blob(packed_bytes(spec));
  if (spec.bits > 8) {
    for (size_t i = 0; i < n; ++i) w.floats.push_back(static_cast<float>(random.uniform() * 2 - 1));
    pack_float(spec, w.floats.data(), w.packed.data());
    return w;
  }
  const uint64_t levels = spec.codes == PackedCodes::trits ? 3 : uint64_t{1} << spec.bits;
  for (size_t i = 0; i < n; ++i) w.codes.push_back(static_cast<uint8_t>(random.below(levels)));
  if (spec.codes == PackedCodes::levels)
    for (uint64_t i = 0; i < levels; ++i) w.levels.push_back(static_cast<int8_t>(static_cast<int>(random.below(255)) - 127));
  for (int64_t i = 0; i < spec.planes * spec.rows * w.groups(); ++i) {
    w.scales.push_back(float_to_half(static_cast<float>(0.01 + random.uniform() * 0.05)));
    w.zero_points.push_back(static_cast<uint8_t>(random.below(levels)));
    w.minimums.push_back(float_to_half(static_cast<float>(random.uniform() * -0.2)));
  }
  pack_linear(spec, w.codes.data(), w.scales.data(), w.zero_points.data(), w.minimums.data(), w.packed.data(),
              w.levels.empty() ? nullptr : w.levels.data());
  return w;
}

const int kBits[] = {1, 2, 3, 4, 8};
const PackedZero kZeros[] = {PackedZero::symmetric, PackedZero::integer, PackedZero::minimum};
const int64_t kGroups[] = {0, 32, 64, 96, 128};
const int64_t kTokens[] = {1, 2, 3, 4, 5, 7, 13, 17, 64, 70};

LinearSpec random_spec(Random& random) {
  LinearSpec spec;
  spec.bits = kBits[random.below(5)];
  spec.zero = kZeros[random.below(3)];
  if (const uint64_t kind = random.below(4); kind == 0 && spec.bits >= 2 && spec.bits <= 4) {
    spec.codes = spec.bits == 2 && random.below(2) ? PackedCodes::trits : PackedCodes::levels;
    spec.zero = PackedZero::symmetric;
  }
  if (spec.bits == 1) spec.planes = 1 + static_cast<int>(random.below(3));
  spec.group_size = kGroups[random.below(5)];
  spec.rows = 1 + static_cast<int64_t>(random.below(50));
  spec.columns = spec.group_size == 0 ? 1 + static_cast<int64_t>(random.below(300))
                                      : spec.group_size * (1 + static_cast<int64_t>(random.below(3)));
  if (random.below(40) == 0)
    spec.columns = spec.group_size == 0 ? 1301 : spec.group_size * 17;  // longer than one expanded piece
  return spec;
}

LinearSpec random_float_spec(Random& random) {
  LinearSpec spec;
  spec.bits = random.below(2) ? 16 : 32;
  spec.bfloat = random.below(2) == 1;
  spec.rows = 1 + static_cast<int64_t>(random.below(50));
  spec.columns = 1 + static_cast<int64_t>(random.below(random.below(20) ? 150 : 700));
  return spec;
}

struct Activations {
  int64_t tokens, columns, stride;
  std::vector<float> x;
  const float* row(int64_t t) const { return x.data() + t * stride; }
};

Activations random_activations(int64_t tokens, int64_t columns, Random& random) {
  Activations a{tokens, columns, columns + static_cast<int64_t>(random.below(5)), {}};
  for (int64_t i = 0; i < tokens * a.stride; ++i)
    a.x.push_back(static_cast<float>((random.uniform() * 2 - 1) * (random.below(50) ? 1.0 : 20.0)));
  return a;
}

/// The activations as the fast kernels must see them, from the definition: 127 steps up to the largest of a block of 32 or 64
/// columns, and 256 times finer ones where the codes use less than an eighth of them on average.
std::vector<double> rounded(const Activations& a, const LinearSpec& spec) {
  std::vector<double> out;
  const int64_t block = spec.group_size % 64 == 0 ? 64 : 32;  // per channel: 64, the last filled up with zeros
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int64_t begin = 0; begin < a.columns; begin += block) {
      const int64_t end = std::min(begin + block, a.columns);
      float largest = 0;
      for (int64_t c = begin; c < end; ++c) largest = std::max(largest, std::fabs(a.row(t)[c]));
      const float inverse = largest > 0 ? 127.0f / largest : 0;
      double magnitudes = 0;
      for (int64_t c = begin; c < end; ++c) magnitudes += std::fabs(std::nearbyintf(a.row(t)[c] * inverse));
      const bool fine = magnitudes / static_cast<double>(block) < 127.0 / 8;
      for (int64_t c = begin; c < end; ++c) {
        const double code = std::nearbyintf(a.row(t)[c] * inverse);
        const float rest = std::fma(a.row(t)[c], inverse, -static_cast<float>(code)) * 256;
        const double fine_code = std::clamp(std::nearbyintf(rest), -127.0f, 127.0f);
        out.push_back(spec.bits == 16 ? bfloat16_to_float(float_to_bfloat16(a.row(t)[c]))
                                      : static_cast<double>(largest / 127.0f) * (code + (fine ? fine_code / 256 : 0)));
      }
    }
  }
  return out;
}

/// Runs linear() and compares with sums in double of `x` [tokens, columns]; allowed: 1e-6 of the sum of the magnitudes of all
/// terms.
void expect_products(Weight& w, const Activations& a, const std::vector<double>& x, Arithmetic arithmetic, ThreadPool& pool) {
  const int64_t y_stride = w.spec.rows + 3;
  const float untouched = -12345.0f;
  std::vector<float> y(static_cast<size_t>(a.tokens * y_stride), untouched), bias;
  for (int64_t r = 0; r < w.spec.rows; ++r) bias.push_back(static_cast<float>(r % 7) - 3);
  const bool with_bias = w.spec.rows % 2 == 0;
  linear(w.spec, w.packed.data(), a.x.data(), a.stride, a.tokens, y.data(), y_stride, with_bias ? bias.data() : nullptr,
         arithmetic, pool);
  for (int64_t r = 0; r < w.spec.rows; ++r) {
    std::vector<double> value, magnitude;
    for (int64_t c = 0; c < w.spec.columns; ++c) {
      value.push_back(w.value(r, c));
      // Codes and offset are multiplied apart, so both are terms.
      magnitude.push_back(w.spec.bits > 8 || arithmetic == Arithmetic::exact
                              ? std::fabs(value.back())
                              : std::fabs(value.back() - w.offset(r, c)) + std::fabs(w.offset(r, c)));
    }
    for (int64_t t = 0; t < a.tokens; ++t) {
      double sum = with_bias ? bias[static_cast<size_t>(r)] : 0, terms = std::fabs(sum);
      for (int64_t c = 0; c < w.spec.columns; ++c) {
        const double xc = x[static_cast<size_t>(t * a.columns + c)];
        sum += value[static_cast<size_t>(c)] * xc;
        terms += magnitude[static_cast<size_t>(c)] * std::fabs(xc);
      }
      ASSERT_NEAR(y[static_cast<size_t>(t * y_stride + r)], sum, 1e-6 * terms)
          << isa_name(current_isa()) << " bits " << w.spec.bits << " zero " << static_cast<int>(w.spec.zero) << " group "
          << w.spec.group_size << " rows " << w.spec.rows << " columns " << w.spec.columns << " tokens " << a.tokens
          << " at token " << t << " row " << r;
    }
  }
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int64_t r = w.spec.rows; r < y_stride; ++r) ASSERT_EQ(y[static_cast<size_t>(t * y_stride + r)], untouched);
  }
}

class Linear : public ForEachIsa {};
INSTANTIATE_TEST_SUITE_P(Cpu, Linear, testing::ValuesIn(available_isas()), name_of_isa);

TEST_P(Linear, LowBitProductsMatchDoubleSumsOverRoundedActivations) {
  Random random(1);
  ThreadPool pool(2);
  for (int i = 0; i < 1200; ++i) {
    Weight w = random_weight(random_spec(random), random);
    const Activations a = random_activations(kTokens[random.below(10)], w.spec.columns, random);
    expect_products(w, a, rounded(a, w.spec), Arithmetic::adaptive, pool);
    if (HasFatalFailure()) return;
  }
}

TEST_P(Linear, ExactLowBitProductsMatchDoubleSums) {
  Random random(2);
  ThreadPool pool(2);
  for (int i = 0; i < 800; ++i) {
    Weight w = random_weight(random_spec(random), random);
    const Activations a = random_activations(kTokens[random.below(10)], w.spec.columns, random);
    std::vector<double> x;
    for (int64_t t = 0; t < a.tokens; ++t) x.insert(x.end(), a.row(t), a.row(t) + a.columns);
    expect_products(w, a, x, Arithmetic::exact, pool);
    if (HasFatalFailure()) return;
  }
}

TEST_P(Linear, FloatProductsMatchDoubleSums) {
  Random random(3);
  ThreadPool pool(2);
  for (int i = 0; i < 800; ++i) {
    Weight w = random_weight(random_float_spec(random), random);
    const Activations a = random_activations(kTokens[random.below(10)], w.spec.columns, random);
    std::vector<double> x;
    for (int64_t t = 0; t < a.tokens; ++t) x.insert(x.end(), a.row(t), a.row(t) + a.columns);
    expect_products(w, a, x, Arithmetic::exact, pool);
    const bool rounds = w.spec.bits == 16 && w.spec.bfloat;
    expect_products(w, a, rounds ? rounded(a, w.spec) : x, Arithmetic::adaptive, pool);
    if (HasFatalFailure()) return;
  }
}

TEST_P(Linear, ASecondByteKeepsTheNeighboursOfOutliers) {
  // Every 50th channel a hundred times larger, as in small language models: eight bits alone would be off by 1 % and more.
  Random random(11);
  ThreadPool pool(1);
  for (const auto& [bits, columns, group] : {std::tuple{3, 192, 64}, {4, 160, 32}, {2, 256, 128}, {8, 200, 0}}) {
    const LinearSpec spec{.bits = bits, .rows = 48, .columns = columns, .group_size = group};
    Weight w = random_weight(spec, random);
    Activations a{.tokens = 5, .columns = columns, .stride = columns, .x = {}};
    for (int64_t i = 0; i < 5 * columns; ++i) a.x.push_back(static_cast<float>(random.normal() * (i % 50 == 7 ? 100 : 1)));
    std::vector<float> exact(size_t{5} * 48), fast(exact);
    linear(spec, w.packed.data(), a.x.data(), columns, 5, exact.data(), 48, nullptr, Arithmetic::exact, pool);
    linear(spec, w.packed.data(), a.x.data(), columns, 5, fast.data(), 48, nullptr, Arithmetic::adaptive, pool);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      difference += std::pow(static_cast<double>(fast[i]) - static_cast<double>(exact[i]), 2);
      norm += std::pow(static_cast<double>(exact[i]), 2);
    }
    EXPECT_LT(std::sqrt(difference / norm), 1e-3) << bits << " bits";
  }
}

TEST_P(Linear, NotANumberInTheInputReachesEveryOutputOfItsToken) {
  Random random(6);
  ThreadPool pool(1);
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Weight w = random_weight({.bits = 4, .zero = PackedZero::integer, .rows = 20, .columns = 128, .group_size = 64}, random);
    Activations a = random_activations(2, 128, random);
    a.x[static_cast<size_t>(a.stride + 70)] = poison;
    std::vector<float> y(40);
    linear(w.spec, w.packed.data(), a.x.data(), a.stride, 2, y.data(), 20, nullptr, Arithmetic::adaptive, pool);
    for (size_t r = 0; r < 20; ++r) {
      EXPECT_TRUE(std::isfinite(y[r]));
      EXPECT_FALSE(std::isfinite(y[20 + r]));
    }
  }
}

TEST_P(Linear, ResultsDoNotDependOnThreadsNorOnTheCompanyOfOtherTokens) {
  Random random(7);
  ThreadPool one(1), three(3);
  for (const int bits : {3, 8, 16, 32}) {
    LinearSpec spec{.bits = bits, .bfloat = true, .rows = 333, .columns = 576, .group_size = bits <= 8 ? 64 : 0};
    Weight w = random_weight(spec, random);
    const Activations a = random_activations(600, 576, random);
    for (const auto arithmetic : {Arithmetic::adaptive, Arithmetic::exact}) {
      const auto n = static_cast<size_t>(600 * 333);
      std::vector<float> y1(n), y3(n), shared(n);
      linear(w.spec, w.packed.data(), a.x.data(), a.stride, 600, y1.data(), 333, nullptr, arithmetic, one);
      linear(w.spec, w.packed.data(), a.x.data(), a.stride, 600, y3.data(), 333, nullptr, arithmetic, three);
      ASSERT_EQ(std::memcmp(y1.data(), y3.data(), n * sizeof(float)), 0) << bits;
      if (bits > 8 || arithmetic == Arithmetic::exact) continue;
      // The int8 path sums blocks in one order, so a token alone gives the same bits as in a batch.
      linear(w.spec, w.packed.data(), a.row(517), a.stride, 1, shared.data(), 333, nullptr, arithmetic, three);
      ASSERT_EQ(std::memcmp(shared.data(), y1.data() + 517 * 333, 333 * sizeof(float)), 0) << bits;
    }
  }
}

TEST_P(Linear, TasksThatShareTheirInputGiveTheSameBitsAsOneByOne) {
  Random random(8);
  ThreadPool pool(2);
  const LinearSpec specs[] = {{.bits = 3, .rows = 40, .columns = 192, .group_size = 64},
                              {.bits = 4, .rows = 7, .columns = 192, .group_size = 32},
                              {.bits = 8, .rows = 33, .columns = 192, .group_size = 0},
                              {.bits = 16, .rows = 21, .columns = 192},
                              {.bits = 16, .bfloat = true, .rows = 5, .columns = 192}};
  for (const int64_t tokens : {1, 9}) {
    const Activations a = random_activations(tokens, 192, random);
    std::vector<Weight> weights;
    for (const LinearSpec& spec : specs) weights.push_back(random_weight(spec, random));
    std::vector<std::vector<float>> together, alone;
    std::vector<LinearTask> tasks;
    for (const LinearSpec& spec : specs) {
      together.emplace_back(static_cast<size_t>(tokens * spec.rows));
      alone.emplace_back(static_cast<size_t>(tokens * spec.rows));
    }
    for (size_t i = 0; i < weights.size(); ++i) {
      tasks.push_back({specs[i], weights[i].packed.data(), together[i].data(), specs[i].rows, nullptr});
      linear(specs[i], weights[i].packed.data(), a.x.data(), a.stride, tokens, alone[i].data(), specs[i].rows, nullptr,
             Arithmetic::adaptive, pool);
    }
    linear(tasks, {.x = a.x.data(), .stride = a.stride}, tokens, Arithmetic::adaptive, pool);
    EXPECT_EQ(together, alone);
  }
}

TEST_P(Linear, NormsAndResidualsThatAreTakenAlongGiveTheSameBits) {
  Random random(12);
  ThreadPool pool(2);
  for (const LinearSpec& spec : {LinearSpec{.bits = 4, .rows = 37, .columns = 192, .group_size = 64},
                                 LinearSpec{.bits = 8, .rows = 32, .columns = 200, .group_size = 0},
                                 LinearSpec{.bits = 16, .rows = 21, .columns = 192}}) {
    Weight w = random_weight(spec, random);
    for (const int64_t tokens : {1, 13}) {
      const Activations a = random_activations(tokens, spec.columns, random);
      std::vector<float> norm, bias, normalized(static_cast<size_t>(tokens * spec.columns));
      for (int64_t i = 0; i < spec.columns; ++i) norm.push_back(static_cast<float>(random.uniform() + 0.5));
      for (int64_t i = 0; i < spec.rows; ++i) bias.push_back(static_cast<float>(random.normal()));
      for (int64_t t = 0; t < tokens; ++t)
        rms_norm(a.row(t), norm.data(), 1e-5f, 1, spec.columns, normalized.data() + t * spec.columns);
      std::vector<float> apart(static_cast<size_t>(tokens * spec.rows)), together;
      for (float& v : apart) v = static_cast<float>(random.normal());
      together = apart;
      std::vector<float> product(apart.size());
      linear(spec, w.packed.data(), normalized.data(), spec.columns, tokens, product.data(), spec.rows, bias.data(),
             Arithmetic::adaptive, pool);
      for (size_t i = 0; i < apart.size(); ++i) apart[i] += product[i];
      const LinearTask task{spec, w.packed.data(), together.data(), spec.rows, bias.data(), true};
      linear(std::span(&task, 1), {.x = a.x.data(), .stride = a.stride, .norm = norm.data(), .epsilon = 1e-5f}, tokens,
             Arithmetic::adaptive, pool);
      EXPECT_EQ(together, apart) << spec.bits << " bits, " << tokens << " tokens";
    }
  }
}

TEST(Pack, UnpackIsTheExactInverseAndRowsMeanWhatTheFormulaSays) {
  Random random(9);
  for (int i = 0; i < 1500; ++i) {
    Weight w = random_weight(random_spec(random), random);
    ASSERT_EQ(w.packed.size() % 64, 0u);
    std::vector<uint8_t> codes(w.codes.size()), zero_points(w.zero_points.size());
    std::vector<Half> scales(w.scales.size()), minimums(w.minimums.size());
    std::vector<int8_t> levels(w.levels.size());
    unpack_linear(w.spec, w.packed.data(), codes.data(), scales.data(), zero_points.data(), minimums.data(), levels.data());
    ASSERT_EQ(codes, w.codes);
    ASSERT_EQ(levels, w.levels);
    ASSERT_EQ(scales, w.scales);
    if (w.spec.zero == PackedZero::integer) {
      ASSERT_EQ(zero_points, w.zero_points);
    }
    if (w.spec.zero == PackedZero::minimum) {
      ASSERT_EQ(minimums, w.minimums);
    }
    unpack_linear(w.spec, w.packed.data(), nullptr, nullptr, nullptr, nullptr);
    std::vector<float> row(static_cast<size_t>(w.spec.columns));
    const auto r = static_cast<int64_t>(random.below(static_cast<uint64_t>(w.spec.rows)));
    unpack_row(w.spec, w.packed.data(), r, row.data());
    for (int64_t c = 0; c < w.spec.columns; ++c) {
      ASSERT_EQ(row[static_cast<size_t>(c)], static_cast<float>(w.value(r, c)));  // the double is exact before its one rounding
    }
  }
  for (int i = 0; i < 300; ++i) {
    Weight w = random_weight(random_float_spec(random), random);
    ASSERT_EQ(w.packed.size() % 64, 0u);
    std::vector<float> row(static_cast<size_t>(w.spec.columns));
    for (int64_t r = 0; r < w.spec.rows; ++r) {
      unpack_row(w.spec, w.packed.data(), r, row.data());
      for (int64_t c = 0; c < w.spec.columns; ++c) ASSERT_EQ(row[static_cast<size_t>(c)], static_cast<float>(w.value(r, c)));
    }
  }
}

TEST_P(Linear, DequantizedTilesEqualUnpackedRowsBitForBit) {
  Random random(10);
  for (int i = 0; i < 600; ++i) {
    LinearSpec spec = i % 4 == 3 ? random_float_spec(random) : random_spec(random);
    spec.planes = 1;  // a tile is one of one plane
    Weight w = random_weight(spec, random);
    if (w.spec.bits == 32) continue;
    const kernels::Layout l = kernels::layout_of(w.spec);
    std::vector<float> row(static_cast<size_t>(w.spec.columns)), tile(static_cast<size_t>((w.spec.columns + 3) / 4 * 4 * 16));
    for (int64_t t = 0; t < l.tiles; ++t) {
      const auto* at = reinterpret_cast<const uint8_t*>(w.packed.data()) + static_cast<size_t>(t) * l.tile_bytes;
      kernels::table().dequantize(l, at, 0, w.spec.columns, tile.data());
      for (int64_t r = t * 16; r < std::min(w.spec.rows, t * 16 + 16); ++r) {
        unpack_row(w.spec, w.packed.data(), r, row.data());
        for (int64_t c = 0; c < w.spec.columns; ++c)
          ASSERT_EQ(row[static_cast<size_t>(c)], tile[static_cast<size_t>(c * 16 + r % 16)]);
      }
    }
  }
}

TEST(Pack, SmolLm2AtThreeBitsWithAFourBitHeadFitsIn61Megabytes) {
  const auto bytes = [](int64_t rows, int64_t columns, int bits) {
    return packed_bytes({.bits = bits, .zero = PackedZero::integer, .rows = rows, .columns = columns, .group_size = 64});
  };
  const size_t block = 2 * bytes(576, 576, 3) + 2 * bytes(192, 576, 3) + 2 * bytes(1536, 576, 3) + bytes(576, 1536, 3);
  const size_t all = 30 * block + bytes(49152, 576, 4);
  EXPECT_LT(all, 61'000'000u);
  // Dense bits of codes, scales and zero points, and less than 1 % for padding.
  const double dense = 30.0 * 3538944 * (3 + 19.0 / 64) / 8 + 49152.0 * 576 * (4 + 20.0 / 64) / 8;
  EXPECT_LT(static_cast<double>(all), dense * 1.01);
}

TEST(Pack, TritsTakeLessThanSeventeenTenthsOfABit) {
  const LinearSpec spec{
      .bits = 2, .zero = PackedZero::symmetric, .rows = 2048, .columns = 8192, .group_size = 0, .codes = PackedCodes::trits};
  EXPECT_LT(static_cast<double>(packed_bytes(spec)) * 8 / (2048.0 * 8192), 1.61);
  uint8_t trits[5];
  for (int v = 0; v < 243; ++v) {
    for (int i = 4, left = v; i >= 0; --i, left /= 3) trits[i] = static_cast<uint8_t>(left % 3);
    for (int i = 0; i < 5; ++i) ASSERT_EQ(kernels::read_trit(kernels::trit_byte(trits), i), trits[i]) << v;
  }
}

TEST(Check, RefusesWhatNoKernelRunsAndNamesTheNumbers) {
  const LinearSpec good{.bits = 4, .rows = 8, .columns = 128, .group_size = 64};
  EXPECT_NO_THROW(check(good));
  const auto refused = [&](auto change, const std::string& word) {
    LinearSpec spec = good;
    change(spec);
    try {
      check(spec);
      ADD_FAILURE() << "accepted; expected a message with " << word;
    } catch (const ModelError& e) {
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
    }
  };
  refused([](LinearSpec& s) { s.bits = 5; }, "5 bits");
  refused([](LinearSpec& s) { s.group_size = 48; }, "48");
  refused([](LinearSpec& s) { s.columns = 100; }, "100");
  refused([](LinearSpec& s) { s.group_size = -32; }, "-32");
  refused([](LinearSpec& s) { s.rows = 0; }, "0 x 128");
  refused([](LinearSpec& s) { s.rows = std::numeric_limits<int64_t>::max(); }, "9223372036854775807");
  refused([](LinearSpec& s) { s.zero = static_cast<PackedZero>(7); }, "7");
  refused([](LinearSpec& s) { s.codes = PackedCodes::trits; }, "4 bits");
  refused([](LinearSpec& s) { s.codes = static_cast<PackedCodes>(9); }, "9");
  refused([](LinearSpec& s) { s.codes = PackedCodes::levels; }, "no zero points");
  refused([](LinearSpec& s) { s.planes = 2; }, "2 planes of 4 bits");
}

TEST(Cpu, RefusesAnIsaThatTheMachineLacks) {
  EXPECT_EQ(available_isas().front(), Isa::scalar);
  EXPECT_EQ(current_isa(), available_isas().back());
#if defined(__x86_64__)
  EXPECT_THROW(set_isa(Isa::neon), OptionError);
#endif
}

}  // namespace
}  // namespace lighten
