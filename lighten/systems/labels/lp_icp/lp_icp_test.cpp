#include "lighten/systems/labels/lp_icp/lp_icp.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/random.h"

namespace lighten {
namespace {

struct Samples {
  std::vector<float> scores;
  std::vector<uint8_t> labels;
};

/// Scores of every sharpness, with ties and exact halves, and labels that follow them.
Samples draw(int64_t rows, int64_t columns, uint64_t seed) {
  Random random(seed);
  Samples samples;
  for (int64_t i = 0; i < rows * columns; ++i) {
    const double kind = random.uniform();
    const double o = kind < 0.1   ? 0.5
                     : kind < 0.4 ? std::round(8 * random.uniform()) / 8
                                  : 1 / (1 + std::exp(-3 * random.normal()));
    samples.scores.push_back(static_cast<float>(o));
    samples.labels.push_back(random.uniform() < o);
  }
  return samples;
}

/// alpha and Gamma straight from the definitions, over all 2^c sets.
std::map<std::vector<int32_t>, double> brute_force(const LpIcpCalibration& calibration, std::span<const float> scores,
                                                   double eps) {
  std::map<std::vector<int32_t>, double> gamma;
  const size_t c = scores.size();
  for (uint32_t bits = 0; bits < (1U << c); ++bits) {
    Alpha alpha = 0;
    std::vector<int32_t> set;
    for (size_t j = 0; j < c; ++j) {
      const double t = (bits >> j) & 1U;
      if (t > 0) set.push_back(static_cast<int32_t>(j));
      alpha += std::llround(std::pow(std::abs(t - static_cast<double>(scores[j])), calibration.power) * (1 << 30));
    }
    int64_t at_least = 0;
    for (const Alpha a : calibration.scores) at_least += a >= alpha;
    const double p = static_cast<double>(at_least + 1) / static_cast<double>(calibration.scores.size() + 1);
    if (p > eps + 1e-12) gamma[set] = p;
  }
  return gamma;
}

TEST(LpIcp, EqualsTheWholePowersetForEveryPower) {
  constexpr int64_t kLabels = 9;
  for (const double power : {1.0, 2.0, 4.0, 0.5}) {
    const Samples calibration_samples = draw(99, kLabels, 1), test = draw(12, kLabels, 2);
    const LpIcpCalibration calibration =
        lp_icp_calibrate(calibration_samples.scores, calibration_samples.labels, kLabels, power);
    for (const double eps : {0.01, 0.07, 0.29, 0.6})
      for (int64_t row = 0; row < 12; ++row) {
        const std::span scores(test.scores.data() + row * kLabels, kLabels);
        const auto expected = brute_force(calibration, scores, eps);
        const LpIcpPrediction found = lp_icp_predict(calibration, scores, {.eps = eps, .max_sets = 1000});
        ASSERT_TRUE(found.complete);
        ASSERT_EQ(found.sets.size(), expected.size()) << "power " << power << ", eps " << eps << ", row " << row;
        double before = 2;
        std::set<int32_t> in_some, in_all;
        for (int32_t j = 0; j < kLabels; ++j) in_all.insert(j);
        for (const PlausibleSet& set : found.sets) {
          ASSERT_TRUE(expected.contains(set.labels));
          EXPECT_DOUBLE_EQ(set.p, expected.at(set.labels));
          EXPECT_LE(set.p, before);
          before = set.p;
          in_some.insert(set.labels.begin(), set.labels.end());
          std::erase_if(in_all, [&](int32_t j) { return !std::binary_search(set.labels.begin(), set.labels.end(), j); });
        }
        EXPECT_EQ(found.count_low, static_cast<double>(expected.size()));
        if (expected.empty()) continue;
        EXPECT_EQ(std::set<int32_t>(found.always.begin(), found.always.end()), in_all);
        for (int32_t j = 0; j < kLabels; ++j)
          EXPECT_EQ(std::binary_search(found.undecided.begin(), found.undecided.end(), j),
                    in_some.contains(j) && !in_all.contains(j));
      }
  }
}

TEST(LpIcp, ContainsAgreesWithTheList) {
  const Samples calibration_samples = draw(60, 7, 3), test = draw(40, 7, 4);
  const LpIcpCalibration calibration = lp_icp_calibrate(calibration_samples.scores, calibration_samples.labels, 7);
  int inside = 0;
  for (int64_t row = 0; row < 40; ++row) {
    const std::span scores(test.scores.data() + row * 7, 7);
    const std::span labels(test.labels.data() + row * 7, 7);
    std::vector<int32_t> truth;
    for (int32_t j = 0; j < 7; ++j)
      if (labels[static_cast<size_t>(j)]) truth.push_back(j);
    const auto found = lp_icp_predict(calibration, scores, {.eps = 0.2, .max_sets = 1000});
    const bool listed = std::any_of(found.sets.begin(), found.sets.end(), [&](const auto& set) { return set.labels == truth; });
    EXPECT_EQ(lp_icp_contains(calibration, scores, labels, 0.2), listed);
    inside += listed;
  }
  EXPECT_GT(inside, 20);
}

TEST(LpIcp, ErrorStaysAtEpsOverManyDraws) {
  // 400 draws of 79 calibration samples and 20 test samples: the expected error is at most eps, and above eps - 1 / 80 but for
  // ties.
  constexpr int64_t kLabels = 5;
  double missed = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    Samples samples = draw(99, kLabels, 100 + seed);
    const std::span scores(samples.scores);
    const std::span labels(samples.labels);
    const auto calibration = lp_icp_calibrate(scores.first(79 * kLabels), labels.first(79 * kLabels), kLabels);
    for (int64_t row = 79; row < 99; ++row)
      missed += !lp_icp_contains(calibration, scores.subspan(static_cast<size_t>(row * kLabels), kLabels),
                                 labels.subspan(static_cast<size_t>(row * kLabels), kLabels), 0.2);
  }
  // Standard deviation of the mean error: below sqrt(0.2 * 0.8 * (1 / 80 + 1 / 20) / 400) = 0.005.
  EXPECT_LT(missed / 8000, 0.2 + 3 * 0.005);
  EXPECT_GT(missed / 8000, 0.2 - 1.0 / 80 - 3 * 0.005);
}

TEST(LpIcp, CapsTheListAndBoundsTheCount) {
  constexpr int64_t kLabels = 14;
  const Samples calibration_samples = draw(49, kLabels, 5), test = draw(5, kLabels, 6);
  const LpIcpCalibration calibration = lp_icp_calibrate(calibration_samples.scores, calibration_samples.labels, kLabels);
  for (int64_t row = 0; row < 5; ++row) {
    const std::span scores(test.scores.data() + row * kLabels, kLabels);
    const auto expected = brute_force(calibration, scores, 0.04);
    const auto all = lp_icp_predict(calibration, scores, {.eps = 0.04, .max_sets = 100000});
    ASSERT_EQ(all.sets.size(), expected.size());
    ASSERT_GT(expected.size(), 20u);
    const auto few = lp_icp_predict(calibration, scores, {.eps = 0.04, .max_sets = 10});
    EXPECT_FALSE(few.complete);
    ASSERT_EQ(few.sets.size(), 10u);
    for (size_t i = 0; i < 10; ++i) EXPECT_EQ(few.sets[i].p, all.sets[i].p);
    EXPECT_LE(few.count_low, static_cast<double>(expected.size()));
    EXPECT_GE(few.count_high, static_cast<double>(expected.size()));
    EXPECT_LT(few.count_high / few.count_low, 1.05);
    EXPECT_LT(few.visited, 40);
  }
}

TEST(LpIcp, ManyLabelsAreNoHindrance) {
  // 2^300 sets; two labels are unsure.
  std::vector<float> scores(300, 0.001F);
  scores[7] = 0.45F;
  scores[200] = 0.9F;
  scores[201] = 0.6F;
  LpIcpCalibration calibration{300, 1, {}};
  for (int i = 0; i < 99; ++i) calibration.scores.push_back(static_cast<Alpha>((0.4 + 0.012 * i) * (1 << 30)));
  const auto found = lp_icp_predict(calibration, scores, {.eps = 0.1, .max_sets = 1000});
  // base = 297 * 0.001 + 0.45 + 0.1 + 0.4 = 1.247; the tenth largest score is 0.4 + 0.012 * 89 = 1.468: flips up to 0.221.
  EXPECT_EQ(found.sets.size(), 3u);  // none, 7 (0.1), 201 (0.2)
  EXPECT_EQ(found.point, (std::vector<int32_t>{200, 201}));
  EXPECT_EQ(found.undecided, (std::vector<int32_t>{7, 201}));
  EXPECT_EQ(found.always, (std::vector<int32_t>{200}));
}

TEST(LpIcp, RefusesWhatCannotBe) {
  const Samples samples = draw(19, 3, 7);
  const LpIcpCalibration calibration = lp_icp_calibrate(samples.scores, samples.labels, 3);
  EXPECT_NO_THROW(calibration.threshold(0.05));
  try {
    calibration.threshold(0.04);
    FAIL();
  } catch (const OptionError& error) {
    EXPECT_NE(std::string(error.what()).find("at least 24 are needed"), std::string::npos) << error.what();
  }
  std::vector<float> scores = samples.scores;
  scores[4] = 1.5F;
  try {
    lp_icp_calibrate(scores, samples.labels, 3);
    FAIL();
  } catch (const OptionError& error) {
    EXPECT_NE(std::string(error.what()).find("row 1, column 1"), std::string::npos) << error.what();
  }
  scores[4] = NAN;
  EXPECT_THROW(lp_icp_calibrate(scores, samples.labels, 3), OptionError);
  EXPECT_THROW(lp_icp_calibrate(samples.scores, samples.labels, 4), OptionError);
  EXPECT_THROW(lp_icp_predict(calibration, std::vector<float>(4, 0.5F), {}), OptionError);
  const auto again = calibration_from_json(to_json(calibration), "c");
  EXPECT_EQ(again.scores, calibration.scores);
  EXPECT_THROW(calibration_from_json(Json{{"format", "other"}}, "c"), FormatError);
}

TEST(LpIcp, NamesAndKindOfScoresAreStored) {
  const Samples samples = draw(19, 3, 7);
  LpIcpCalibration calibration = lp_icp_calibrate(samples.scores, samples.labels, 3);
  const auto unknown = calibration_from_json(to_json(calibration), "c");
  EXPECT_TRUE(unknown.names.empty());
  EXPECT_FALSE(unknown.logits.has_value());
  calibration.names = {"a", "b", "c"};
  calibration.logits = true;
  const auto known = calibration_from_json(to_json(calibration), "c");
  EXPECT_EQ(known.names, calibration.names);
  EXPECT_EQ(known.logits, calibration.logits);
  calibration.names.pop_back();
  EXPECT_THROW(calibration_from_json(to_json(calibration), "c"), FormatError);
}

}  // namespace
}  // namespace lighten
