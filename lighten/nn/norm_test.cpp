#include "lighten/nn/norm.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"
#include "lighten/nn/state.h"

namespace lighten {
namespace {

TEST(ChannelNorm, BatchIsTorchsOwnInStateTrainingAndEvaluation) {
  ChannelNorm own(6);
  torch::nn::BatchNorm2d theirs(6);
  copy_state(state_of(*theirs), state_of(*own), "state");  // the same names and shapes
  torch::manual_seed(1);
  for (int step = 0; step < 3; ++step) {
    const torch::Tensor x = torch::randn({5, 6, 4, 4});
    EXPECT_TRUE(torch::allclose(own->forward(x), theirs->forward(x), 1e-6, 1e-6));
  }
  EXPECT_TRUE(torch::allclose(own->running_var, theirs->running_var));
  EXPECT_EQ(own->num_batches_tracked.item<int64_t>(), 3);
  own->eval();
  theirs->eval();
  const torch::Tensor x = torch::randn({2, 6, 4, 4});
  EXPECT_TRUE(torch::allclose(own->forward(x), theirs->forward(x), 1e-6, 1e-6));
}

TEST(ChannelNorm, GroupSeesOneSampleAtATime) {
  ChannelNorm norm(12, "group");  // 4 groups: gcd(12, 8)
  EXPECT_EQ(state_of(*norm).size(), 2u);
  torch::manual_seed(2);
  const torch::Tensor x = torch::randn({3, 12, 5, 5}) * 3 + 1, y = norm->forward(x);
  const torch::Tensor groups = x.view({3, 4, -1});
  const torch::Tensor expected = (groups - groups.mean(2, true)) / (groups.var(2, false, true) + 1e-5).sqrt();
  EXPECT_TRUE(torch::allclose(y, expected.view_as(x), 1e-4, 1e-4));
  EXPECT_TRUE(torch::allclose(norm->forward(x.slice(0, 1, 2)), y.slice(0, 1, 2), 1e-5, 1e-5));
  EXPECT_THROW(ChannelNorm(4, "layer"), OptionError);
}

}  // namespace
}  // namespace lighten
