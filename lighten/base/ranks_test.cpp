#include "lighten/base/ranks.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "lighten/base/launched.h"

namespace lighten {
namespace {

TEST(Ranks, AloneEveryCallLeavesValuesAsTheyAre) {
  Ranks& ranks = Ranks::world();
  EXPECT_EQ(ranks.size(), 1);
  EXPECT_TRUE(ranks.first());
  EXPECT_TRUE(tells_error(1));
  std::vector<float> values{1, 2, 3};
  ranks.sum(std::span(values));
  Ranks::Sum sum = ranks.start_sum(values);
  sum.wait();
  ranks.broadcast(std::as_writable_bytes(std::span(values)));
  ranks.barrier();
  EXPECT_EQ(values, (std::vector<float>{1, 2, 3}));
  const auto gathered = ranks.gather(std::as_bytes(std::span(values)));
  ASSERT_EQ(gathered.size(), 1u);
  EXPECT_EQ(gathered[0].size(), 12u);
}

TEST(Ranks, TheLauncherTellsHowManyThereAre) {
  ASSERT_EQ(launched_processes(), 1);
  ::setenv("OMPI_COMM_WORLD_SIZE", "3", 1);
  EXPECT_EQ(launched_processes(), 3);
  EXPECT_EQ(launched_rank(), 0);
  ::setenv("OMPI_COMM_WORLD_RANK", "2", 1);
  EXPECT_EQ(launched_rank(), 2);
  ::setenv("OMPI_COMM_WORLD_SIZE", "nonsense", 1);
  EXPECT_EQ(launched_processes(), 1);
  EXPECT_EQ(launched_rank(), 0);
  ::unsetenv("OMPI_COMM_WORLD_RANK");
  ::unsetenv("OMPI_COMM_WORLD_SIZE");
}

}  // namespace
}  // namespace lighten
