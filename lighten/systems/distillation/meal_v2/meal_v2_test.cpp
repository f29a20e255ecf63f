#include "lighten/systems/distillation/meal_v2/meal_v2.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/nn/state.h"

namespace lighten {
namespace {

/// Blobs of light at one of four places.
ImageSet blobs(int64_t n) {
  ImageSet set;
  set.channels = 1;
  set.height = set.width = 8;
  set.class_names = {"nw", "ne", "sw", "se"};
  Random random(7);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t label = static_cast<int32_t>(i % 4);
    for (int y = 0; y < 8; ++y)
      for (int x = 0; x < 8; ++x) {
        const bool bright = (y > 3) == (label > 1) && (x > 3) == (label % 2 == 1);
        set.pixels.push_back(static_cast<uint8_t>((bright ? 45 : 0) + random.below(200)));
      }
    set.labels.push_back(label);
    set.ids.push_back(fmt::format("s{}", i));
    set.splits.push_back(i % 10 < 6 ? Split::train : i % 10 < 8 ? Split::validation : Split::test);
  }
  set.keys = set.ids;
  return set;
}

Classifier untrained(const ClassifyData& data, int64_t width, uint64_t seed) {
  ClassifyOptions options;
  options.architecture = "mlp";
  options.base_width = options.feature_size = width;
  return classifier_from(make_net(options, data, seed), data, {});
}

class MealV2 : public testing::Test {
 protected:
  void SetUp() override {
    set_quiet(true);
    set_ = blobs(400);
    data_ = classify_data(set_);
  }
  void TearDown() override { set_quiet(false); }
  ImageSet set_;
  ClassifyData data_;
};

TEST_F(MealV2, SoftCrossEntropyEqualsCrossEntropyOfOneHotAndKlPlusEntropy) {
  torch::manual_seed(1);
  const torch::Tensor logits = torch::randn({6, 4}), labels = torch::tensor({0, 1, 2, 3, 0, 1}),
                      p = torch::softmax(torch::randn({6, 4}), 1);
  EXPECT_NEAR(soft_cross_entropy(logits, torch::one_hot(labels, 4).to(torch::kFloat32)).item<double>(),
              torch::cross_entropy_loss(logits, labels).item<double>(), 1e-6);
  const double kl = torch::kl_div(torch::log_softmax(logits, 1), p, at::Reduction::Sum).item<double>() / 6;
  const double entropy = -(p * p.log()).sum().item<double>() / 6;
  EXPECT_NEAR(soft_cross_entropy(logits, p).item<double>(), kl + entropy, 1e-5);
}

TEST_F(MealV2, ProbabilitiesAndLogitsAreAveragedApartAndEachTeacherSeesItsOwnPixels) {
  TeacherBank bank{{untrained(data_, 16, 1), untrained(data_, 8, 2)}};
  bank.members[1].mean = {0.3F};
  bank.members[1].deviation = {0.7F};
  for (Classifier& member : bank.members) member.net->eval();
  const std::vector<int64_t> samples = {0, 1, 2, 3, 4};
  const torch::Tensor raw = image_batch(set_, samples, {{0.0F}, {1.0F}});  // pixels / 255
  const torch::Tensor x = (raw - data_.normalization.mean[0]) / data_.normalization.deviation[0];
  const TeacherBank::Outputs outputs = bank.forward(x, data_.normalization);
  const torch::NoGradGuard no_grad;
  const torch::Tensor a = bank.members[0].net->forward(x), b = bank.members[1].net->forward((raw - 0.3) / 0.7);
  EXPECT_TRUE(torch::allclose(outputs.logits, (a + b) / 2, 1e-4, 1e-4));
  EXPECT_TRUE(torch::allclose(outputs.probabilities, (torch::softmax(a, 1) + torch::softmax(b, 1)) / 2, 1e-4, 1e-5));
  EXPECT_FALSE(torch::allclose(outputs.probabilities, torch::softmax(outputs.logits, 1), 1e-3, 1e-3));
}

TEST_F(MealV2, InTheContestEachSideFollowsItsOwnLoss) {
  torch::manual_seed(3);
  DiscriminatorImpl discriminator(4, 9);
  const torch::Tensor teachers = torch::randn({5, 4}), start = torch::randn({5, 4});
  const auto gradients = [&](const std::function<torch::Tensor(const torch::Tensor&)>& loss_of) {
    torch::Tensor student = start.clone().set_requires_grad(true);
    discriminator.zero_grad();
    const torch::Tensor loss = loss_of(student);
    loss.backward();
    return std::tuple(loss.item<double>(), student.grad().clone(), discriminator.first->weight.grad().clone());
  };
  const auto [joint, joint_student, joint_own] =
      gradients([&](const torch::Tensor& student) { return discriminator_loss(discriminator, student, teachers, false); });
  const auto [contest, contest_student, contest_own] =
      gradients([&](const torch::Tensor& student) { return discriminator_loss(discriminator, student, teachers, true); });
  // The discriminator learns the same thing either way.
  EXPECT_TRUE(torch::allclose(joint_own, contest_own, 1e-4, 1e-6));
  EXPECT_GT(joint_own.abs().max().item<double>(), 0);
  // The student wants its rows to be called the teachers': -log(1 - sigmoid(D_0)) - log sigmoid(D_1), mean over 2n values,
  // halved.
  const auto fooled = gradients([&](const torch::Tensor& student) {
    const torch::Tensor d = torch::sigmoid(discriminator.forward(student));
    return -((1 - d.select(1, 0)).log() + d.select(1, 1).log()).sum() / (2.0 * 10);
  });
  EXPECT_TRUE(torch::allclose(std::get<1>(fooled), contest_student, 1e-4, 1e-6));
  EXPECT_NEAR(contest, joint + std::get<0>(fooled), 1e-5);
  // Together they would both call the student's rows the student's.
  EXPECT_LT((joint_student * contest_student).sum().item<double>(), 0);
  const torch::NoGradGuard no_grad;
  const torch::Tensor s = torch::sigmoid(discriminator.forward(start)), t = torch::sigmoid(discriminator.forward(teachers));
  const double sum = -(s.select(1, 0).log() + (1 - s.select(1, 1)).log() + t.select(1, 1).log() + (1 - t.select(1, 0)).log())
                          .sum()
                          .item<double>();
  EXPECT_NEAR(joint, sum / 20, 1e-5);
}

TEST_F(MealV2, WidthsOfTheDiscriminatorAreClamped) {
  DiscriminatorImpl small(10, 1), large(1000, 1);
  EXPECT_EQ(small.first->weight.size(0), 8);
  EXPECT_EQ(small.second->weight.size(0), 8);
  EXPECT_EQ(large.first->weight.size(0), 125);
  EXPECT_EQ(large.second->weight.size(0), 15);
}

TEST_F(MealV2, TheStudentComesCloserToItsTeachersAndTheyStayAsTheyAre) {
  ClassifyOptions options;
  options.architecture = "mlp";
  options.base_width = options.feature_size = 64;
  options.train.epochs = 15;
  options.train.batch_size = 40;
  const TeacherBank bank{{classifier_from(train_classifier(data_, options, "teacher").net, data_, {})}};
  const NamedTensors before = cloned(state_of(*bank.members[0].net));
  Classifier student = untrained(data_, 16, 5);
  const auto distance = [&] {
    const torch::Tensor logits = logits_of(*student.net, data_, data_.test);
    return soft_cross_entropy(logits, torch::softmax(logits_of(*bank.members[0].net, data_, data_.test), 1)).item<double>();
  };
  const double far = distance();
  MealV2Options meal;
  meal.augment = "none";
  meal.train.epochs = 40;
  meal.train.batch_size = 40;
  meal.train.learning_rate = 0.05;
  meal_v2(student, bank, data_, meal);
  EXPECT_LT(distance(), 0.6 * far);
  const NamedTensors after = state_of(*bank.members[0].net);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(torch::equal(before[i].second, after[i].second));
}

TEST_F(MealV2, RefusesTeachersOfOtherClassesOrSizes) {
  Classifier student = untrained(data_, 4, 5);
  TeacherBank bank{{untrained(data_, 4, 6)}};
  check_teachers(bank, student);
  bank.members[0].class_names[0] = "north";
  EXPECT_THROW(check_teachers(bank, student), OptionError);
  bank.members[0] = untrained(data_, 4, 6);
  bank.members[0].net->config.height = 9;
  EXPECT_THROW(check_teachers(bank, student), OptionError);
  EXPECT_THROW(check_teachers({}, student), OptionError);
  MealV2Options nothing;
  nothing.soft = 0;
  EXPECT_THROW(meal_v2(student, bank, data_, nothing), OptionError);
}

}  // namespace
}  // namespace lighten
