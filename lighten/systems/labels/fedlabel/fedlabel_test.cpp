#include "lighten/systems/labels/fedlabel/fedlabel.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/systems/labels/fedlabel/views.h"

namespace lighten {
namespace {

double entry(const torch::Tensor& t, int64_t i) { return t[i].item<double>(); }

TEST(FedLabel, ConfidenceIsTheNamedFunctional) {
  const torch::Tensor p = torch::tensor({{0.7, 0.2, 0.1}, {1.0, 0.0, 0.0}}, torch::kDouble);
  // Variance of the entries around their mean 1/3, over 3.
  const double variance = (std::pow(0.7 - 1.0 / 3, 2) + std::pow(0.2 - 1.0 / 3, 2) + std::pow(0.1 - 1.0 / 3, 2)) / 3;
  EXPECT_NEAR(entry(confidence_of(p, "variance"), 0), variance, 1e-12);
  EXPECT_NEAR(entry(confidence_of(p, "max"), 0), 0.7, 1e-12);
  EXPECT_NEAR(entry(confidence_of(p, "entropy"), 0), 0.7 * std::log(0.7) + 0.2 * std::log(0.2) + 0.1 * std::log(0.1), 1e-12);
  EXPECT_EQ(entry(confidence_of(p, "entropy"), 1), 0);
  EXPECT_THROW(confidence_of(p, "margin"), OptionError);
}

TEST(FedLabel, TheSurerExpertLabelsAndTheOtherAddsItsDoubtWhereBothAgree) {
  // Local wins and both agree; global wins and they differ; the winner is not sure enough; a tie.
  const torch::Tensor local =
      torch::tensor({{0.97, 0.02, 0.01}, {0.10, 0.80, 0.10}, {0.9, 0.05, 0.05}, {0.96, 0.02, 0.02}}, torch::kDouble);
  const torch::Tensor global =
      torch::tensor({{0.60, 0.30, 0.10}, {0.98, 0.01, 0.01}, {0.8, 0.10, 0.10}, {0.02, 0.96, 0.02}}, torch::kDouble);
  FedLabelOptions options;
  options.agreement = 0.5;
  const PseudoLabels labels = select_labels(local, global, Labeller::either, options);
  EXPECT_TRUE(torch::equal(labels.label, torch::tensor({0, 0, 0, 1}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(labels.accepted, torch::tensor({true, true, false, true})));
  EXPECT_TRUE(torch::equal(labels.local_won, torch::tensor({true, false, true, false})));
  EXPECT_TRUE(torch::equal(labels.agreed, torch::tensor({true, false, true, false})));
  const auto variance = [](const torch::Tensor& p, int64_t i) {
    double sum = 0, squares = 0;
    for (int64_t c = 0; c < 3; ++c) sum += entry(p[i], c), squares += std::pow(entry(p[i], c), 2);
    return squares / 3 - sum * sum / 9;
  };
  EXPECT_NEAR(entry(labels.weight, 0), 0.5 * variance(global, 0) / variance(local, 0), 1e-9);
  EXPECT_EQ(entry(labels.weight, 1), 0);

  // The loss by hand: q is the softmax of the logits.
  const torch::Tensor logits =
      torch::tensor({{1.0, 0.0, -1.0}, {0.5, 0.5, 0.0}, {3.0, 1.0, 0.0}, {0.0, 2.0, 1.0}}, torch::kDouble);
  const auto log_q = [&](int64_t i, int64_t c) {
    double sum = 0;
    for (int64_t k = 0; k < 3; ++k) sum += std::exp(entry(logits[i], k));
    return entry(logits[i], c) - std::log(sum);
  };
  double expected = 0;
  for (const int64_t i : {0, 1, 3}) expected -= log_q(i, labels.label[i].item<int64_t>());
  for (int64_t c = 0; c < 3; ++c)
    expected += entry(labels.weight, 0) * entry(global[0], c) * (std::log(entry(global[0], c)) - log_q(0, c));
  EXPECT_NEAR(pseudo_loss(logits, labels).item<double>(), expected / 4, 1e-9);
}

TEST(FedLabel, OneExpertAloneIsAskedByTheBaselines) {
  const torch::Tensor local = torch::tensor({{0.99, 0.01}, {0.6, 0.4}}), global = torch::tensor({{0.3, 0.7}, {0.04, 0.96}});
  const PseudoLabels by_global = select_labels(local, global, Labeller::global_only, {});
  EXPECT_TRUE(torch::equal(by_global.label, torch::tensor({1, 1}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(by_global.accepted, torch::tensor({false, true})));
  const PseudoLabels by_local = select_labels(local, global, Labeller::local_only, {});
  EXPECT_TRUE(torch::equal(by_local.label, torch::tensor({0, 0}, torch::kInt64)));
  EXPECT_TRUE(torch::equal(by_local.accepted, torch::tensor({true, false})));
  EXPECT_EQ(by_local.weight.abs().max().item<double>(), 0);
}

TEST(FedLabel, AggregationIsTheWeightedMean) {
  const auto update = [](double value, int64_t step, double weight) {
    return ClientUpdate{.state = {{"w", torch::full({2}, value)}, {"n", torch::full({}, step, torch::kInt64)}},
                        .weight = weight,
                        .loss = 0,
                        .audit = {}};
  };
  const std::vector<ClientUpdate> updates = {update(1, 7, 3), update(-2, 9, 1)};
  const NamedTensors global = {{"w", torch::full({2}, 10.0)}, {"n", torch::zeros({}, torch::kInt64)}};
  aggregate(global, updates, 1);
  EXPECT_FLOAT_EQ(global[0].second[0].item<float>(), 0.25F);
  EXPECT_EQ(global[1].second.item<int64_t>(), 7);
  const NamedTensors half = {{"w", torch::full({2}, 10.0)}, {"n", torch::zeros({}, torch::kInt64)}};
  aggregate(half, updates, 0.5);
  EXPECT_FLOAT_EQ(half[0].second[1].item<float>(), 5.125F);
  EXPECT_THROW(aggregate(half, {update(1, 1, 0)}, 1), OptionError);
}

/// Three classes around three corners, six clients with two classes each; the first sample of each class is labelled.
FederatedTask corners() {
  FederatedTask task;
  task.title = "corners";
  task.classes = 3;
  Random random(4);
  std::vector<float> values;
  for (int64_t k = 0; k < 6; ++k) {
    FederatedClient client{.name = fmt::format("client {}", k), .labelled = {}, .unlabelled = {}};
    for (int64_t i = 0; i < 40; ++i) {
      const auto sample = std::ssize(task.labels);
      const auto label = static_cast<int32_t>((k + i % 2) % 3);
      (i < 2 ? client.labelled : client.unlabelled).push_back(sample);
      task.labels.push_back(label);
      for (int64_t c = 0; c < 8; ++c) values.push_back(static_cast<float>(random.normal() * 0.4 + (c == label ? 2 : 0)));
    }
    task.clients.push_back(std::move(client));
  }
  task.hidden = task.labels;
  use_features(task, torch::tensor(values).view({-1, 8}), 16, 1);
  return task;
}

FedLabelOptions few_rounds(int64_t rounds) {
  FedLabelOptions options;
  options.rounds = rounds;
  options.clients_per_round = 3;
  options.learning_rate = 0.2;
  options.seed = 5;
  return options;
}

class FedLabelRun : public testing::Test {
 protected:
  fs::path folder = fs::temp_directory_path() / fmt::format("lighten-fedlabel-{}", ::getpid());
  int threads = at::get_num_threads();
  void SetUp() override {
    set_quiet(true);
    at::set_num_threads(1);
  }
  void TearDown() override {
    at::set_num_threads(threads);
    fs::remove_all(folder);
    set_quiet(false);
  }
};

TEST_F(FedLabelRun, LearnsCountsItsBytesAndAuditsItsLabels) {
  const FederatedTask task = corners();
  const FederatedResult result = federate(task, Labeller::either, few_rounds(20));
  std::vector<int64_t> all;
  for (int64_t i = 0; i < std::ssize(task.labels); ++i) all.push_back(i);
  EXPECT_GT(federated_accuracy(task, result.net, all, task.labels), 0.95);
  // 20 rounds of 3 clients: the net of 8 x 16 + 16 + 16 x 3 + 3 floats each way, and 8 bytes more on the way up.
  const int64_t net = 4 * (8 * 16 + 16 + 16 * 3 + 3);
  EXPECT_EQ(result.bytes_down, 20 * 3 * net);
  EXPECT_EQ(result.bytes_up, 20 * 3 * (net + 8));
  EXPECT_EQ(result.rounds[3].observed.at("bytes_up").get<int64_t>(), 3 * (net + 8));
  EXPECT_EQ(result.audit.seen, 20 * 3 * 5 * 20);
  EXPECT_GT(result.audit.accepted, 0);
  int64_t histogram = 0;
  for (const int64_t number : result.audit.histogram) histogram += number;
  EXPECT_EQ(histogram, result.audit.accepted);
  EXPECT_GT(result.audit.right, 0.9 * static_cast<double>(result.audit.accepted));
  // FedAvg on labels sends the same.
  const FederatedResult plain = federate(task, Labeller::labelled_only, few_rounds(20));
  EXPECT_EQ(plain.bytes_down, result.bytes_down);
  EXPECT_EQ(plain.bytes_up, result.bytes_up);
  EXPECT_EQ(plain.audit.seen, 0);
}

TEST_F(FedLabelRun, ResumedItEndsInTheSameBytes) {
  FederatedTask task = corners();
  int calls = 0;
  bool stop = false;
  task.validate = [&](const FederatedNet& net) {
    if (stop && ++calls == 3) throw Interrupted("stopped");
    return federated_accuracy(task, net, task.clients[0].unlabelled, task.labels);
  };
  FedLabelOptions options = few_rounds(12);
  options.check_every = 2;
  const FederatedResult whole = federate(task, Labeller::either, options);
  stop = true;
  EXPECT_THROW(federate(task, Labeller::either, options, folder), Interrupted);
  stop = false;
  EXPECT_EQ(std::ranges::count(read_file(folder / "log.jsonl"), '\n'), 5);
  const FederatedResult resumed = federate(task, Labeller::either, options, folder);
  const NamedTensors a = state_of(*whole.net.module), b = state_of(*resumed.net.module);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(torch::equal(a[i].second, b[i].second)) << a[i].first;
  EXPECT_EQ(whole.audit.numbers(), resumed.audit.numbers());
  EXPECT_EQ(whole.bytes_up, resumed.bytes_up);
  EXPECT_EQ(whole.best_round, resumed.best_round);
  EXPECT_EQ(resumed.rounds.size(), 12u);
  options.threshold = 0.9;
  EXPECT_THROW(federate(task, Labeller::either, options, folder), OptionError);
}

TEST_F(FedLabelRun, AClientWithoutLabelsTakesPseudoLabelsOnlyAndIsLeftOutByFedAvg) {
  FederatedTask task = corners();
  for (const int64_t sample : task.clients[2].labelled) task.clients[2].unlabelled.push_back(sample);
  task.clients[2].labelled.clear();
  check_task(task);
  FedLabelOptions options = few_rounds(4);
  options.clients_per_round = 6;
  const FederatedResult plain = federate(task, Labeller::labelled_only, options);
  EXPECT_EQ(plain.rounds[0].observed.at("clients").size(), 5u);
  const FederatedResult both = federate(task, Labeller::either, options);
  EXPECT_EQ(both.rounds[0].observed.at("clients").size(), 6u);
  // With nothing learnt from labels the local expert is the global one: every tie goes to the global.
  const FederatedNet local = task.make_net(), global = task.make_net();
  options.threshold = 0;
  options.unlabelled_steps = 1;
  const ClientUpdate update = client_step(local, global, task, task.clients[2], Labeller::either, options, 3);
  EXPECT_EQ(update.audit.local, 0);
  EXPECT_EQ(update.audit.accepted, 20);
  EXPECT_EQ(update.weight, 40);
}

TEST(FedLabel, WhatCannotBeIsRefusedByName) {
  const auto message = [](const FederatedTask& task) -> std::string {
    try {
      check_task(task);
    } catch (const OptionError& error) {
      return error.what();
    }
    return "";
  };
  FederatedTask task = corners();
  task.clients[4] = {.name = "harbour", .labelled = {}, .unlabelled = {}};
  EXPECT_NE(message(task).find("'harbour' has no data"), std::string::npos);
  task = corners();
  for (FederatedClient& client : task.clients) client.labelled.clear();
  EXPECT_NE(message(task).find("no client has a label"), std::string::npos);
  task = corners();
  for (int32_t& label : task.labels) label = 1;
  EXPECT_NE(message(task).find("one class only"), std::string::npos);
  task = corners();
  task.labels[static_cast<size_t>(task.clients[1].labelled[0])] = 3;
  EXPECT_NE(message(task).find("label 3"), std::string::npos);
  EXPECT_THROW(labeller_of("fedprox"), OptionError);
}

}  // namespace
}  // namespace lighten
