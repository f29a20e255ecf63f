#include "lighten/systems/distillation/vqgraph/vqgraph.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lighten/base/random.h"

namespace lighten {
namespace {

/// Three communities whose features tell little by themselves.
GraphTask communities(int64_t n, uint64_t seed) {
  Random random(seed);
  std::vector<std::vector<int32_t>> rows(static_cast<size_t>(n));
  GraphTask task;
  task.classes = 3;
  task.x = torch::zeros({n, 8});
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = i + 1; j < n; ++j)
      if (random.uniform() < (i % 3 == j % 3 ? 0.1 : 0.01)) {
        rows[static_cast<size_t>(i)].push_back(static_cast<int32_t>(j));
        rows[static_cast<size_t>(j)].push_back(static_cast<int32_t>(i));
      }
    for (int64_t c = 0; c < 8; ++c) task.x[i][c] = random.normal() + (c == i % 3 ? 1.2 : 0.0);
    task.labels.push_back(static_cast<int32_t>(i % 3));
    if (i % 5 == 0) task.train.push_back(i);
    if (i % 5 == 1) task.validation.push_back(i);
  }
  std::vector<int64_t> begin = {0};
  std::vector<int32_t> columns;
  for (auto& row : rows) {
    std::sort(row.begin(), row.end());
    columns.insert(columns.end(), row.begin(), row.end());
    begin.push_back(std::ssize(columns));
  }
  task.adjacency = make_sparse(n, begin, columns);
  return task;
}

TEST(VqGraph, CodesFollowTheUnitVectorsAssignedToThem) {
  torch::manual_seed(1);
  const torch::Tensor x = torch::randn({40, 5});
  Codebook book(x, 6, 0.8, 3);
  EXPECT_TRUE(torch::allclose(book.codes().norm(2, 1), torch::ones({6})));
  const torch::Tensor before = book.codes().clone(), assigned = book.assign(x);
  const torch::Tensor unit = x / x.norm(2, 1, true);
  for (int64_t i = 0; i < 40; ++i) {  // the nearest code by angle
    int64_t best = 0;
    for (int64_t k = 1; k < 6; ++k)
      if ((unit[i] * before[k]).sum().item<float>() > (unit[i] * before[best]).sum().item<float>()) best = k;
    EXPECT_EQ(assigned[i].item<int64_t>(), best);
  }
  const torch::Tensor only = torch::zeros({40}, torch::kInt64);  // all to code 0
  book.update(x, only);
  torch::Tensor mean = unit.sum(0);
  mean = mean / mean.norm();
  torch::Tensor expected = 0.8 * before[0] + 0.2 * mean;
  EXPECT_TRUE(torch::allclose(book.codes()[0], expected / expected.norm(), 1e-4, 1e-5));
  EXPECT_TRUE(torch::equal(book.codes().slice(0, 1), before.slice(0, 1)));  // codes that nobody chose stay
}

TEST(VqGraph, CodeLossIsTheDivergenceByHand) {
  torch::manual_seed(2);
  const torch::Tensor a = torch::randn({4, 7}), s = torch::randn({4, 7});
  double expected = 0;
  for (int64_t i = 0; i < 4; ++i) {
    double za = 0, zs = 0;
    for (int64_t k = 0; k < 7; ++k) {
      za += std::exp(a[i][k].item<double>() / 3);
      zs += std::exp(s[i][k].item<double>() / 3);
    }
    for (int64_t k = 0; k < 7; ++k) {
      const double p = std::exp(a[i][k].item<double>() / 3) / za, q = std::exp(s[i][k].item<double>() / 3) / zs;
      expected += 9 * p * std::log(p / q) / 4;
    }
  }
  EXPECT_NEAR(soft_code_loss(a, s, 3).item<double>(), expected, 1e-5);
  EXPECT_NEAR(soft_code_loss(a, a, 3).item<double>(), 0, 1e-6);
  const torch::Tensor codes = torch::randn({7, 5}), mapped = torch::randn({4, 5});
  EXPECT_TRUE(torch::allclose(code_scores(mapped, codes, "l2"), -torch::cdist(mapped, codes), 1e-3, 1e-4));
  const torch::Tensor unit_codes = codes / codes.norm(2, 1, true);
  EXPECT_TRUE(torch::allclose(code_scores(mapped, unit_codes, "cosine"),
                              torch::mm(mapped / mapped.norm(2, 1, true), unit_codes.t()), 1e-4, 1e-5));
}

TEST(VqGraph, TheTeacherSeesTheGraphAndTheStudentNeedsNone) {
  const GraphTask task = communities(300, 5);
  VqGraphOptions options;
  options.codes = 24;
  options.width = 16;
  options.hidden = 16;
  options.teacher_epochs = 60;
  options.epochs = 40;
  const VqGraphResult result = vqgraph(task, options);
  std::vector<int64_t> others;
  for (int64_t i = 0; i < 300; ++i)
    if (i % 5 > 1) others.push_back(i);
  EXPECT_GT(accuracy_on(others, argmax_of(result.teacher.logits), task.labels), 0.85);
  EXPECT_GT(result.teacher.used_codes, 0.1);
  EXPECT_EQ(result.teacher.assignments.sizes(), (std::vector<int64_t>{300, 24}));
  // Features alone separate three classes by 1.2 deviations: about 0.7 at best. The student reads nothing else.
  FeatureNet student = result.student.net;
  const double alone = accuracy_on(others, argmax_of(predict(student, task.x)), task.labels);
  EXPECT_GT(alone, 0.6);
  const VqGraphResult again = vqgraph(task, options);
  EXPECT_TRUE(torch::equal(again.teacher.logits, result.teacher.logits));
  FeatureNet other = again.student.net;
  EXPECT_TRUE(torch::equal(predict(other, task.x), predict(student, task.x)));
}

}  // namespace
}  // namespace lighten
