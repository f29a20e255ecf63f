#include "lighten/nn/knn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace lighten {
namespace {

TEST(Knn, EqualsBruteForceAcrossBlocks) {
  torch::manual_seed(5);
  const torch::Tensor x = torch::randn({1100, 4}), unit = x / x.norm(2, 1, true);  // more rows than a block holds
  const torch::Tensor cosine = torch::mm(unit.to(torch::kDouble), unit.to(torch::kDouble).t());
  std::set<std::pair<int32_t, int32_t>> expected;
  for (int32_t i = 0; i < 1100; ++i) {
    std::vector<std::pair<double, int32_t>> order;
    for (int32_t j = 0; j < 1100; ++j)
      if (j != i) order.emplace_back(-cosine[i].data_ptr<double>()[j], j);
    std::partial_sort(order.begin(), order.begin() + 3, order.end());
    for (int c = 0; c < 3; ++c) expected.insert(std::minmax(i, order[static_cast<size_t>(c)].second));
  }
  const KnnGraph graph = knn_graph(x, 3);
  EXPECT_EQ(std::set(graph.edges.begin(), graph.edges.end()), expected);
  EXPECT_TRUE(std::is_sorted(graph.edges.begin(), graph.edges.end()));
  for (size_t k = 0; k < graph.edges.size(); k += 97)
    EXPECT_NEAR(graph.distances[k], 1 - cosine[graph.edges[k].first][graph.edges[k].second].item<double>(), 1e-5);
  for (const double distance : knn_graph(x, 3, 0.001).distances) EXPECT_LT(distance, 0.001);
  EXPECT_TRUE(knn_graph(x.slice(0, 0, 1), 3).edges.empty());
}

}  // namespace
}  // namespace lighten
