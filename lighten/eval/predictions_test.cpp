#include "lighten/eval/predictions.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"

namespace lighten {
namespace {

TEST(Predictions, TheLikeliestClassOfEveryRow) {
  const torch::Tensor p = torch::tensor({0.2F, 0.5F, 0.3F, 0.4F, 0.2F, 0.4F}).view({2, 3});
  EXPECT_EQ(predictions_csv(p, {"a", "b, or so", "c"}), "id,label,probability\n0,\"b, or so\",0.500000\n1,a,0.400000\n");
}

TEST(Predictions, TopListsClassesInOrderAndNeverMoreThanThereAre) {
  const torch::Tensor p = torch::tensor({0.2F, 0.5F, 0.3F}).view({1, 3});
  EXPECT_EQ(predictions_csv(p, {"a", "b", "c"}, {"x.png"}, 2),
            "id,rank,label,probability\nx.png,1,b,0.500000\nx.png,2,c,0.300000\n");
  EXPECT_EQ(predictions_csv(p, {"a", "b", "c"}, {"x.png"}, 9),
            "id,rank,label,probability\nx.png,1,b,0.500000\nx.png,2,c,0.300000\nx.png,3,a,0.200000\n");
}

TEST(Predictions, NamesAndIdsMustFit) {
  const torch::Tensor p = torch::ones({2, 3});
  EXPECT_THROW(predictions_csv(p, {"a", "b"}), OptionError);
  EXPECT_THROW(predictions_csv(p, {"a", "b", "c"}, {"one"}), OptionError);
}

}  // namespace
}  // namespace lighten
