#include "lighten/nn/graph.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"
#include "lighten/base/random.h"

namespace lighten {
namespace {

/// A random matrix with empty rows, and the same as a dense tensor.
struct Pair {
  Sparse sparse;
  torch::Tensor dense;
};
Pair random_matrix(int64_t rows, int64_t columns, double share, uint64_t seed, bool symmetric = false) {
  Random random(seed);
  torch::Tensor dense = torch::zeros({rows, columns});
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      if (i % 5 != 3 && random.uniform() < share) dense[i][j] = random.normal();
  if (symmetric) dense = ((dense + dense.t()).abs() > 0).to(torch::kFloat) * (1 - torch::eye(rows));
  std::vector<int64_t> begin = {0};
  std::vector<int32_t> column;
  std::vector<float> value;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j)
      if (dense[i][j].item<float>() != 0) {
        column.push_back(static_cast<int32_t>(j));
        value.push_back(dense[i][j].item<float>());
      }
    begin.push_back(std::ssize(column));
  }
  return {make_sparse(columns, begin, column, value), dense};
}

torch::Tensor dense_of(const Sparse& a) { return spmm(a, torch::eye(a->columns)); }

TEST(Graph, SpmmAndItsGradientsEqualTheDenseProduct) {
  const Pair a = random_matrix(17, 11, 0.3, 1);
  const torch::Tensor x = torch::randn({11, 6}).requires_grad_(true), turn = torch::randn({17, 6});
  const torch::Tensor y = spmm(a.sparse, x);
  EXPECT_TRUE(torch::allclose(y, torch::mm(a.dense, x), 1e-5, 1e-6));
  (y * turn).sum().backward();
  EXPECT_TRUE(torch::allclose(x.grad(), torch::mm(a.dense.t(), turn), 1e-5, 1e-6));
}

TEST(Graph, GradientsOfValuesAndFeaturesMatchFiniteDifferences) {
  const Pair a = random_matrix(9, 7, 0.4, 2);
  const auto kDouble = torch::kFloat64;
  const torch::Tensor value = torch::randn({a.sparse->entries()}, kDouble).requires_grad_(true);
  const torch::Tensor x = torch::randn({7, 3}, kDouble).requires_grad_(true), turn = torch::randn({9, 3}, kDouble);
  const auto loss = [&] { return (torch::tanh(spmm(a.sparse, value, x)) * turn).sum(); };
  loss().backward();
  for (const torch::Tensor& leaf : {value, x}) {
    const torch::NoGradGuard no_grad;
    torch::Tensor numeric = torch::zeros_like(leaf), flat = leaf.view(-1), grad = numeric.view(-1);
    for (int64_t i = 0; i < flat.size(0); ++i) {
      const double before = flat[i].item<double>(), step = 1e-6;
      flat[i] = before + step;
      const double up = loss().item<double>();
      flat[i] = before - step;
      grad[i] = (up - loss().item<double>()) / (2 * step);
      flat[i] = before;
    }
    EXPECT_TRUE(torch::allclose(leaf.grad(), numeric, 1e-5, 1e-7));
  }
}

TEST(Graph, NormalisationsByHand) {
  const Pair a = random_matrix(12, 12, 0.25, 3, true);
  const torch::Tensor with_loops = a.dense + torch::eye(12), degree = with_loops.sum(1);
  EXPECT_TRUE(torch::allclose(dense_of(normalised(a.sparse, Normalisation::symmetric, true)),
                              with_loops / (degree.unsqueeze(1) * degree).sqrt(), 1e-5, 1e-6));
  EXPECT_TRUE(torch::allclose(dense_of(normalised(a.sparse, Normalisation::row, true)), with_loops / degree.unsqueeze(1)));
  const torch::Tensor plain = a.dense.sum(0).clamp_min(1);
  EXPECT_TRUE(torch::allclose(dense_of(normalised(a.sparse, Normalisation::column, false)), a.dense / plain));
  std::vector<bool> kept(12, true);
  kept[2] = kept[7] = false;
  torch::Tensor expected = a.dense.clone();
  for (const int64_t i : {2, 7}) {
    expected[i].zero_();
    expected.select(1, i).zero_();
  }
  EXPECT_TRUE(torch::equal(dense_of(restricted(a.sparse, kept)), expected));
  const torch::Tensor y = torch::randn({12, 2});
  torch::Tensor by_hand = y;
  for (int i = 0; i < 3; ++i) by_hand = 0.4 * torch::mm(a.dense, by_hand) + 0.6 * by_hand;
  EXPECT_TRUE(torch::allclose(propagate(a.sparse, y, 0.6, 3), by_hand, 1e-4, 1e-5));
}

TEST(Graph, GcnAndGatEqualTheirDenseEquations) {
  const Pair a = random_matrix(14, 14, 0.2, 4, true);
  const torch::Tensor x = torch::randn({14, 5}), loops = a.dense + torch::eye(14);
  GraphNet gcn(GraphNetConfig{.kind = "gcn", .inputs = 5, .hidden = 8, .outputs = 3, .dropout = 0}, 1);
  const torch::Tensor degree = loops.sum(1), as = loops / (degree.unsqueeze(1) * degree).sqrt();
  torch::Tensor h = torch::relu(torch::mm(as, torch::mm(x, gcn->weights[0].t())) + gcn->biases[0]);
  h = torch::mm(as, torch::mm(h, gcn->weights[1].t())) + gcn->biases[1];
  EXPECT_TRUE(torch::allclose(gcn->forward(gcn->prepare(a.sparse), x), h, 1e-4, 1e-5));

  GraphNet gat(GraphNetConfig{.kind = "gat", .inputs = 5, .hidden = 8, .outputs = 3, .heads = 2, .dropout = 0}, 2);
  const auto attention = [&](const torch::Tensor& wx, const torch::Tensor& from, const torch::Tensor& to) {
    const torch::Tensor scores = torch::leaky_relu((wx * to).sum(1).unsqueeze(1) + (wx * from).sum(1).unsqueeze(0), 0.2);
    return torch::mm(torch::softmax(scores.masked_fill(loops == 0, -INFINITY), 1), wx);
  };
  torch::Tensor wx = torch::mm(x, gat->weights[0].t());
  h = torch::cat({attention(wx.slice(1, 0, 4), gat->attend_from[0][0], gat->attend_to[0][0]),
                  attention(wx.slice(1, 4, 8), gat->attend_from[0][1], gat->attend_to[0][1])},
                 1);
  h = torch::elu(h + gat->biases[0]);
  wx = torch::mm(h, gat->weights[1].t());
  h = attention(wx, gat->attend_from[1][0], gat->attend_to[1][0]) + gat->biases[1];
  const torch::Tensor found = gat->forward(gat->prepare(a.sparse), x);
  EXPECT_TRUE(torch::allclose(found, h, 1e-4, 1e-5));
  found.sum().backward();
  for (const auto& parameter : gat->parameters()) EXPECT_TRUE(parameter.grad().defined());
}

TEST(Graph, RefusesUnsoundMatrices) {
  EXPECT_THROW(make_sparse(3, {0, 2}, {1, 0}), ModelError);
  EXPECT_THROW(make_sparse(3, {0, 1}, {3}), ModelError);
  EXPECT_THROW(make_sparse(3, {0, 2}, {1}), ModelError);
  EXPECT_THROW(spmm(make_sparse(3, {0, 1}, {2}), torch::ones({2, 2})), ModelError);
  EXPECT_THROW(GraphNet(GraphNetConfig{.kind = "gat", .inputs = 2, .hidden = 9, .outputs = 2, .heads = 2}, 0), OptionError);
}

}  // namespace
}  // namespace lighten
