#include "lighten/systems/labels/llp_bp/belief_propagation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/base/random.h"

namespace lighten {
namespace {

BagModel one_bag(int64_t n, int64_t count, double lambda, uint64_t seed) {
  Random random(seed);
  BagModel model{
      .n = n, .bias = {}, .edges = {}, .weights = {}, .bags = {{}}, .counts = {count}, .lambda_bag = lambda, .lambda_edge = 1};
  for (int64_t i = 0; i < n; ++i) {
    model.bias.push_back(2 * random.normal());
    model.bags[0].push_back(i);
  }
  return model;
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected, double limit) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], limit) << i;
}

TEST(BeliefPropagation, OneBagIsExact) {
  for (const auto& [n, count, lambda] :
       {std::tuple<int64_t, int64_t, double>{12, 3, 0.3}, {12, 0, 10}, {12, 12, 2}, {7, 5, 10}, {1, 1, 1}}) {
    const BagModel model = one_bag(n, count, lambda, 1);
    const Beliefs beliefs = propagate_beliefs(model, {.tolerance = 1e-10});
    EXPECT_TRUE(beliefs.converged);
    expect_near(beliefs.log_odds, exact_log_odds(model), 1e-7);
  }
}

TEST(BeliefPropagation, TreesAreExact) {
  // A chain and a branch, no loops: both kinds of couplings.
  BagModel model{.n = 6,
                 .bias = {0.5, -1, 0.2, 1.5, -0.3, 0.8},
                 .edges = {{0, 1}, {1, 2}, {2, 3}, {1, 4}},
                 .weights = {0.3, 1.0, 0.2, 0.7},
                 .bags = {},
                 .counts = {},
                 .lambda_bag = 1,
                 .lambda_edge = 0.9};
  expect_near(propagate_beliefs(model, {.iterations = 300, .tolerance = 1e-12}).log_odds, exact_log_odds(model), 1e-8);
  // A tree of edges and bags: two bags that one edge joins.
  model.edges = {{2, 3}};
  model.weights = {0.8};
  model.bags = {{0, 1, 2}, {3, 4, 5}};
  model.counts = {1, 2};
  expect_near(propagate_beliefs(model, {.iterations = 300, .tolerance = 1e-12}).log_odds, exact_log_odds(model), 1e-8);
}

TEST(BeliefPropagation, PairwiseAndCardinalityFormsAgreeWhereBothAreExact) {
  // Bags of two: the pair is the whole factor, and everything is a tree.
  BagModel model{.n = 6,
                 .bias = {0.4, -0.6, 1, -1, 0.3, 0},
                 .edges = {{1, 2}, {3, 4}},
                 .weights = {0.5, 1.2},
                 .bags = {{0, 1}, {2, 3}, {4, 5}},
                 .counts = {1, 1, 2},
                 .lambda_bag = 0.7,
                 .lambda_edge = 0.8};
  const auto pairwise = propagate_beliefs(model, {.iterations = 500, .tolerance = 1e-12, .pairwise_up_to = 2}).log_odds;
  const auto factors = propagate_beliefs(model, {.iterations = 500, .tolerance = 1e-12}).log_odds;
  expect_near(pairwise, factors, 1e-8);
  expect_near(factors, exact_log_odds(model), 1e-8);
}

TEST(BeliefPropagation, LoopyGraphsComeNearTheTruthAndTheFactorNearerThanPairs) {
  Random random(7);
  double factor_error = 0, pair_error = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    BagModel model = one_bag(12, 4, 0.8, seed);
    model.bags = {{0, 1, 2, 3, 4, 5}, {6, 7, 8, 9, 10, 11}};
    model.counts = {2, 3};
    for (int32_t i = 0; i < 12; ++i)
      for (int32_t j = i + 1; j < 12; ++j)
        if (random.uniform() < 0.2) {
          model.edges.emplace_back(i, j);
          model.weights.push_back(0.5 * random.uniform());
        }
    const auto exact = exact_log_odds(model);
    const auto probability = [](double log_odds) { return 1 / (1 + std::exp(-log_odds)); };
    const auto error = [&](const std::vector<double>& found) {
      double sum = 0;
      for (size_t i = 0; i < found.size(); ++i) sum += std::abs(probability(found[i]) - probability(exact[i])) / 12;
      return sum;
    };
    factor_error += error(propagate_beliefs(model).log_odds) / 10;
    pair_error += error(propagate_beliefs(model, {.pairwise_up_to = 100}).log_odds) / 10;
  }
  EXPECT_LT(factor_error, 0.02);
  EXPECT_LT(factor_error, pair_error);
}

TEST(BeliefPropagation, BigBagsStayFiniteAndKeepTheirCount) {
  constexpr int64_t kSize = 600;
  BagModel model = one_bag(kSize, 150, 10, 3);
  for (double& bias : model.bias) bias *= 20;  // sure of themselves, and wrong about the count
  const Beliefs beliefs = propagate_beliefs(model, {.tolerance = 1e-8});
  double expected_count = 0;
  for (const double value : beliefs.log_odds) {
    ASSERT_TRUE(std::isfinite(value));
    expected_count += 1 / (1 + std::exp(-value));
  }
  // The marginals add up to the mean of P(c) ~ e_c(odds) e^(-lambda (c - count)^2), e_c the elementary symmetric polynomials:
  // 151 rather than 150, because the next instances are sure enough of themselves to pay for it.
  const auto log_add = [](double a, double b) {
    if (a < b) std::swap(a, b);
    return a + std::log1p(std::exp(b - a));
  };
  std::vector<double> log_e(kSize + 1, -1e300);
  log_e[0] = 0;
  for (const double bias : model.bias)
    for (size_t c = kSize; c > 0; --c) log_e[c] = log_add(log_e[c], log_e[c - 1] + bias);
  double highest = -1e300, total = 0, mean = 0;
  for (size_t c = 0; c <= kSize; ++c) {
    log_e[c] -= 10 * std::pow(static_cast<double>(c) - 150, 2);
    highest = std::max(highest, log_e[c]);
  }
  for (size_t c = 0; c <= kSize; ++c) {
    total += std::exp(log_e[c] - highest);
    mean += static_cast<double>(c) * std::exp(log_e[c] - highest);
  }
  EXPECT_NEAR(expected_count, mean / total, 1e-6);
}

TEST(BeliefPropagation, RefusesWhatCannotBe) {
  BagModel model = one_bag(4, 2, 1, 1);
  model.counts[0] = 5;
  EXPECT_THROW(propagate_beliefs(model), OptionError);
  model.counts[0] = 2;
  model.bags.push_back({1});
  model.counts.push_back(0);
  EXPECT_THROW(propagate_beliefs(model), OptionError);
  model = one_bag(4, 2, 1, 1);
  model.edges = {{3, 4}};
  model.weights = {1};
  EXPECT_THROW(propagate_beliefs(model), OptionError);
}

}  // namespace
}  // namespace lighten
