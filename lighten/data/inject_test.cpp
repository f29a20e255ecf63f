#include "lighten/data/inject.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/random.h"

namespace lighten {
namespace {

std::vector<int32_t> balanced(int64_t n, int32_t classes) {
  std::vector<int32_t> labels(n);
  for (int64_t i = 0; i < n; ++i) labels[i] = static_cast<int32_t>(i % classes);
  return labels;
}

/// Five standard deviations of a binomial share.
double five_sigma(double p, double n) { return 5 * std::sqrt(p * (1 - p) / n); }

TEST(SymmetricFlip, EveryOtherClassIsEquallyLikely) {
  constexpr int kClasses = 5, kEach = 40000;
  const NoisyLabels flipped = symmetric_flip(balanced(kClasses * kEach, kClasses), kClasses, 0.4, 1);
  for (int i = 0; i < kClasses; ++i)
    for (int j = 0; j < kClasses; ++j) {
      const double expected = i == j ? 0.6 : 0.1;
      EXPECT_NEAR(static_cast<double>(flipped.audit.transitions[i][j]) / kEach, expected, five_sigma(expected, kEach))
          << i << j;
    }
}

TEST(SymmetricFlip, TheAuditCountsTheLabelsThemselves) {
  const NoisyLabels flipped = symmetric_flip(balanced(1000, 3), 3, 0.2, 7);
  int64_t changed = 0;
  for (size_t i = 0; i < flipped.clean.size(); ++i) changed += flipped.clean[i] != flipped.noisy[i];
  EXPECT_EQ(flipped.audit.changed, changed);
  EXPECT_EQ(flipped.audit.items, 1000);
  EXPECT_EQ(flipped.clean, balanced(1000, 3));
  EXPECT_EQ(to_json(flipped.audit)["asked"]["seed"], 7);
  EXPECT_EQ(symmetric_flip(balanced(1000, 3), 3, 0.2, 7).noisy, flipped.noisy);
  EXPECT_NE(symmetric_flip(balanced(1000, 3), 3, 0.2, 8).noisy, flipped.noisy);
}

TEST(SymmetricFlip, RefusesRatesAndLabelsThatCannotBe) {
  EXPECT_THROW(symmetric_flip({0, 1}, 2, 1.0, 0), OptionError);
  EXPECT_THROW(symmetric_flip({0, 0}, 1, 0.1, 0), OptionError);
  EXPECT_THROW(symmetric_flip({0, 2}, 2, 0.1, 0), FormatError);
  EXPECT_THROW(symmetric_flip({0, 1}, 2, std::nan(""), 0), OptionError);
}

TEST(AsymmetricFlip, EachClassTurnsIntoOneOtherClass) {
  constexpr int kClasses = 6, kEach = 20000;
  const NoisyLabels flipped = asymmetric_flip(balanced(kClasses * kEach, kClasses), kClasses, 0.3, 3);
  for (int i = 0; i < kClasses; ++i) {
    const int target = flipped.audit.asked["target"][i];
    EXPECT_NE(target, i);
    for (int j = 0; j < kClasses; ++j) {
      const double share = static_cast<double>(flipped.audit.transitions[i][j]) / kEach;
      if (j == i) {
        EXPECT_NEAR(share, 0.7, five_sigma(0.3, kEach));
      } else if (j != target) {
        EXPECT_EQ(share, 0);
      }
    }
  }
  const NoisyLabels given = asymmetric_flip(balanced(1000, 2), 2, 0.5, 3, {1, 1});
  for (size_t i = 0; i < 1000; ++i) {
    if (given.clean[i] == 1) {
      EXPECT_EQ(given.noisy[i], 1);
    }
  }
}

TEST(PositiveDrop, KeepsTheAskedShareAndNeverAdds) {
  std::vector<std::vector<int32_t>> labels(20000, {1, 4, 7});
  const DroppedLabels dropped = positive_drop(labels, 0.3, 5);
  int64_t kept = 0, emptied = 0;
  for (const auto& row : dropped.noisy) {
    kept += static_cast<int64_t>(row.size());
    emptied += row.empty();
    for (const int32_t label : row) EXPECT_TRUE(label == 1 || label == 4 || label == 7);
  }
  EXPECT_NEAR(static_cast<double>(kept) / 60000, 0.3, five_sigma(0.3, 60000));
  EXPECT_NEAR(static_cast<double>(emptied) / 20000, std::pow(0.7, 3), five_sigma(0.343, 20000));
  EXPECT_EQ(dropped.audit.items, 60000);
  EXPECT_EQ(dropped.audit.changed, 60000 - kept);
  for (const auto& row : positive_drop(labels, 0, 5, true).noisy) EXPECT_EQ(row.size(), 1u);
}

TEST(MakeBags, PartitionsAndCountsAreThoseOfTheLabels) {
  const std::vector<int32_t> labels = balanced(103, 4);
  const Bags bags = make_bags(labels, 4, 10, 2);
  ASSERT_EQ(bags.members.size(), 11u);
  std::set<int64_t> seen;
  for (size_t b = 0; b < bags.members.size(); ++b) {
    EXPECT_EQ(bags.members[b].size(), b < 10 ? 10u : 3u);
    std::vector<int64_t> counts(4, 0);
    for (const int64_t i : bags.members[b]) {
      EXPECT_TRUE(seen.insert(i).second);
      EXPECT_EQ(bags.bag_of[i], static_cast<int32_t>(b));
      ++counts[labels[i]];
    }
    EXPECT_EQ(counts, bags.counts[b]);
  }
  EXPECT_EQ(seen.size(), 103u);
  EXPECT_THROW(make_bags(labels, 4, 104, 2), OptionError);
}

TEST(Dirichlet, SharesHaveTheMeanAndVarianceOfTheDistribution) {
  // Symmetric Dirichlet of K parts: mean 1/K, variance (1/K)(1 - 1/K) / (K alpha + 1).
  for (const double alpha : {0.1, 1.0, 10.0}) {
    Random random(9);
    constexpr int kParts = 4, kDraws = 20000;
    double sum = 0, squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const std::vector<double> shares = draw_dirichlet(kParts, alpha, random);
      EXPECT_NEAR(std::accumulate(shares.begin(), shares.end(), 0.0), 1, 1e-12);
      sum += shares[1];
      squares += shares[1] * shares[1];
    }
    const double mean = sum / kDraws, variance = squares / kDraws - mean * mean, expected = 0.25 * 0.75 / (kParts * alpha + 1);
    EXPECT_NEAR(mean, 0.25, 5 * std::sqrt(expected / kDraws));
    EXPECT_NEAR(variance / expected, 1, 0.06) << alpha;
  }
}

TEST(DirichletClients, EverySampleHasOneClientAndSkewFollowsAlpha) {
  const std::vector<int32_t> labels = balanced(6000, 10);
  const auto classes_per_client = [&](double alpha) {
    const Clients clients = dirichlet_clients(labels, 10, 20, alpha, 4, 5);
    std::vector<int> seen(labels.size(), 0);
    double present = 0;
    for (size_t c = 0; c < clients.members.size(); ++c) {
      EXPECT_GE(clients.members[c].size(), 5u);
      for (const int64_t i : clients.members[c]) ++seen[i];
      for (int k = 0; k < 10; ++k) present += clients.audit.transitions[k][c] > 0;
    }
    EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), 6000);
    return present / 20;
  };
  EXPECT_LT(classes_per_client(0.1), 6);
  EXPECT_EQ(classes_per_client(1000), 10);
  EXPECT_THROW(dirichlet_clients(labels, 10, 20, 0.001, 4, 200), OptionError);
  EXPECT_THROW(dirichlet_clients(labels, 10, 6001, 1, 4), OptionError);
}

TEST(NaturalClients, AreTheKeysWithEnoughSamplesLargestFirst) {
  const std::vector<std::string> keys = {"b", "a", "a", "c", "a", "b"};
  const Clients clients = natural_clients({0, 1, 0, 1, 1, 0}, 2, keys, 2);
  ASSERT_EQ(clients.members.size(), 2u);
  EXPECT_EQ(clients.members[0], (std::vector<int64_t>{1, 2, 4}));
  EXPECT_EQ(clients.members[1], (std::vector<int64_t>{0, 5}));
  EXPECT_EQ(clients.audit.changed, 1);
  EXPECT_EQ(clients.audit.transitions, (std::vector<std::vector<int64_t>>{{1, 2}, {2, 0}}));
}

TEST(NShot, ShowsExactlySoManyPerClass) {
  const NoisyLabels shown = n_shot(balanced(100, 4), 4, 3, 1);
  std::vector<int> counts(4, 0);
  for (size_t i = 0; i < 100; ++i) {
    if (shown.noisy[i] < 0) continue;
    EXPECT_EQ(shown.noisy[i], shown.clean[i]);
    ++counts[shown.noisy[i]];
  }
  EXPECT_EQ(counts, (std::vector<int>{3, 3, 3, 3}));
  EXPECT_EQ(shown.audit.changed, 88);
  EXPECT_THROW(n_shot(balanced(100, 4), 4, 26, 1), OptionError);
}

}  // namespace
}  // namespace lighten
