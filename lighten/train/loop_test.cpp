#include "lighten/train/loop.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/train/checkpoint.h"
#include "lighten/train/ema.h"
#include "lighten/train/loader.h"

namespace lighten {
namespace {

class Training : public testing::Test {
 protected:
  void SetUp() override {
    set_quiet(true);
    folder_ = fs::temp_directory_path() / fmt::format("lighten-train-test-{}", ::getpid());
    fs::remove_all(folder_);
  }
  void TearDown() override {
    set_quiet(false);
    fs::remove_all(folder_);
  }
  fs::path folder_;
};

/// A small problem whose net has dropout and batch norm, so that random numbers and buffers count.
struct Problem {
  torch::Tensor x, y;
  torch::nn::Sequential net;
  int64_t stop_at = -1;  ///< global step at which Ctrl-C is pressed

  Problem() {
    torch::manual_seed(11);
    x = torch::randn({64, 6});
    y = (x.select(1, 0) * x.select(1, 1) > 0).to(torch::kInt64);
    net = torch::nn::Sequential(torch::nn::Linear(6, 16), torch::nn::BatchNorm1d(16), torch::nn::ReLU(),
                                torch::nn::Dropout(0.3), torch::nn::Linear(16, 2));
  }
  torch::Tensor loss_of(std::span<const int64_t> samples) {
    const torch::Tensor rows = torch::tensor(std::vector<int64_t>(samples.begin(), samples.end()));
    return torch::cross_entropy_loss(net->forward(x.index_select(0, rows)), y.index_select(0, rows));
  }
  TrainTask task() {
    TrainTask task;
    task.title = "test";
    task.modules = {{.name = "net", .module = net.get()}};
    for (int64_t i = 0; i < 64; ++i) task.samples.push_back(i);
    task.loss = [this](const TrainStep& step) {
      if (step.global_step == stop_at) throw Interrupted();
      return loss_of(step.samples);
    };
    task.validate = [this] { return (net->forward(x).argmax(1) == y).to(torch::kFloat64).mean().item<double>(); };
    return task;
  }
};

TrainOptions small(const std::string& optimizer) {
  TrainOptions options;
  options.epochs = 5;
  options.batch_size = 10;
  options.optimizer = optimizer;
  options.learning_rate = optimizer == "sgd" ? 0.05 : 0.01;
  options.ema = 0.9;
  options.seed = 3;
  return options;
}

void expect_equal(const torch::nn::Module& a, const torch::nn::Module& b) {
  const NamedTensors left = state_of(a), right = state_of(b);
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i) EXPECT_TRUE(torch::equal(left[i].second, right[i].second)) << left[i].first;
}

TEST_F(Training, ResumedEndsInTheSameBitsAsNeverStopped) {
  for (const std::string optimizer : {"sgd", "adam", "adamw"}) {
    Problem whole;
    const TrainResult expected = train(whole.task(), small(optimizer));
    for (const int64_t stop : {0, 8, 12, 29}) {  // before the first step, inside epochs, at the last step
      fs::remove_all(folder_);
      Problem stopped;
      stopped.stop_at = stop;
      EXPECT_THROW(train(stopped.task(), small(optimizer), folder_), Interrupted);
      Problem resumed;
      const TrainResult result = train(resumed.task(), small(optimizer), folder_);
      expect_equal(*whole.net, *resumed.net);
      ASSERT_EQ(result.history.size(), expected.history.size());
      for (size_t i = 0; i < result.history.size(); ++i) {
        EXPECT_EQ(result.history[i].loss, expected.history[i].loss);
        EXPECT_EQ(result.history[i].score, expected.history[i].score);
      }
      EXPECT_EQ(result.best_epoch, expected.best_epoch);
      // A finished training is only loaded.
      Problem again;
      again.stop_at = 0;
      train(again.task(), small(optimizer), folder_);
      expect_equal(*whole.net, *again.net);
    }
  }
}

TEST_F(Training, ACheckpointOfOtherOptionsIsRefusedByName) {
  Problem problem;
  train(problem.task(), small("sgd"), folder_);
  TrainOptions other = small("sgd");
  other.learning_rate = 0.06;
  try {
    train(problem.task(), other, folder_);
    FAIL();
  } catch (const OptionError& error) {
    EXPECT_NE(std::string(error.what()).find("learning-rate = 0.05, not 0.06"), std::string::npos) << error.what();
  }
}

TEST_F(Training, TheLogHasOneLineAnEpoch) {
  Problem problem;
  TrainTask task = problem.task();
  task.observe = [](int64_t epoch) { return Json{{"twice", 2 * epoch}}; };
  const TrainResult result = train(task, small("sgd"), folder_);
  std::istringstream lines(read_file(folder_ / "log.jsonl"));
  int64_t epoch = 0;
  for (std::string line; std::getline(lines, line); ++epoch) {
    const Json json = Json::parse(line);
    EXPECT_EQ(json["epoch"], epoch);
    EXPECT_EQ(json["loss"], result.history[epoch].loss);
    EXPECT_EQ(json["observed"]["twice"], 2 * epoch);
  }
  EXPECT_EQ(epoch, 5);
}

TEST_F(Training, EqualsAPlainLoopOverTorchsOwnOptimizer) {
  Problem ours, theirs;
  TrainOptions options = small("sgd");
  options.ema = 0;
  options.weight_decay = 0.01;
  TrainTask task = ours.task();
  task.validate = nullptr;
  train(task, options);

  BatchOrder order(task.samples, 10, derived_seed(3, 1));
  torch::optim::SGD sgd(theirs.net->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9).weight_decay(0.01));
  const int64_t total = options.epochs * order.steps_per_epoch();
  ASSERT_EQ(order.steps_per_epoch(), 6);
  theirs.net->train();
  for (int64_t t = 0; t < total; ++t) {
    torch::manual_seed(derived_seed(3, 2, t));
    sgd.zero_grad();
    theirs.loss_of(order.batch(t / 6, t % 6)).backward();
    const double rate = 0.05 * (1 + std::cos(3.14159265358979 * static_cast<double>(t) / static_cast<double>(total))) / 2;
    static_cast<torch::optim::SGDOptions&>(sgd.param_groups()[0].options()).lr(rate);
    sgd.step();
  }
  const NamedTensors a = state_of(*ours.net), b = state_of(*theirs.net);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(torch::allclose(a[i].second, b[i].second, 1e-4, 1e-5)) << a[i].first;
}

TEST_F(Training, StepsThatAreNotFiniteChangeNothing) {
  Problem problem;
  TrainTask task = problem.task();
  task.validate = nullptr;
  TrainOptions options = small("adam");
  options.epochs = 1;
  options.ema = 0;
  const NamedTensors before = cloned(state_of(*problem.net));
  const double nan = std::nan("");
  task.loss = [&](const TrainStep& step) { return problem.loss_of(step.samples) * nan; };
  const TrainResult result = train(task, options);
  EXPECT_EQ(result.skipped_steps, 6);
  const NamedTensors after = state_of(*problem.net);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(torch::equal(before[i].second, after[i].second)) << before[i].first;
  options.epochs = 3;
  EXPECT_THROW(train(task, options), ModelError);
  // A finite loss with an infinite gradient: sqrt at 0.
  task.loss = [&](const TrainStep& step) {
    return problem.loss_of(step.samples) + (problem.net->forward(problem.x) * 0).sqrt().sum();
  };
  options.epochs = 1;
  EXPECT_EQ(train(task, options).skipped_steps, 6);
}

TEST_F(Training, PatienceEndsItAndTheBestWeightsAreReturned) {
  Problem problem;
  TrainTask task = problem.task();
  TrainOptions options = small("sgd");
  options.epochs = 50;
  options.ema = 0;
  options.patience = 3;
  const std::vector<double> scores = {0.5, 0.7, 0.6, 0.7, 0.1};
  std::vector<NamedTensors> seen;
  task.validate = [&] {
    seen.push_back(cloned(state_of(*problem.net)));
    return scores.at(seen.size() - 1);
  };
  const TrainResult result = train(task, options);
  EXPECT_TRUE(result.stopped_early);
  EXPECT_EQ(result.best_epoch, 1);
  EXPECT_EQ(result.history.size(), 5u);
  const NamedTensors now = state_of(*problem.net);
  for (size_t i = 0; i < now.size(); ++i) EXPECT_TRUE(torch::equal(now[i].second, seen[1][i].second)) << now[i].first;
}

TEST_F(Training, Bfloat16FollowsFloat32) {
  Problem exact, rough;
  TrainOptions options = small("adam");
  options.ema = 0;
  const TrainResult a = train(exact.task(), options);
  options.precision = "bf16";
  const TrainResult b = train(rough.task(), options);
  EXPECT_NE(a.history[0].loss, b.history[0].loss);
  EXPECT_NEAR(a.history[0].loss, b.history[0].loss, 0.02);
}

TEST(Schedule, FollowsItsFormulas) {
  const Schedule cosine{.kind = "cosine", .warmup_steps = 10, .final_factor = 0.1};
  EXPECT_DOUBLE_EQ(schedule_factor(cosine, 0, 110), 0.1);
  EXPECT_DOUBLE_EQ(schedule_factor(cosine, 9, 110), 1);
  EXPECT_DOUBLE_EQ(schedule_factor(cosine, 10, 110), 1);
  EXPECT_NEAR(schedule_factor(cosine, 60, 110), 0.55, 1e-12);                                  // half way
  EXPECT_NEAR(schedule_factor(cosine, 35, 110), 0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2, 1e-12);  // cos(pi / 4)
  const Schedule step{.kind = "step"};
  EXPECT_DOUBLE_EQ(schedule_factor(step, 49, 100), 1);
  EXPECT_DOUBLE_EQ(schedule_factor(step, 50, 100), 0.1);
  EXPECT_NEAR(schedule_factor(step, 75, 100), 0.01, 1e-15);
  EXPECT_DOUBLE_EQ(schedule_factor({.kind = "constant"}, 99, 100), 1);
  EXPECT_THROW(schedule_factor({.kind = "cosin"}, 0, 1), OptionError);
}

TEST(Ema, IsTheWeightedSumOfAllStates) {
  torch::Tensor w = torch::zeros({1});
  Ema ema({{"w", w}}, 0.99);
  // By the definition: e = sum_t w_t (1 - d_t) prod_{u > t} d_u, d_t = min(0.99, (1 + t) / (10 + t)); the start is 0.
  double expected = 0;
  for (int t = 0; t < 200; ++t) {
    const double value = std::sin(0.1 * t), decay = std::min(0.99, (1.0 + t) / (10.0 + t));
    w.fill_(value);
    ema.update();
    expected = decay * expected + (1 - decay) * value;
  }
  ema.swap();
  EXPECT_NEAR(w.item<double>(), expected, 1e-5);
  ema.swap();
  EXPECT_FLOAT_EQ(w.item<float>(), static_cast<float>(std::sin(19.9)));
}

TEST(Optimizer, FollowsTorchsOwn) {
  torch::manual_seed(5);
  const torch::Tensor start = torch::randn({7, 5}), target = torch::randn({7, 5});
  const auto run = [&](const std::function<void(torch::Tensor&, int)>& update) {
    torch::Tensor w = start.clone().set_requires_grad(true);
    for (int t = 0; t < 25; ++t) {
      w.mutable_grad().reset();
      ((w - target).pow(4).sum() + w.sin().sum()).backward();
      update(w, t);
    }
    return w.detach();
  };
  const auto ours = [&](OptimizerOptions options, double decay) {
    std::unique_ptr<Optimizer> optimizer;
    return run([&](torch::Tensor& w, int) {
      if (!optimizer)
        optimizer = std::make_unique<Optimizer>(
            std::vector<ParameterGroup>{{.name = "g", .parameters = {{"w", w}}, .rate_scale = 0.5, .weight_decay = decay}},
            options);
      optimizer->step(0.02);
    });
  };
  const auto theirs = [&](const std::function<std::unique_ptr<torch::optim::Optimizer>(torch::Tensor)>& make) {
    std::unique_ptr<torch::optim::Optimizer> optimizer;
    return run([&](torch::Tensor& w, int) {
      if (!optimizer) optimizer = make(w);
      optimizer->step();
    });
  };
  for (const bool nesterov : {false, true}) {
    const torch::Tensor expected = theirs([&](torch::Tensor w) {
      return std::make_unique<torch::optim::SGD>(
          std::vector<torch::Tensor>{w}, torch::optim::SGDOptions(0.01).momentum(0.8).nesterov(nesterov).weight_decay(0.1));
    });
    EXPECT_TRUE(torch::allclose(ours({.kind = "sgd", .momentum = 0.8, .nesterov = nesterov}, 0.1), expected, 1e-5, 1e-6));
  }
  const torch::Tensor adam = theirs([&](torch::Tensor w) {
    return std::make_unique<torch::optim::Adam>(std::vector<torch::Tensor>{w},
                                                torch::optim::AdamOptions(0.01).weight_decay(0.1));
  });
  EXPECT_TRUE(torch::allclose(ours({.kind = "adam"}, 0.1), adam, 1e-5, 1e-6));
  const torch::Tensor adamw = theirs([&](torch::Tensor w) {
    return std::make_unique<torch::optim::AdamW>(std::vector<torch::Tensor>{w},
                                                 torch::optim::AdamWOptions(0.01).weight_decay(0.1));
  });
  EXPECT_TRUE(torch::allclose(ours({.kind = "adamw"}, 0.1), adamw, 1e-5, 1e-6));
  EXPECT_FALSE(torch::allclose(adam, adamw, 1e-4, 1e-4));
}

TEST(Sparkline, SpansItsExtremes) {
  EXPECT_EQ(sparkline({0, 1, 2, 3, 4, 5, 6, 7}), "▁▂▃▄▅▆▇█");
  EXPECT_EQ(sparkline({5, 5}), "▁▁");
  EXPECT_EQ(sparkline({0, 2, 8, 6}, 2), "▁█");
  EXPECT_EQ(sparkline({}), "");
}

}  // namespace
}  // namespace lighten
