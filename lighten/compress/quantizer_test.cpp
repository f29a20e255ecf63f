#include "lighten/compress/quantizer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/compress/accounting.h"
#include "lighten/compress/clip.h"
#include "lighten/compress/rtn.h"

namespace lighten {
namespace {

torch::Tensor random_matrix(int64_t rows, int64_t columns, uint64_t seed, double shift = 0) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  for (float& v : values) v = static_cast<float>(random.normal() + shift);
  return torch::tensor(values).reshape({rows, columns});
}

/// The formulas of the card in double, except that the scale is rounded to binary16 first.
double reference_value(double w, double low, double high, int bits, ZeroKind zero) {
  const double last = (1 << bits) - 1;
  const auto half = [](double v) { return static_cast<double>(round_to_half(static_cast<float>(v))); };
  if (zero == ZeroKind::symmetric) {
    const double s = half(static_cast<double>(std::max(static_cast<float>(std::max(-low, high)), 1e-5f) /
                                              static_cast<float>((1 << (bits - 1)) - 1)));
    const double z = 1 << (bits - 1);
    return s * (std::min(std::max(std::nearbyint(w / s) + z, 0.0), last) - z);
  }
  if (zero == ZeroKind::minimum) {
    const double m = half(low);
    const double s = half(std::max(static_cast<float>(high) - static_cast<float>(low), 1e-5f) / static_cast<float>(last));
    return s * std::min(std::max(std::nearbyint((w - m) / s), 0.0), last) + m;
  }
  low = std::min(low, 0.0), high = std::max(high, 0.0);
  const double s = half(std::max(static_cast<float>(high) - static_cast<float>(low), 1e-5f) / static_cast<float>(last));
  const double z = std::min(std::max(std::nearbyint(-low / s), 0.0), last);
  return s * (std::min(std::max(std::nearbyint(w / s) + z, 0.0), last) - z);
}

TEST(Quantizer, FollowsTheFormulasForEveryZeroKindBitsAndAxis) {
  const torch::Tensor w = random_matrix(6, 96, 1, 0.3);
  for (const ZeroKind zero : {ZeroKind::integer, ZeroKind::minimum, ZeroKind::symmetric})
    for (const int bits : {2, 3, 4, 8})
      for (const int64_t size : {int64_t{32}, int64_t{0}})
        for (const GroupAxis axis : {GroupAxis::input, GroupAxis::output}) {
          QuantTensor tensor = quantize_groups(w, {bits, axis == GroupAxis::input ? size : size / 16, zero}, axis);
          check(tensor, "test");
          const torch::Tensor got = dequantized(tensor);
          const torch::Tensor lines = axis == GroupAxis::input ? w : w.t(),
                              got_lines = axis == GroupAxis::input ? got : got.t();
          const int64_t step = tensor.group_size == 0 ? lines.size(1) : tensor.group_size;
          for (int64_t r = 0; r < lines.size(0); ++r)
            for (int64_t first = 0; first < lines.size(1); first += step) {
              const int64_t end = std::min(first + step, lines.size(1));
              const torch::Tensor group = lines[r].slice(0, first, end);
              const double low = group.min().item<double>(), high = group.max().item<double>();
              for (int64_t j = first; j < end; ++j)
                ASSERT_NEAR(got_lines[r][j].item<double>(), reference_value(lines[r][j].item<double>(), low, high, bits, zero),
                            1e-6)
                    << "bits " << bits << " zero " << static_cast<int>(zero) << " row " << r << " column " << j;
            }
        }
}

TEST(Quantizer, EveryWeightInsideTheRangeIsWithinHalfAStep) {
  const torch::Tensor w = random_matrix(8, 128, 2);
  for (const ZeroKind zero : {ZeroKind::integer, ZeroKind::minimum}) {
    const QuantTensor tensor = quantize_groups(w, {4, 64, zero});
    const torch::Tensor error = (dequantized(tensor) - w).abs();
    for (int64_t r = 0; r < 8; ++r)
      for (int64_t g = 0; g < 2; ++g) {
        const double s = half_to_float(tensor.scales[static_cast<size_t>(r * 2 + g)]);
        // Half a step, half a step more at the ends for the rounded zero point, and binary16's rounding of 15 steps.
        const double bound = zero == ZeroKind::integer ? 1.0 * s : 0.5 * s * 1.03;
        EXPECT_LE(error[r].slice(0, g * 64, g * 64 + 64).max().item<double>(), bound * 1.001);
      }
  }
}

TEST(Quantizer, FakeQuantizeEqualsDequantizedCodes) {
  const torch::Tensor w = random_matrix(33, 192, 3);
  for (const ZeroKind zero : {ZeroKind::integer, ZeroKind::minimum, ZeroKind::symmetric})
    for (const GroupAxis axis : {GroupAxis::input, GroupAxis::output}) {
      const GridOptions grid{3, 64, zero};
      EXPECT_TRUE(torch::equal(fake_quantize(w, grid, axis), dequantized(quantize_groups(w, grid, axis))));
    }
}

TEST(Quantizer, ConstantZeroAndOneSidedGroupsStayFinite) {
  torch::Tensor w = torch::zeros({3, 32});
  w[1].fill_(0.5);
  w[2].fill_(-2.0);
  for (const ZeroKind zero : {ZeroKind::integer, ZeroKind::minimum, ZeroKind::symmetric}) {
    const torch::Tensor got = dequantized(quantize_groups(w, {2, 32, zero}));
    EXPECT_TRUE(torch::allclose(got, w, 0, 2e-3)) << static_cast<int>(zero) << "\n" << got.slice(1, 0, 1);
  }
}

TEST(Quantizer, RefusesScalesThatDoNotFitBinary16) {
  const torch::Tensor w = torch::full({1, 32}, 1e9);
  EXPECT_THROW(quantize_groups(w, {4, 32, ZeroKind::integer}), ModelError);
}

/// Loss of a grid with std::pow in double.
double exact_loss(const torch::Tensor& w, const GroupGrid& g, const std::vector<double>& h, double norm) {
  double sum = 0;
  for (int64_t j = 0; j < w.numel(); ++j) {
    const float x = w[j].item<float>();
    sum += h[static_cast<size_t>(j)] * std::pow(std::fabs(static_cast<double>(x) - g.value(g.code(x))), norm);
  }
  return sum;
}

TEST(Quantizer, RangeSearchReachesTheBestOfAllShrinkFactors) {
  Random random(4);
  for (const double norm : {2.0, 2.4})
    for (int trial = 0; trial < 20; ++trial) {
      torch::Tensor w = random_matrix(1, 64, 100 + static_cast<uint64_t>(trial))[0];
      w[5] *= 4;
      std::vector<double> h(64);
      std::vector<float> importance(64);
      for (size_t j = 0; j < 64; ++j) importance[j] = static_cast<float>(h[j] = trial % 2 ? 1.0 : std::exp(random.normal()));
      const GridOptions grid{3, 64, ZeroKind::integer};
      const GroupGrid found =
          fit_group(w.const_data_ptr<float>(), 64, grid, {.steps = 100, .max_shrink = 0.8, .norm = norm}, importance.data());
      double best = INFINITY;
      for (int i = 0; i < 80; ++i) {
        const float factor = 1.0f - static_cast<float>(i) / 100.0f;
        best = std::min(
            best, exact_loss(w, fit_grid(w.min().item<float>() * factor, w.max().item<float>() * factor, 3, ZeroKind::integer),
                             h, norm));
      }
      const double reached = exact_loss(w, found, h, norm);
      EXPECT_LE(reached, best * 1.0005);
      EXPECT_LT(reached, exact_loss(w, fit_group(w.const_data_ptr<float>(), 64, grid), h, norm));
    }
}

TEST(Clip, FindsTheLimitThatADirectLoopFinds) {
  const int64_t rows = 5, inputs = 64, size = 32, tokens = 40;
  torch::Tensor w = random_matrix(rows, inputs, 7);
  w.select(1, 3).mul_(4);
  w.select(1, 40).mul_(5);
  const torch::Tensor x = random_matrix(tokens, inputs, 8);
  const GridOptions grid{3, size, ZeroKind::integer};
  const torch::Tensor limits = search_clip(w, x.reshape({2, 20, inputs}), grid);
  int clipped = 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t g = 0; g < inputs / size; ++g) {
      const torch::Tensor group = w[r].slice(0, g * size, g * size + size), xg = x.slice(1, g * size, g * size + size);
      const double largest = group.abs().max().item<double>();
      double best = INFINITY, best_limit = 0;
      for (int i = 0; i < 10; ++i) {
        const double limit = largest * (1 - i / 20.0);
        const torch::Tensor q = dequantized(quantize_groups(group.clamp(-limit, limit).unsqueeze(0), grid));
        const double loss = xg.mv(group).sub(xg.mv(q[0])).square().sum().item<double>();
        if (loss < best) best = loss, best_limit = limit;
      }
      EXPECT_NEAR(limits[r][g].item<double>(), best_limit, 1e-5) << r << " " << g;
      clipped += best_limit < largest;
    }
  EXPECT_GE(clipped, 3);  // the columns made large are worth clipping somewhere, else this test shows nothing
  torch::Tensor clamped = w.clone();
  apply_clip(clamped, limits, grid);
  EXPECT_TRUE(torch::equal(clamped.reshape({rows, 2, size}).abs().amax(-1), limits));
}

TEST(Accounting, CountsEveryBitOfAScalarGroupTensor) {
  BitAccount account;
  account.add(quantize_groups(random_matrix(10, 128, 9), {4, 64, ZeroKind::integer}));
  EXPECT_DOUBLE_EQ(account.effective_bits(), 4 + (16 + 4) / 64.0);
  BitAccount minimum;
  minimum.add(quantize_groups(random_matrix(10, 128, 9), {3, 32, ZeroKind::minimum}));
  EXPECT_DOUBLE_EQ(minimum.effective_bits(), 3 + (16 + 16) / 32.0);
  BitAccount outputs;
  outputs.add(quantize_groups(random_matrix(10, 128, 9), {2, 4, ZeroKind::integer}, GroupAxis::output));
  EXPECT_DOUBLE_EQ(outputs.effective_bits(), 2 + 3 * (16 + 2) / 10.0);  // ceil(10 / 4) = 3 groups a column: padding is paid for
  outputs.add_float(1280, 16);
  EXPECT_EQ(outputs.weights, 2560u);
}

}  // namespace
}  // namespace lighten
