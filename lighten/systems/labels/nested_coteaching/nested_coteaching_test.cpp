#include "lighten/systems/labels/nested_coteaching/nested_coteaching.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/data/inject.h"
#include "lighten/nn/state.h"

namespace lighten {
namespace {

TEST(NestedDropout, DistributionIsTheHalfGaussian) {
  const std::vector<double> p = nested_distribution(256, 10);
  double sum = 0;
  for (const double value : p) sum += value;
  EXPECT_NEAR(sum, 1, 1e-12);
  EXPECT_NEAR(p[9] / p[0], std::exp(-(100.0 - 1.0) / 100), 1e-12);  // k = 10 against k = 1
  // The sum of exp(-(k / 10)^2) over k >= 1 is (10 sqrt(pi) - 1) / 2 (Euler-Maclaurin).
  EXPECT_NEAR(p[0], std::exp(-0.01) / ((10 * std::sqrt(M_PI) - 1) / 2), 1e-9);
  EXPECT_THROW(nested_distribution(4, 0), OptionError);
}

TEST(NestedDropout, LogitsOfKFeaturesAreThoseOfMaskedFeatures) {
  torch::manual_seed(1);
  const torch::Tensor z = torch::randn({9, 12}), w = torch::randn({5, 12});
  for (int64_t k = 1; k <= 12; ++k) {
    torch::Tensor masked = z.clone();
    if (k < 12) masked.narrow(1, k, 12 - k).zero_();
    EXPECT_TRUE(torch::allclose(nested_logits(z, w, k), torch::linear(masked, w), 1e-5, 1e-6)) << k;
  }
}

TEST(NestedDropout, AccuracyOfEveryKEqualsTryingEachOne) {
  torch::manual_seed(2);
  const torch::Tensor z = torch::randn({200, 16}).relu(), w = torch::randn({4, 16}), y = torch::randint(0, 4, {200});
  const std::vector<double> got = accuracy_by_features(z, w, y);
  for (int64_t k = 1; k <= 16; ++k)
    EXPECT_DOUBLE_EQ(got[k - 1], (nested_logits(z, w, k).argmax(1) == y).to(torch::kFloat64).mean().item<double>()) << k;
}

TEST(NestedDropout, TheSmallestOfEquallyGoodCountsWins) {
  EXPECT_EQ(best_feature_count({0.5, 0.7, 0.7, 0.69}), 2);
  EXPECT_EQ(best_feature_count({0.5, 0.7, 0.700009, 0.1}), 2);  // less than the price of a feature
  EXPECT_EQ(best_feature_count({0.5, 0.7, 0.70002, 0.1}), 3);
}

TEST(CoTeaching, KeepsTheSmallestLosses) {
  const torch::Tensor losses = torch::tensor({3.0, 0.5, 2.0, 0.1, 9.0});
  EXPECT_EQ(small_losses(losses, 0.4), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(small_losses(losses, 0), (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(small_losses(losses, 0.95), (std::vector<int64_t>{3}));
}

TEST(Suspects, AreTheSamplesWhoseLabelIsNotPreferredMostDoubtfulFirst) {
  const torch::Tensor logits = torch::tensor({2.0, 0.0, 0.0, 1.0, 0.0, 3.0}).reshape({3, 2});
  const std::vector<Suspect> found = suspects(logits, {9, 9, 1, 1, 0}, std::vector<int64_t>{2, 3, 4});
  ASSERT_EQ(found.size(), 2u);  // sample 3 agrees
  EXPECT_EQ(found[0].sample, 4);
  EXPECT_NEAR(found[0].score, 1 - 1 / (1 + std::exp(3.0)), 1e-6);
  EXPECT_EQ(found[0].suggested, 1);
  EXPECT_EQ(found[1].sample, 2);
  EXPECT_EQ(found[1].given, 1);
  EXPECT_EQ(found[1].suggested, 0);
}

/// Four classes of bright bars at different places, with noise in pixels.
ImageSet bars(int64_t n) {
  ImageSet set;
  set.channels = 1;
  set.height = set.width = 8;
  set.class_names = {"top", "bottom", "left", "right"};
  Random random(5);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t label = static_cast<int32_t>(i % 4);
    for (int y = 0; y < 8; ++y)
      for (int x = 0; x < 8; ++x) {
        const bool bright = label == 0 ? y < 3 : label == 1 ? y > 4 : label == 2 ? x < 3 : x > 4;
        set.pixels.push_back(static_cast<uint8_t>((bright ? 120 : 60) + random.below(120)));
      }
    set.labels.push_back(label);
    set.ids.push_back(fmt::format("s{}", i));
    set.splits.push_back(i % 5 == 4 ? Split::test : i % 5 == 3 ? Split::validation : Split::train);
  }
  set.keys = set.ids;
  return set;
}

class Nested : public testing::Test {
 protected:
  void SetUp() override { set_quiet(true); }
  void TearDown() override { set_quiet(false); }
  static NestedCoteachingOptions small() {
    NestedCoteachingOptions options;
    options.classify.architecture = "mlp";
    options.classify.base_width = 32;
    options.classify.feature_size = 32;
    options.classify.train.epochs = 5;
    options.classify.train.batch_size = 40;
    options.sigma = 5;
    options.finetune_epochs = 2;
    options.forget = 0.3;
    return options;
  }
};

TEST_F(Nested, LearnsThroughNoiseAndFindsTheWrongLabels) {
  const ImageSet set = bars(2000);
  const NoisyLabels noise = symmetric_flip(set.labels, 4, 0.3, 1);
  const ClassifyData data = classify_data(set, noise.noisy);
  const NestedPair pair = nested_coteaching(data, small());
  EXPECT_GT(accuracy_of(pair_logits(pair, data, data.test), set.labels, data.test), 0.95);
  int64_t right = 0, wrong_labels = 0;
  const std::vector<Suspect> found = suspects(pair_logits(pair, data, data.train), noise.noisy, data.train);
  for (const Suspect& suspect : found) right += suspect.suggested == set.labels[suspect.sample];
  for (const int64_t i : data.train) wrong_labels += noise.noisy[i] != set.labels[i];
  EXPECT_GT(static_cast<double>(right), 0.9 * static_cast<double>(wrong_labels));
  EXPECT_GT(static_cast<double>(right), 0.9 * static_cast<double>(found.size()));
  for (const int64_t k : pair.features) EXPECT_LT(k, 32);
}

TEST_F(Nested, FrozenBatchNormDoesNotMoveInStageTwo) {
  const ImageSet set = bars(300);
  const ClassifyData data = classify_data(set);
  NestedCoteachingOptions options = small();
  options.classify.architecture = "conv3";
  options.classify.base_width = 4;
  options.classify.train.epochs = 1;
  NestedPair pair;
  for (const uint64_t seed : {1, 2}) {
    auto [trained, k] = train_nested(data, options, seed, "net");
    pair.nets.push_back(trained.net);
    pair.features.push_back(k);
  }
  NamedTensors before;
  for (const auto& item : pair.nets[0]->named_buffers()) before.emplace_back(item.key(), item.value().clone());
  const torch::Tensor weight = pair.nets[0]->head->weight.detach().clone();
  coteach(pair, data, options);
  for (const auto& [name, tensor] : before) EXPECT_TRUE(torch::equal(tensor, pair.nets[0]->named_buffers()[name])) << name;
  EXPECT_FALSE(torch::equal(weight, pair.nets[0]->head->weight));
}

TEST_F(Nested, ResumedEndsInTheSameBits) {
  const fs::path folder = fs::temp_directory_path() / fmt::format("lighten-nested-test-{}", ::getpid());
  fs::remove_all(folder);
  const ImageSet set = bars(300);
  const ClassifyData data = classify_data(set, symmetric_flip(set.labels, 4, 0.3, 1).noisy);
  const NestedPair whole = nested_coteaching(data, small());
  NestedCoteachingOptions only_first = small();
  only_first.coteaching = false;
  nested_coteaching(data, only_first, folder);  // stage 1 is done, stage 2 not begun
  const NestedPair resumed = nested_coteaching(data, small(), folder);
  EXPECT_EQ(resumed.finetuned.history.size(), 2u);
  const NestedPair loaded = nested_coteaching(data, small(), folder);
  for (const NestedPair* other : {&resumed, &loaded}) {
    EXPECT_EQ(other->features, whole.features);
    EXPECT_TRUE(torch::equal(pair_logits(*other, data, data.test), pair_logits(whole, data, data.test)));
  }
  fs::remove_all(folder);
}

TEST_F(Nested, RefusesWhatCannotBeLearnt) {
  ImageSet set = bars(100);
  set.labels.assign(100, 2);
  EXPECT_THROW(classify_data(set), OptionError);
  NestedCoteachingOptions options = small();
  options.forget = 1;
  const ImageSet good = bars(100);
  EXPECT_THROW(nested_coteaching(classify_data(good), options), OptionError);
}

}  // namespace
}  // namespace lighten
