#include "lighten/systems/labels/llp_bp/llp_bp.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/eval/classification.h"

namespace lighten {
namespace {

/// Two clouds on the unit sphere in random bags of `size`; every fifth bag is for validation.
BagTask clouds(int64_t n, int64_t size, uint64_t seed, std::vector<uint8_t>& truth) {
  Random random(seed);
  BagTask task;
  task.x = torch::zeros({n, 8});
  for (int64_t i = 0; i < n; ++i) {
    const bool positive = random.uniform() < 0.3;
    truth.push_back(positive);
    for (int64_t c = 0; c < 8; ++c) task.x[i][c] = random.normal() + (c == (positive ? 0 : 1) ? 3.0 : 0.0);
    if (i % size == 0) {
      if (task.bags.size() % 5 == 4) task.validation.push_back(std::ssize(task.bags));
      task.bags.emplace_back();
      task.counts.push_back(0);
    }
    task.bags.back().push_back(i);
    task.counts.back() += positive;
  }
  return task;
}

LlpBpOptions small_options() {
  LlpBpOptions options;
  options.epochs = 25;
  options.patience = 0;  // few bags are noisy judges: train to the end, keep the best
  options.batch = 128;
  return options;
}

TEST(LlpBp, InfersInstancesFromCounts) {
  std::vector<uint8_t> truth;
  const BagTask task = clouds(800, 16, 1, truth);
  const LlpBpModel model = llp_bp(task, small_options());
  ASSERT_EQ(model.nets.size(), 2u);
  // The pseudo-labels of the first round keep the bags' counts (nearly: each is a marginal) and are far better than chance.
  int64_t right = 0, in_training = 0, off = 0;
  for (size_t b = 0; b < task.bags.size(); ++b) {
    if (b % 5 == 4) continue;
    int64_t count = 0;
    for (const int64_t row : task.bags[b]) {
      count += model.rounds[0].pseudo[static_cast<size_t>(row)];
      right += model.rounds[0].pseudo[static_cast<size_t>(row)] == truth[static_cast<size_t>(row)];
      ++in_training;
    }
    off += std::abs(count - task.counts[b]);
  }
  EXPECT_GT(static_cast<double>(right) / static_cast<double>(in_training), 0.85);
  EXPECT_LT(static_cast<double>(off) / static_cast<double>(in_training), 0.03);
  std::vector<uint8_t> other_truth;
  const BagTask other = clouds(400, 16, 2, other_truth);
  LlpBpModel trained = model;
  const torch::Tensor p = trained.probabilities(other.x).to(torch::kDouble).contiguous();
  EXPECT_GT(auc(other_truth, {p.data_ptr<double>(), static_cast<size_t>(p.numel())}), 0.9);
}

TEST(LlpBp, HardLabelsByCountAreTheSurestOfEachBag) {
  std::vector<uint8_t> truth;
  const BagTask task = clouds(160, 16, 4, truth);
  LlpBpOptions options = small_options();
  options.hard = "count";
  const LlpBpRound round = infer_labels(task, task.x, options);
  size_t place = 0;  // beliefs are numbered in order of the training bags
  for (size_t b = 0; b < task.bags.size(); ++b) {
    if (b % 5 == 4) continue;
    int64_t positives = 0;
    double least_positive = 1e30, most_negative = -1e30;
    for (const int64_t row : task.bags[b]) {
      const double belief = round.beliefs.log_odds[place++];
      const bool positive = round.pseudo[static_cast<size_t>(row)];
      positives += positive;
      (positive ? least_positive : most_negative) =
          positive ? std::min(least_positive, belief) : std::max(most_negative, belief);
    }
    EXPECT_EQ(positives, task.counts[b]) << b;
    EXPECT_GE(least_positive, most_negative) << b;
  }
}

TEST(LlpBp, IsRepeatableAndUsesNoLabelOfAnInstance) {
  std::vector<uint8_t> truth;
  const BagTask task = clouds(200, 8, 3, truth);
  LlpBpOptions options = small_options();
  options.epochs = 4;
  LlpBpModel one = llp_bp(task, options), two = llp_bp(task, options);
  EXPECT_TRUE(torch::equal(one.probabilities(task.x), two.probabilities(task.x)));
}

TEST(LlpBp, RefusesBagsThatCannotBe) {
  std::vector<uint8_t> truth;
  const BagTask good = clouds(40, 8, 4, truth);
  EXPECT_NO_THROW(check_task(good));
  BagTask task = good;
  task.bags[1].clear();
  EXPECT_THROW(check_task(task), OptionError);
  task = good;
  task.counts[2] = 9;
  EXPECT_THROW(check_task(task), OptionError);
  task = good;
  task.bags[0][0] = task.bags[1][0];
  EXPECT_THROW(check_task(task), OptionError);
  task = good;
  task.counts.assign(task.counts.size(), 0);
  EXPECT_THROW(check_task(task), OptionError);
  task = good;
  task.validation = {0, 1, 2, 3, 4};
  EXPECT_THROW(check_task(task), OptionError);
  task = good;
  task.bags.pop_back();  // its eight rows are free
  task.counts.pop_back();
  task.validation.clear();
  task.labelled = {32, 33};
  task.labels = {0, 1};
  EXPECT_NO_THROW(check_task(task));
  task.labels = {1, 1};
  EXPECT_THROW(check_task(task), OptionError);
  task.labels = {0, 2};
  EXPECT_THROW(check_task(task), OptionError);
  task.labels = {0, 1};
  task.labelled[0] = 3;  // in bag 0
  EXPECT_THROW(check_task(task), OptionError);
}

TEST(LlpBp, LabelledInstancesChooseTheEpoch) {
  std::vector<uint8_t> truth;
  BagTask task = clouds(400, 16, 5, truth);
  task.validation.clear();
  for (int bag = 0; bag < 5; ++bag) {
    for (const int64_t row : task.bags.back()) {
      task.labelled.push_back(row);
      task.labels.push_back(truth[static_cast<size_t>(row)]);
    }
    task.bags.pop_back();
    task.counts.pop_back();
  }
  BagFit fit;
  BagLosses losses{.targets = {}, .instance_weight = 0, .bag_weight = 1, .through_mean = true};
  BagNet net = train_bag_net(task, task.x, losses, small_options(), "dllp", &fit);
  const torch::NoGradGuard no_grad;
  const torch::Tensor logits =
      net->instances(task.x.index_select(0, torch::tensor(task.labelled))).to(torch::kDouble).contiguous();
  EXPECT_DOUBLE_EQ(fit.score, auc(task.labels, {logits.data_ptr<double>(), static_cast<size_t>(logits.numel())}));
  EXPECT_GT(fit.best_epoch, 0);
}

}  // namespace
}  // namespace lighten
