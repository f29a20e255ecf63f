// Run alone by ctest (one rank: nothing may change), and by tests/end_to_end/mpi_train_e2e.py with two and three processes.
#include "lighten/train/over_ranks.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/nn/norm.h"

namespace lighten {
namespace {

class EndOfRanks : public testing::Environment {
  void TearDown() override { finish_ranks(0); }
};
const testing::Environment* const registered = testing::AddGlobalTestEnvironment(new EndOfRanks);

/// Three classes, 120 samples: batches of 30 give 4 steps an epoch.
struct Problem {
  torch::Tensor x, y;
  torch::nn::Sequential net;
  Problem(uint64_t seed, bool norm) {
    torch::manual_seed(1);
    x = torch::randn({120, 6});
    y = torch::randint(0, 3, {120}, torch::kInt64);
    torch::manual_seed(seed);
    net->push_back(torch::nn::Linear(6, 40));
    if (norm) net->push_back(ChannelNorm(40));
    net->push_back(torch::nn::Tanh());
    net->push_back(torch::nn::Linear(40, 3));
  }
  TrainTask task() {
    TrainTask task;
    task.title = "net";
    task.modules = {{.name = "net", .module = net.get()}};
    for (int64_t i = 0; i < 120; ++i) task.samples.push_back(i);
    task.loss = [this](const TrainStep& step) {
      const torch::Tensor rows = torch::tensor(std::vector<int64_t>(step.samples.begin(), step.samples.end()));
      return torch::nn::functional::cross_entropy(net->forward(x.index_select(0, rows)), y.index_select(0, rows));
    };
    return task;
  }
};

class OverRanks : public testing::Test {
 protected:
  void SetUp() override { set_quiet(true); }
  void TearDown() override { set_quiet(false); }
};

/// 20 steps of one process and of all together from the same batches.
void expect_same(bool norm, double tolerance) {
  Ranks& ranks = Ranks::world();
  const TrainOptions options{.epochs = 5, .batch_size = 30, .learning_rate = 0.1};
  Problem alone(7, norm), shared(7 + static_cast<uint64_t>(ranks.rank()), norm);  // others start elsewhere: broadcast mends it
  const TrainResult one = train(alone.task(), options), many = train(over_ranks(shared.task(), ranks, 256), options);
  const NamedTensors a = state_of(*alone.net), b = state_of(*shared.net);
  for (size_t i = 0; i < a.size(); ++i)
    EXPECT_LT((a[i].second - b[i].second).abs().max().item<double>(), tolerance)
        << a[i].first << " of " << ranks.size() << " ranks";
  ASSERT_EQ(one.history.size(), 5u);
  for (size_t epoch = 0; epoch < one.history.size(); ++epoch)
    EXPECT_NEAR(one.history[epoch].loss, many.history[epoch].loss, 1e-5);
}

TEST_F(OverRanks, TwentyStepsAreThoseOfOneProcess) { expect_same(false, 1e-5); }

TEST_F(OverRanks, NormsTakeTheirStatisticsFromAllShares) { expect_same(true, 1e-4); }

TEST_F(OverRanks, ANormOverRanksIsThatOfTheWholeBatchForwardAndBackward) {
  Ranks& ranks = Ranks::world();
  torch::manual_seed(3);
  const torch::Tensor x = torch::randn({12, 5, 4, 4}, torch::kDouble) * 2 + 3, weights = torch::randn_like(x);
  const auto through = [&](ChannelNorm& norm, int64_t begin, int64_t end) {
    norm->to(torch::kDouble);
    torch::Tensor part = x.slice(0, begin, end).clone().set_requires_grad(true);
    const torch::Tensor y = norm->forward(part);
    (y.pow(3) * weights.slice(0, begin, end)).sum().backward();
    return std::pair(y.detach(), part.grad());
  };
  ChannelNorm whole(5), shared(5);
  const auto [y, gradient] = through(whole, 0, 12);
  EXPECT_EQ(synchronise_norms(*shared, &ranks), 1);
  const int64_t begin = 12 * ranks.rank() / ranks.size(), end = 12 * (ranks.rank() + 1) / ranks.size();
  const auto [own, own_gradient] = through(shared, begin, end);
  EXPECT_LT((own - y.slice(0, begin, end)).abs().max().item<double>(), 1e-9);
  EXPECT_LT((own_gradient - gradient.slice(0, begin, end)).abs().max().item<double>(), 1e-9);
  EXPECT_LT((shared->running_var - whole->running_var).abs().max().item<double>(), 1e-9);
  EXPECT_LT((shared->running_mean - whole->running_mean).abs().max().item<double>(), 1e-9);
}

TEST_F(OverRanks, BucketsAreSentWhileBackwardIsAtWorkAndUntouchedParametersTakePart) {
  Ranks& ranks = Ranks::world();
  std::vector<torch::Tensor> parameters;
  for (int i = 0; i < 6; ++i) parameters.push_back(torch::full({10}, 1.0 + i).set_requires_grad(true));
  GradientSums sums(parameters, ranks, 80);  // two parameters a bucket
  EXPECT_EQ(sums.buckets(), 3);
  for (int round = 0; round < 3; ++round) {
    for (torch::Tensor& parameter : parameters) parameter.mutable_grad().reset();
    // A chain, so that the last parameters get their gradients first; odd ranks leave the very first one out.
    torch::Tensor h = torch::ones({10});
    for (size_t i = ranks.rank() % 2 == 1 ? 1 : 0; i < parameters.size(); ++i) h = h * parameters[i];
    h.sum().backward();
    sums.finish();
    EXPECT_GE(sums.sent_early(), 2);
    const int even = (ranks.size() + 1) / 2, odd = ranks.size() - even;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const double product = 720 / (1.0 + static_cast<double>(i));
      EXPECT_FLOAT_EQ(parameters[i].grad()[3].item<float>(), static_cast<float>((even + (i > 0 ? odd : 0)) * product)) << i;
    }
  }
}

TEST_F(OverRanks, AParameterThatNoRankUsesKeepsNoGradient) {
  std::vector<torch::Tensor> parameters;
  for (int i = 0; i < 3; ++i) parameters.push_back(torch::full({4}, 1.0 + i).set_requires_grad(true));
  GradientSums sums(parameters, Ranks::world());
  (parameters[0] * parameters[2]).sum().backward();
  sums.finish();
  EXPECT_FLOAT_EQ(parameters[0].grad()[3].item<float>(), static_cast<float>(3 * Ranks::world().size()));
  EXPECT_FLOAT_EQ(parameters[2].grad()[0].item<float>(), static_cast<float>(Ranks::world().size()));
  EXPECT_FALSE(parameters[1].grad().defined());
}

TEST_F(OverRanks, ABatchThatCannotBeSharedIsRefused) {
  Ranks& ranks = Ranks::world();
  if (ranks.size() == 1) GTEST_SKIP() << "one process shares nothing; tests/end_to_end/mpi_train_e2e.py starts several";
  Problem problem(7, false);
  EXPECT_THROW(train(over_ranks(problem.task(), ranks), {.epochs = 1, .batch_size = 1}), OptionError);
}

}  // namespace
}  // namespace lighten
