#include "lighten/train/loader.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "lighten/base/error.h"

namespace lighten {
namespace {

ImageSet pictures(int64_t n, int64_t channels, int64_t side) {
  ImageSet set;
  set.channels = channels;
  set.height = set.width = side;
  Random random(1);
  for (int64_t i = 0; i < n * set.sample_bytes(); ++i) set.pixels.push_back(static_cast<uint8_t>(random.below(256)));
  for (int64_t i = 0; i < n; ++i) set.labels.push_back(static_cast<int32_t>(i % 3));
  set.class_names = {"a", "b", "c"};
  return set;
}

TEST(BatchOrder, VisitsEachSampleOnceAnEpochAndDependsOnTheEpochAlone) {
  std::vector<int64_t> samples(23);
  std::iota(samples.begin(), samples.end(), 100);
  BatchOrder order(samples, 5, 7, true, false);
  ASSERT_EQ(order.steps_per_epoch(), 5);
  std::multiset<int64_t> seen;
  for (int64_t step = 0; step < 5; ++step)
    for (const int64_t sample : order.batch(0, step)) seen.insert(sample);
  EXPECT_EQ(seen, std::multiset<int64_t>(samples.begin(), samples.end()));
  const auto copy = [](std::span<const int64_t> batch) { return std::vector<int64_t>(batch.begin(), batch.end()); };
  const std::vector<int64_t> later = copy(order.batch(6, 2));
  BatchOrder fresh(samples, 5, 7, true, false);
  EXPECT_EQ(copy(fresh.batch(6, 2)), later);
  EXPECT_NE(copy(order.batch(7, 2)), later);
  EXPECT_EQ(BatchOrder(samples, 5, 7).steps_per_epoch(), 4);
  EXPECT_EQ(BatchOrder(samples, 50, 7).steps_per_epoch(), 1);
  EXPECT_THROW(BatchOrder({}, 5, 7), OptionError);
}

TEST(ImageBatch, DoesNotDependOnTheNumberOfThreads) {
  const ImageSet set = pictures(200, 3, 12);
  std::vector<int64_t> samples(200);
  std::iota(samples.begin(), samples.end(), 0);
  const Normalization normalization = measure_normalization(set, samples);
  const AugmentOptions augment{.shift = 2, .flip = true, .least_area = 0.6, .aspect = 1.3, .rotation = 15, .erase = 0.25};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const torch::Tensor one = image_batch(set, samples, normalization, augment, 5);
  at::set_num_threads(4);
  const torch::Tensor four = image_batch(set, samples, normalization, augment, 5);
  at::set_num_threads(threads);
  EXPECT_TRUE(torch::equal(one, four));
  EXPECT_FALSE(torch::equal(one, image_batch(set, samples, normalization, augment, 6)));
  // A sample's augmentation does not depend on its place in the batch either.
  const std::vector<int64_t> reversed(samples.rbegin(), samples.rend());
  EXPECT_TRUE(torch::equal(one.flip(0), image_batch(set, reversed, normalization, augment, 5)));
}

TEST(ImageBatch, IsNormalisedPerChannel) {
  const ImageSet set = pictures(100, 2, 8);
  std::vector<int64_t> samples(100);
  std::iota(samples.begin(), samples.end(), 0);
  const torch::Tensor x = image_batch(set, samples, measure_normalization(set, samples));
  EXPECT_TRUE(torch::allclose(x.mean({0, 2, 3}), torch::zeros(2), 0, 1e-4));
  EXPECT_TRUE(torch::allclose(x.var({0, 2, 3}, false), torch::ones(2), 1e-4, 0));
  EXPECT_EQ(label_batch(set.labels, std::vector<int64_t>{2, 3, 4}).sum().item<int64_t>(), 2 + 0 + 1);
}

TEST(Augmentation, TheSameRecordGivesTheSamePixels) {
  const ImageSet set = pictures(1, 1, 16);
  const AugmentOptions options{.shift = 3, .flip = true, .least_area = 0.5, .aspect = 1.5, .rotation = 20, .erase = 0.3};
  Random random(2), twin(2);
  for (int i = 0; i < 50; ++i) {
    const AugmentRecord record = draw_augmentation(options, 16, 16, random);
    std::vector<float> first(256), second(256);
    apply_augmentation(record, set.pixels.data(), 1, 16, 16, first.data());
    apply_augmentation(draw_augmentation(options, 16, 16, twin), set.pixels.data(), 1, 16, 16, second.data());
    EXPECT_EQ(first, second);
  }
}

TEST(Augmentation, WholeShiftsAndFlipsAreCopies) {
  const std::vector<uint8_t> pixels = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::vector<float> out(9);
  AugmentRecord record{.width = 3, .height = 3};
  apply_augmentation(record, pixels.data(), 1, 3, 3, out.data());
  EXPECT_EQ(out, (std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8, 9}));
  record.flip = true;
  apply_augmentation(record, pixels.data(), 1, 3, 3, out.data());
  EXPECT_EQ(out, (std::vector<float>{3, 2, 1, 6, 5, 4, 9, 8, 7}));
  record = {.left = 1, .top = -1, .width = 3, .height = 3};
  apply_augmentation(record, pixels.data(), 1, 3, 3, out.data());
  EXPECT_EQ(out, (std::vector<float>{2, 3, 3, 2, 3, 3, 5, 6, 6}));
}

TEST(Augmentation, AQuarterTurnMovesPixelsToTheirPlaces) {
  // Turned by 90 degrees, out(x, y) comes from (w - 1 - y, x) ... checked against the definition by hand on 3 x 3.
  const std::vector<uint8_t> pixels = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  std::vector<float> out(9);
  const AugmentRecord record{.width = 3, .height = 3, .angle = 1.57079632679F};
  apply_augmentation(record, pixels.data(), 1, 3, 3, out.data());
  const std::vector<float> expected = {3, 6, 9, 2, 5, 8, 1, 4, 7};
  for (size_t i = 0; i < 9; ++i) EXPECT_NEAR(out[i], expected[i], 1e-3) << i;
}

TEST(Augmentation, BilinearSamplingIsExactOnARamp) {
  std::vector<uint8_t> ramp;
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 8; ++x) ramp.push_back(static_cast<uint8_t>(10 * x + 3 * y));
  const AugmentRecord record{.left = 1.5F, .top = 2.25F, .width = 4, .height = 5};
  std::vector<float> out(64);
  apply_augmentation(record, ramp.data(), 1, 8, 8, out.data());
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 8; ++x) {
      const double from_x = 1.5 + (x + 0.5) * 0.5 - 0.5, from_y = 2.25 + (y + 0.5) * 0.625 - 0.5;
      EXPECT_NEAR(out[y * 8 + x], 10 * from_x + 3 * from_y, 1e-3);
    }
}

TEST(Mixing, LambdaIsTheShareOfTheFirstPicture) {
  Random random(3);
  const torch::Tensor x = torch::arange(8).reshape({8, 1, 1, 1}).expand({8, 1, 10, 10}).to(torch::kFloat32).contiguous();
  double sum = 0;
  for (int i = 0; i < 300; ++i) {
    const MixRecord cut = draw_cutmix(8, 10, 10, 1.0, random), mix = draw_mixup(8, 1.0, random);
    sum += mix.lambda;
    for (const MixRecord* record : {&cut, &mix}) {
      const torch::Tensor mean = apply_mix(x, *record).mean({1, 2, 3});
      for (int64_t b = 0; b < 8; ++b)
        EXPECT_NEAR(mean[b].item<double>(),
                    record->lambda * static_cast<double>(b) + (1 - record->lambda) * static_cast<double>(record->partner[b]),
                    1e-5);
    }
  }
  EXPECT_NEAR(sum / 300, 0.5, 0.09);  // Beta(1, 1) is uniform: five standard deviations of 0.289 / sqrt(300)
  const torch::Tensor logits = torch::randn({8, 3}), labels = torch::tensor({0, 1, 2, 0, 1, 2, 0, 1}, torch::kInt64);
  const MixRecord record = draw_mixup(8, 0.4, random);
  const torch::Tensor hot = torch::one_hot(labels, 3).to(torch::kFloat32);
  const torch::Tensor soft = record.lambda * hot + (1 - record.lambda) * hot.index_select(0, torch::tensor(record.partner));
  EXPECT_NEAR(mixed_cross_entropy(logits, labels, record).item<double>(),
              torch::cross_entropy_loss(logits, soft).item<double>(), 1e-5);
}

}  // namespace
}  // namespace lighten
