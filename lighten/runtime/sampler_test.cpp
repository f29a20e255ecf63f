#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/runtime/model.h"

namespace lighten {
namespace {

constexpr int kDraws = 100000;

std::vector<float> random_logits(size_t n, uint64_t seed) {
  Random random(seed);
  std::vector<float> logits(n);
  for (float& logit : logits) logit = static_cast<float>(2 * random.normal());
  return logits;
}

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double total = 0;
  for (const float logit : logits) total += p.emplace_back(std::exp(static_cast<double>(logit) / temperature));
  for (double& value : p) value /= total;
  return p;
}

/// Keeps the members of `kept` and makes them sum to one.
std::vector<double> restrict_to(std::vector<double> p, const std::set<size_t>& kept) {
  double total = 0;
  for (size_t i = 0; i < p.size(); ++i) total += kept.contains(i) ? p[i] : 0;
  for (size_t i = 0; i < p.size(); ++i) p[i] = kept.contains(i) ? p[i] / total : 0;
  return p;
}

std::vector<size_t> by_probability(const std::vector<double>& p) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  return order;
}

/// Draws many times and compares the counts with `p` by Pearson's chi-square: values whose expected count is small are pooled;
/// beyond 5 standard deviations of the statistic (mean dof, variance 2 dof) the distribution is another one. Nothing of
/// probability zero may be drawn.
void expect_distribution(const std::vector<float>& logits, const SamplingOptions& options, const std::vector<double>& p) {
  Sampler sampler(options);
  std::vector<int> counts(p.size());
  for (int i = 0; i < kDraws; ++i) {
    std::vector<float> copy = logits;
    ++counts[static_cast<size_t>(sampler.sample(copy, {}))];
  }
  double chi_square = 0, pooled_expected = 0, pooled_count = 0;
  int cells = 0;
  const auto cell = [&](double expected, double count) {
    chi_square += (count - expected) * (count - expected) / expected;
    ++cells;
  };
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "token " << i;
    } else if (p[i] * kDraws >= 20) {
      cell(p[i] * kDraws, counts[i]);
    } else {
      pooled_expected += p[i] * kDraws;
      pooled_count += counts[i];
    }
  }
  if (pooled_expected >= 5) cell(pooled_expected, pooled_count);
  const double dof = cells - 1;
  EXPECT_LE(chi_square, dof + 5 * std::sqrt(2 * dof) + 1e-12) << cells << " cells";
}

TEST(Sampler, TemperatureDrawsFromTheSoftmax) {
  const std::vector<float> logits = random_logits(60, 1);
  for (const double temperature : {0.3, 1.0, 2.5})
    expect_distribution(logits, {.temperature = temperature, .seed = 3}, softmax(logits, temperature));
}

TEST(Sampler, TopKKeepsTheLikeliest) {
  const std::vector<float> logits = random_logits(60, 2);
  const std::vector<double> p = softmax(logits, 1.5);
  const std::vector<size_t> order = by_probability(p);
  for (const int k : {1, 5, 59, 60, 1000}) {
    const std::set<size_t> kept(order.begin(), order.begin() + std::min(k, 60));
    expect_distribution(logits, {.temperature = 1.5, .top_k = k, .seed = 4}, restrict_to(p, kept));
  }
}

TEST(Sampler, TopPKeepsTheFewestThatHoldTheProbability) {
  const std::vector<float> logits = random_logits(60, 5);
  const std::vector<double> p = softmax(logits, 1);
  const std::vector<size_t> order = by_probability(p);
  for (const double top_p : {1e-6, 0.2, 0.5, 0.9, 0.99, 0.9999}) {
    std::set<size_t> kept;
    double sum = 0;
    for (size_t i = 0; i < order.size() && sum < top_p; sum += p[order[i++]]) kept.insert(order[i]);
    expect_distribution(logits, {.temperature = 1, .top_p = top_p, .seed = 6}, restrict_to(p, kept));
  }
}

TEST(Sampler, MinPDropsWhatIsFarBelowTheLikeliest) {
  const std::vector<float> logits = random_logits(60, 7);
  const std::vector<double> p = softmax(logits, 1);
  const double largest = *std::max_element(p.begin(), p.end());
  for (const double min_p : {0.01, 0.1, 0.5, 1.0}) {
    std::set<size_t> kept;
    for (size_t i = 0; i < p.size(); ++i)
      if (p[i] >= min_p * largest) kept.insert(i);
    expect_distribution(logits, {.temperature = 1, .min_p = min_p, .seed = 8}, restrict_to(p, kept));
  }
}

TEST(Sampler, FiltersActInTheirOrder) {
  const std::vector<float> logits = random_logits(60, 9);
  std::vector<double> p = softmax(logits, 2);
  std::vector<size_t> order = by_probability(p);
  p = restrict_to(p, {order.begin(), order.begin() + 20});  // top-p works on the renormalised twenty
  std::set<size_t> kept;
  double sum = 0;
  for (size_t i = 0; sum < 0.8; sum += p[order[i++]]) kept.insert(order[i]);
  const double largest = p[order[0]];
  std::erase_if(kept, [&](size_t i) { return p[i] < 0.3 * largest; });
  expect_distribution(logits, {.temperature = 2, .top_k = 20, .top_p = 0.8, .min_p = 0.3, .seed = 10}, restrict_to(p, kept));
}

TEST(Sampler, GreedyTakesTheLargestAndTheFirstOfEquals) {
  Sampler sampler({});
  std::vector<float> logits{1, 5, -2, 5, 4};
  EXPECT_EQ(sampler.sample(logits, {}), 1);
  logits = {-8, -7, -9};
  EXPECT_EQ(sampler.sample(logits, {}), 1);
}

TEST(Sampler, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogitsOnce) {
  Sampler sampler({.repetition_penalty = 2, .repetition_window = 3});
  std::vector<float> logits{3, 4, -1, 2, 10};
  const std::vector<int32_t> history{4, 1, 2, 2};  // 4 is outside the window
  EXPECT_EQ(sampler.sample(logits, history), 4);
  EXPECT_EQ(logits, (std::vector<float>{3, 2, -2, 2, 10}));
  Sampler off({});
  off.sample(logits, history);
  EXPECT_EQ(logits, (std::vector<float>{3, 2, -2, 2, 10}));
}

TEST(Sampler, TheSeedDecides) {
  const std::vector<float> logits = random_logits(200, 11);
  const auto draw = [&](uint64_t seed) {
    Sampler sampler({.temperature = 1, .top_p = 0.95, .seed = seed});
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) {
      std::vector<float> copy = logits;
      ids.push_back(sampler.sample(copy, ids));
    }
    return ids;
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(Sampler, RefusesBadOptionsAndBrokenLogits) {
  EXPECT_THROW(Sampler({.temperature = -1}), OptionError);
  EXPECT_THROW(Sampler({.top_k = -1}), OptionError);
  EXPECT_THROW(Sampler({.top_p = 0}), OptionError);
  EXPECT_THROW(Sampler({.min_p = 2}), OptionError);
  EXPECT_THROW(Sampler({.repetition_penalty = 0}), OptionError);
  Sampler sampler({.temperature = 1});
  std::vector<float> infinite{1, std::numeric_limits<float>::infinity()};
  EXPECT_THROW(sampler.sample(infinite, {}), ModelError);
}

}  // namespace
}  // namespace lighten
