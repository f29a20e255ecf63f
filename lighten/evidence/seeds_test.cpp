#include "lighten/evidence/seeds.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"

namespace lighten {
namespace {

TEST(SeedDifference, IsTheMeanOfPairsWithStudentsInterval) {
  // By hand: differences 1, 2, 6: mean 3, sd sqrt(7), t(2) = 4.303.
  const SeedDifference d = seed_difference({11, 12, 16}, {10, 10, 10});
  EXPECT_EQ(d.each, (std::vector<double>{1, 2, 6}));
  EXPECT_DOUBLE_EQ(d.mean, 3);
  EXPECT_NEAR(d.low, 3 - 4.303 * std::sqrt(7.0 / 3), 1e-9);
  EXPECT_NEAR(d.high, 3 + 4.303 * std::sqrt(7.0 / 3), 1e-9);
  EXPECT_EQ(d.text(1, 1), "+3.0 [-3.6, +9.6]");
  EXPECT_EQ(seed_difference({2}, {1}).text(), "+1.00 (one seed)");
  EXPECT_THROW(seed_difference({1, 2}, {1}), OptionError);
}

TEST(StudentT, AgreesWithItsTableAndTendsToTheNormal) {
  EXPECT_NEAR(student_t(4), 2.776, 1e-3);
  EXPECT_NEAR(student_t(31), 2.0395, 1e-3);
  EXPECT_NEAR(student_t(60), 2.0003, 1e-3);
  EXPECT_NEAR(student_t(100000), 1.95996, 1e-4);
}

TEST(RunSeeds, MeasuresSeedBySeedAndOnlyWhatIsMissing) {
  set_quiet(true);
  const fs::path folder = fs::temp_directory_path() / fmt::format("lighten-seeds-test-{}", ::getpid());
  fs::remove_all(folder);
  std::vector<std::string> order;
  const auto arm = [&](const std::string& name, double value) {
    return SeedArm{name, [&order, name, value](uint64_t seed) {
                     order.push_back(fmt::format("{}{}", name, seed));
                     return std::map<std::string, double>{{"accuracy", value + 0.01 * static_cast<double>(seed)}};
                   }};
  };
  {
    Bench bench("x", "claim", RecipeSize::smoke, 5, folder, 1);
    run_seeds(bench, {arm("a", 0.5), arm("b", 0.6)}, bench.seeds(2));
    EXPECT_EQ(order, (std::vector<std::string>{"a5", "b5", "a6", "b6"}));
  }
  Bench bench("x", "claim", RecipeSize::smoke, 5, folder, 1);
  order.clear();
  run_seeds(bench, {arm("a", 0.5), arm("b", 0.6)}, bench.seeds(3));
  EXPECT_EQ(order, (std::vector<std::string>{"a7", "b7"}));
  EXPECT_NEAR(claim_higher(bench, "b beats a", "b", "a", "accuracy").mean, 0.1, 1e-12);
  plot_sweep(bench, "sweep", "x", "accuracy", {{"both", {{1, "a"}, {2, "b"}, {3, "none"}}}});
  EXPECT_NE(bench.finish().find("holds  b beats a: +10.00 [+10.00, +10.00] points"), std::string::npos);
  fs::remove_all(folder);
  set_quiet(false);
}

}  // namespace
}  // namespace lighten
