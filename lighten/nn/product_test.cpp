#include "lighten/nn/product.h"

#include <gtest/gtest.h>

namespace lighten {
namespace {

TEST(Product, EqualsTheSumInDoubleForAnyStridesAndShapes) {
  torch::manual_seed(3);
  const auto expect_near = [](const torch::Tensor& got, const torch::Tensor& x, const torch::Tensor& w,
                              const torch::Tensor& b) {
    torch::Tensor expected = torch::matmul(x.to(torch::kDouble), w.to(torch::kDouble).t());
    if (b.defined()) expected = expected + b.to(torch::kDouble);
    ASSERT_EQ(got.sizes(), expected.sizes());
    EXPECT_LT(((got.to(torch::kDouble) - expected).norm() / expected.norm()).item<double>(), 1e-6);
  };
  torch::NoGradGuard no_grad;
  for (const int64_t in : {1, 7, 64, 576})
    for (const int64_t out : {1, 5, 192})
      for (const bool biased : {false, true}) {
        const torch::Tensor x = torch::randn({3, 11, in}), w = torch::randn({out, in});
        const torch::Tensor b = biased ? torch::randn({out}) : torch::Tensor();
        expect_near(product(x, w, b), x, w, b);
        const torch::Tensor turned = torch::randn({in, out}).t(), wide = torch::randn({9, 2 * in}).slice(1, in);
        expect_near(product(wide, turned, b), wide, turned, b);
      }
  const torch::Tensor padded = torch::randn({300, 200}), y = torch::randn({30, 64});
  expect_near(product(y, padded.slice(1, 7, 71)), y, padded.slice(1, 7, 71), {});
  expect_near(product(y, padded.slice(0, 7, 71).slice(1, 3, 90).t()), y, padded.slice(0, 7, 71).slice(1, 3, 90).t(), {});
  const torch::Tensor x = torch::randn({40, 24});
  expect_near(product(x.t(), x.t()), x.t(), x.t(), {});  // a Gram matrix
}

TEST(Product, KeepsGradientsWhereTheyAreWanted) {
  const torch::Tensor x = torch::randn({4, 6}), w = torch::randn({5, 6}).requires_grad_(true);
  product(x, w).sum().backward();
  EXPECT_TRUE(torch::allclose(w.grad(), x.sum(0).expand({5, 6})));
}

TEST(Product, GradientsEqualThoseInDouble) {
  torch::manual_seed(4);
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{24, 7}, {7, 24}})
    for (const bool biased : {false, true}) {
      const torch::Tensor x = torch::randn({3, 10, in}).requires_grad_(true), w = torch::randn({out, in}).requires_grad_(true);
      const torch::Tensor b = biased ? torch::randn({out}).requires_grad_(true) : torch::Tensor();
      const torch::Tensor turn = torch::randn({3, 10, out});
      (product(x, w, b).square() * turn).sum().backward();
      const auto doubled = [](const torch::Tensor& t) { return t.detach().to(torch::kDouble).requires_grad_(true); };
      const torch::Tensor dx = doubled(x), dw = doubled(w), db = biased ? doubled(b) : torch::Tensor();
      (torch::linear(dx, dw, db).square() * turn).sum().backward();
      const auto expect_near = [](const torch::Tensor& got, const torch::Tensor& wanted) {
        EXPECT_LT(((got.to(torch::kDouble) - wanted).norm() / wanted.norm()).item<double>(), 1e-6);
      };
      expect_near(x.grad(), dx.grad());
      expect_near(w.grad(), dw.grad());
      if (biased) expect_near(b.grad(), db.grad());
    }
  // What asks for no gradient gets none, and second derivatives exist.
  const torch::Tensor x = torch::randn({5, 4}), w = torch::randn({3, 4}).requires_grad_(true);
  const torch::Tensor first = torch::autograd::grad({product(x, w).pow(3).sum()}, {w}, {}, true, true)[0];
  const torch::Tensor second = torch::autograd::grad({first.sum()}, {w})[0];
  const torch::Tensor y = torch::linear(x, w);
  EXPECT_TRUE(torch::allclose(second, torch::mm((6 * y * x.sum(1, true)).t(), x), 1e-4, 1e-4));
  EXPECT_FALSE(x.grad().defined());
}

TEST(Product, TakesOtherTypesAndEmptyBatches) {
  torch::NoGradGuard no_grad;
  EXPECT_EQ(product(torch::randn({2, 3}, torch::kDouble), torch::randn({4, 3}, torch::kDouble)).scalar_type(), torch::kDouble);
  EXPECT_EQ(product(torch::randn({0, 3}), torch::randn({4, 3})).sizes(), (std::vector<int64_t>{0, 4}));
}

}  // namespace
}  // namespace lighten
