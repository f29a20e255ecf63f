#include "lighten/systems/labels/llp_bp/llp_bp.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"
#include "lighten/base/random.h"

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
}

}  // namespace
}  // namespace lighten
