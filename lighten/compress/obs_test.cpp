#include "lighten/compress/obs.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/compress/gptq.h"

namespace lighten {
namespace {

torch::Tensor random_matrix(int64_t rows, int64_t columns, uint64_t seed) {
  Random random(seed);
  std::vector<double> values(static_cast<size_t>(rows * columns));
  for (double& v : values) v = random.normal();
  return torch::tensor(values, torch::kDouble).reshape({rows, columns});
}

/// Correlated inputs, so that compensation matters.
torch::Tensor correlated_inputs(int64_t tokens, int64_t inputs, uint64_t seed) {
  return random_matrix(tokens, inputs, seed).mm(random_matrix(inputs, inputs, seed + 1)) * 0.3 +
         random_matrix(tokens, inputs, seed + 2) * 0.5;
}

TEST(Hessian, EqualsTheDenseProductAcrossPanelsAndChunks) {
  const torch::Tensor x = random_matrix(70, 900, 1);
  HessianAccumulator sum(900);
  sum.add(x.slice(0, 0, 30).to(torch::kFloat).reshape({2, 15, 900}));
  sum.add(x.slice(0, 30).to(torch::kFloat));
  const torch::Tensor dense = x.t().mm(x) * (2.0 / 70);
  EXPECT_LT((sum.hessian() - dense).abs().max().item<double>(), 1e-5);
  EXPECT_TRUE(torch::equal(sum.hessian(), sum.hessian().t()));
}

TEST(Hessian, FactorIsTheUpperCholeskyFactorOfTheInverse) {
  const torch::Tensor x = correlated_inputs(200, 24, 3);
  const torch::Tensor h = x.t().mm(x) * (2.0 / 200);
  const HessianFactor factor = factor_hessian(h, {.damping = 0.01});
  torch::Tensor damped = h.clone();
  damped.diagonal().add_(0.01 * h.diagonal().mean());
  const torch::Tensor inverse = torch::linalg_inv(damped), u = factor.upper.to(torch::kDouble);
  EXPECT_LT((u.t().mm(u) - inverse).abs().max().item<double>() / inverse.abs().max().item<double>(), 1e-5);
  EXPECT_EQ(u.tril(-1).abs().max().item<double>(), 0.0);
}

TEST(Hessian, DeadChannelsAreMarkedAndSingularMatricesGetMoreDamping) {
  torch::Tensor x = random_matrix(4, 12, 5);  // rank 4
  x.select(1, 7).zero_();
  const HessianFactor factor = factor_hessian(x.t().mm(x), {.damping = 0});
  EXPECT_GT(factor.damping, 0);
  for (size_t j = 0; j < 12; ++j) EXPECT_EQ(factor.dead[j], j == 7);
  x[0][0] = std::nan("");
  EXPECT_THROW(factor_hessian(x.t().mm(x)), ModelError);
}

/// Exact greedy OBS in double: after each column is fixed, the columns that are left take the exact least-squares optimum of
/// || W X - Q X ||^2 (+ damping) given all that is fixed: delta_F = -H_FF^-1 H_FS delta_S, solved densely.
struct DenseGreedy {
  torch::Tensor weight, rounded;
  DenseGreedy(const torch::Tensor& original, const torch::Tensor& h, const std::vector<int64_t>& order,
              const std::function<torch::Tensor(int64_t position, const torch::Tensor& present)>& round)
      : weight(original.clone()), rounded(original.clone()) {
    const int64_t n = h.size(0);
    for (int64_t p = 0; p < n; ++p) {
      const int64_t column = order[static_cast<size_t>(p)];
      rounded.select(1, column).copy_(round(p, weight));
      weight.select(1, column).copy_(rounded.select(1, column));
      if (p + 1 == n) break;
      const torch::Tensor fixed = torch::tensor(std::vector<int64_t>(order.begin(), order.begin() + p + 1));
      const torch::Tensor open = torch::tensor(std::vector<int64_t>(order.begin() + p + 1, order.end()));
      const torch::Tensor delta = (rounded - original).index_select(1, fixed);  // [rows, fixed]
      const torch::Tensor hfo = h.index_select(0, fixed).index_select(1, open),
                          hoo = h.index_select(0, open).index_select(1, open);
      const torch::Tensor correction = torch::linalg_solve(hoo, delta.mm(hfo).t()).t();
      weight.index_copy_(1, open, original.index_select(1, open) - correction);
    }
  }
};

torch::Tensor damped_hessian(const torch::Tensor& h, double damping) {
  torch::Tensor d = h.clone();
  d.diagonal().add_(damping * h.diagonal().mean());
  return d;
}

/// A column quantizer with one fixed step, so that rounding decisions are easy to repeat.
class FixedStep : public ColumnQuantizer {
 public:
  void quantize(const ColumnSlice& slice, float* values) override {
    for (int64_t r = 0; r < slice.rows; ++r) values[r] = std::nearbyint(slice.ahead[r] / 0.5f) * 0.5f;
  }
};

TEST(ObsSweep, EqualsExactGreedyLeastSquaresForEveryBlockSizeAndOrder) {
  const torch::Tensor x = correlated_inputs(300, 20, 11), w = random_matrix(70, 20, 14);
  const torch::Tensor h = x.t().mm(x) * (2.0 / 300);
  for (const bool act_order : {false, true}) {
    const HessianFactor factor = factor_hessian(h, {.damping = 0.01, .act_order = act_order});
    const DenseGreedy dense(w, damped_hessian(h, 0.01), factor.order, [&](int64_t p, const torch::Tensor& present) {
      return (present.select(1, factor.order[static_cast<size_t>(p)]) / 0.5).round() * 0.5;
    });
    for (const int64_t block : {1, 3, 8, 128}) {
      torch::Tensor swept = w.to(torch::kFloat);
      FixedStep quantizer;
      obs_sweep(swept, factor, quantizer, block);
      EXPECT_TRUE(torch::equal(swept.to(torch::kDouble), dense.rounded)) << "block " << block << " act_order " << act_order;
    }
    EXPECT_FALSE(torch::equal((w / 0.5).round() * 0.5, dense.rounded));
  }
}

TEST(ObsSweep, DynamicGroupsSeeTheCompensatedWeights) {
  const int64_t size = 8, columns = 24;
  const torch::Tensor x = correlated_inputs(300, columns, 21), w = random_matrix(16, columns, 24);
  const torch::Tensor h = x.t().mm(x) * (2.0 / 300);
  const GridOptions grid{3, size, ZeroKind::minimum};
  QuantTensor grids = empty_quant_tensor(16, columns, grid);
  const HessianFactor factor = factor_hessian(h);
  const DenseGreedy dense(w, damped_hessian(h, 0.01), factor.order, [&](int64_t p, const torch::Tensor& present) {
    if (p % size == 0) {
      const torch::Tensor group = present.slice(1, p, p + size).to(torch::kFloat).contiguous();
      for (int64_t r = 0; r < 16; ++r)
        store_grid(grids, r * 3 + p / size, fit_group(group[r].const_data_ptr<float>(), size, grid));
    }
    torch::Tensor column = torch::empty({16}, torch::kDouble);
    for (int64_t r = 0; r < 16; ++r) {
      const GroupGrid g = stored_grid(grids, r * 3 + p / size);
      column[r] = g.value(g.code(present[r][p].item<float>()));
    }
    return column;
  });
  const QuantTensor got = gptq_round(w.to(torch::kFloat), h, grid, {.block = 3});
  // Float rounding may tip a tie or the last bit of a scale, not more.
  EXPECT_LT((dequantized(got).to(torch::kDouble) - dense.rounded).abs().max().item<double>(), 2e-3);
}

TEST(ObsSweep, StaticGroupsKeepTheGridsOfTheOriginalWeights) {
  const torch::Tensor x = correlated_inputs(300, 64, 31), w = random_matrix(16, 64, 34).to(torch::kFloat);
  const torch::Tensor h = x.t().mm(x) * (2.0 / 300);
  const GridOptions grid{4, 32, ZeroKind::integer};
  const QuantTensor plain = quantize_groups(w, grid);
  for (const bool act_order : {false, true}) {
    const QuantTensor got = gptq_round(w, h, grid, {.act_order = act_order, .static_groups = true});
    EXPECT_EQ(got.scales, plain.scales);
    EXPECT_EQ(got.zero_points, plain.zero_points);
    EXPECT_TRUE(got.permutation.empty());
    EXPECT_LT(relative_objective(w, dequantized(got), h), 0.9 * relative_objective(w, dequantized(plain), h));
  }
}

TEST(ObsSweep, GroupsAlongOutputsAreFoundColumnByColumn) {
  const torch::Tensor x = correlated_inputs(300, 16, 41), w = random_matrix(50, 16, 44).to(torch::kFloat);
  const torch::Tensor h = x.t().mm(x) * (2.0 / 300);
  const GridOptions grid{3, 20, ZeroKind::integer};
  torch::Tensor swept = w.clone();
  GroupColumnQuantizer quantizer(w, grid, GroupAxis::output);
  obs_sweep(swept, factor_hessian(h), quantizer);
  const QuantTensor tensor = quantizer.take();
  check(tensor, "test");
  EXPECT_EQ(tensor.scales.size(), 16u * 3u);
  EXPECT_TRUE(torch::equal(dequantized(tensor), swept));
  const double plain = relative_objective(w, fake_quantize(w, grid, GroupAxis::output), h);
  EXPECT_LT(relative_objective(w, swept, h), 0.9 * plain);
}

TEST(ObsSweep, DeadChannelsBecomeZero) {
  torch::Tensor x = correlated_inputs(300, 32, 51);
  x.select(1, 9).zero_();
  const QuantTensor got = gptq_round(random_matrix(8, 32, 54).to(torch::kFloat), x.t().mm(x), {4, 32, ZeroKind::integer});
  EXPECT_EQ(dequantized(got).select(1, 9).abs().max().item<float>(), 0.0f);
}

TEST(RefineCodes, RefittedScalesLowerTheObjectiveToTheClosedFormOptimum) {
  const torch::Tensor x = correlated_inputs(300, 32, 71), w = random_matrix(1, 32, 74).to(torch::kFloat);
  const torch::Tensor h = x.t().mm(x) * (2.0 / 300);
  QuantTensor tensor = quantize_groups(w, {3, 32, ZeroKind::integer});
  tensor.scales[0] = float_to_half(half_to_float(tensor.scales[0]) * 1.3f);  // off on purpose
  const double before = relative_objective(w, dequantized(tensor), h);
  QuantTensor refined = tensor;
  refine_codes(refined, w, h, 1, true);
  EXPECT_LT(relative_objective(w, dequantized(refined), h), before);
  // s* = w H v^T / v H v^T for the codes before the pass, v = q - z.
  torch::Tensor v = torch::empty({1, 32}, torch::kDouble);
  for (int64_t j = 0; j < 32; ++j) v[0][j] = static_cast<double>(tensor.codes[static_cast<size_t>(j)]) - tensor.zero_points[0];
  const double best = (w.to(torch::kDouble).mm(h).mm(v.t()) / v.mm(h).mm(v.t())).item<double>();
  EXPECT_EQ(refined.scales[0], float_to_half(static_cast<float>(best)));
}

TEST(RefineCodes, NeverRaisesTheObjectiveAndEndsInALocalOptimum) {
  const torch::Tensor x = correlated_inputs(300, 64, 61), w = random_matrix(12, 64, 64).to(torch::kFloat);
  const torch::Tensor h = x.t().mm(x) * (2.0 / 300);
  QuantTensor tensor = gptq_round(w, h, {3, 32, ZeroKind::integer});
  double before = relative_objective(w, dequantized(tensor), h);
  for (int pass = 0; pass < 30; ++pass) {
    const int64_t changed = refine_codes(tensor, w, h, 1);
    const double after = relative_objective(w, dequantized(tensor), h);
    EXPECT_LE(after, before * (1 + 1e-6));
    before = after;
    if (changed == 0) break;
  }
  // Brute force: no single code change by one level lowers the objective.
  const double reached = relative_objective(w, dequantized(tensor), h);
  for (size_t i = 0; i < tensor.codes.size(); i += 7)
    for (const int step : {-1, 1}) {
      const int code = tensor.codes[i] + step;
      if (code < 0 || code > 7) continue;
      QuantTensor other = tensor;
      other.codes[i] = static_cast<uint8_t>(code);
      EXPECT_GE(relative_objective(w, dequantized(other), h), reached * (1 - 1e-6));
    }
}

}  // namespace
}  // namespace lighten
