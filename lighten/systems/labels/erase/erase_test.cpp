#include "lighten/systems/labels/erase/erase.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"
#include "lighten/base/random.h"

namespace lighten {
namespace {

/// Two communities with a few edges between them, features that say little, labels of which `noise` are wrong.
GraphTask communities(int64_t n, double noise, uint64_t seed, std::vector<int32_t>* truth = nullptr) {
  Random random(seed);
  std::vector<std::vector<int32_t>> rows(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = i + 1; j < n; ++j)
      if (random.uniform() < (i % 2 == j % 2 ? 0.12 : 0.01)) {
        rows[static_cast<size_t>(i)].push_back(static_cast<int32_t>(j));
        rows[static_cast<size_t>(j)].push_back(static_cast<int32_t>(i));
      }
  std::vector<int64_t> begin = {0};
  std::vector<int32_t> columns;
  GraphTask task;
  task.classes = 2;
  task.x = torch::zeros({n, 6});
  for (int64_t i = 0; i < n; ++i) {
    std::sort(rows[static_cast<size_t>(i)].begin(), rows[static_cast<size_t>(i)].end());
    columns.insert(columns.end(), rows[static_cast<size_t>(i)].begin(), rows[static_cast<size_t>(i)].end());
    begin.push_back(std::ssize(columns));
    for (int64_t c = 0; c < 6; ++c) task.x[i][c] = random.normal() + (c == i % 2 ? 0.5 : 0.0);
    if (truth) truth->push_back(static_cast<int32_t>(i % 2));
    const bool train = i % 3 != 0;
    task.labels.push_back(static_cast<int32_t>(train && random.uniform() < noise ? 1 - i % 2 : i % 2));
    if (train)
      task.train.push_back(i);
    else if (i % 6 == 0)
      task.validation.push_back(i);
  }
  task.adjacency = make_sparse(n, begin, columns);
  return task;
}

TEST(Erase, CodingRateIsHalfTheLogDeterminantWhicheverGramMatrixIsUsed) {
  torch::manual_seed(1);
  for (const auto& [m, d] : {std::pair<int64_t, int64_t>{5, 9}, {9, 5}}) {
    const torch::Tensor z = torch::randn({m, d}, torch::kDouble).requires_grad_(true);
    const double expected = 0.5 * torch::logdet(torch::eye(d, torch::kDouble) + 0.7 * torch::mm(z.t(), z)).item<double>();
    const torch::Tensor rate = coding_rate(z, 0.7);
    EXPECT_NEAR(rate.item<double>(), expected, 1e-10);
    rate.backward();
    // d/dZ of 1/2 logdet(I + s Z^T Z) = s Z (I + s Z^T Z)^-1.
    const torch::Tensor gradient =
        0.7 * torch::mm(z, torch::inverse(torch::eye(d, torch::kDouble) + 0.7 * torch::mm(z.t(), z))).detach();
    EXPECT_TRUE(torch::allclose(z.grad(), gradient, 1e-8, 1e-10));
  }
}

TEST(Erase, LossIsTheFormulaWithMembershipMatrices) {
  torch::manual_seed(2);
  const torch::Tensor z = torch::randn({12, 4}, torch::kDouble);
  const torch::Tensor labels = torch::tensor({0, 1, 2, 0, 1, 2, 0, 1, 0, 0, 1, 0});  // class 3 has nobody
  EraseOptions options;
  options.gamma1 = 1.3;
  // The paper's form: W = Z^T [d, n] and diagonal membership matrices [n, n].
  const torch::Tensor w = z.t(), eye = torch::eye(4, torch::kDouble);
  double expected = -options.gamma2 / 2 *
                    torch::logdet(eye + options.gamma1 * 4 / (12 * options.epsilon) * torch::mm(w, w.t())).item<double>();
  for (int64_t j = 0; j < 3; ++j) {
    const torch::Tensor pi = torch::diag((labels == j).to(torch::kDouble));
    const double trace = pi.trace().item<double>();
    expected += options.gamma1 * trace / 12 / 2 *
                torch::logdet(eye + 4 / (trace * options.epsilon) * torch::mm(torch::mm(w, pi), w.t())).item<double>();
  }
  EXPECT_NEAR(coding_rate_loss(z, labels, 4, options).item<double>(), expected, 1e-9);
}

TEST(Erase, DenoisingStaysAmongTrainingNodes) {
  GraphTask task = communities(60, 0.3, 3);
  EraseOptions options;
  options.alpha = 0.4;
  const torch::Tensor y = denoised_labels(task, options);
  for (int64_t i = 0; i < 60; i += 3) EXPECT_EQ(y[i].abs().sum().item<double>(), 0) << i;  // not for training
  // By hand: dense matrices.
  torch::Tensor a = spmm(task.adjacency, torch::eye(60)), by_hand = torch::zeros({60, 2});
  for (int64_t i = 0; i < 60; i += 3) {
    a[i].zero_();
    a.select(1, i).zero_();
  }
  for (const int64_t i : task.train) by_hand[i][task.labels[static_cast<size_t>(i)]] = 1;
  const torch::Tensor column = a / a.sum(0).clamp_min(1);
  for (int i = 0; i < 5; ++i) by_hand = 0.6 * torch::mm(column, by_hand) + 0.4 * by_hand;
  EXPECT_TRUE(torch::allclose(y, by_hand, 1e-4, 1e-6));
  options.denoise = false;
  EXPECT_EQ(denoised_labels(task, options).sum().item<double>(), static_cast<double>(task.train.size()));
}

TEST(Erase, FindsTheCommunitiesUnderNoiseAndIsRepeatable) {
  std::vector<int32_t> truth;
  const GraphTask task = communities(240, 0.35, 4, &truth);
  EraseOptions options;
  options.hidden = 16;
  options.heads = 2;
  options.embedding = 8;
  options.epochs = 40;
  options.learning_rate = 0.01;
  const EraseResult result = erase(task, options);
  std::vector<int64_t> hidden_nodes;
  for (int64_t i = 3; i < 240; i += 6) hidden_nodes.push_back(i);
  EXPECT_GT(accuracy_on(hidden_nodes, argmax_of(result.probabilities), truth), 0.9);
  // The labels it trained on in the end are better than those that it was given.
  EXPECT_GT(accuracy_on(task.train, result.denoised, truth), accuracy_on(task.train, task.labels, truth) + 0.15);
  EXPECT_TRUE(torch::equal(erase(task, options).embeddings, result.embeddings));
}

TEST(Erase, RefusesTasksThatCannotBe) {
  GraphTask task = communities(12, 0, 5);
  GraphTask wrong = task;
  wrong.train.clear();
  EXPECT_THROW(erase(wrong), OptionError);
  wrong = task;
  wrong.labels[1] = 2;
  EXPECT_THROW(erase(wrong), OptionError);
  wrong = task;
  wrong.x = torch::zeros({11, 6});
  EXPECT_THROW(erase(wrong), OptionError);
}

}  // namespace
}  // namespace lighten
