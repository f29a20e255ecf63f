#include "lighten/data/dataset.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lighten/base/error.h"

namespace lighten {
namespace {

TEST(SplitOf, SharesAreThoseAskedFor) {
  std::vector<std::string> keys;
  for (int i = 0; i < 40000; ++i) keys.push_back(fmt::format("package-{}", i));
  const std::vector<Split> splits = split_all(keys, {.validation = 0.1, .test = 0.25});
  // A binomial share of 40,000 keys has a standard deviation of at most 0.0022: five of them.
  EXPECT_NEAR(static_cast<double>(samples_of(splits, Split::test).size()) / 40000, 0.25, 0.011);
  EXPECT_NEAR(static_cast<double>(samples_of(splits, Split::validation).size()) / 40000, 0.1, 0.0075);
}

TEST(SplitOf, DependsOnTheKeyAloneAndOnTheSeed) {
  EXPECT_EQ(stable_hash(""), 0xf52a15e9a9b5e89bull);  // splitmix64's mixing of FNV's offset basis
  int moved = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string key = fmt::format("k{}", i);
    EXPECT_EQ(split_of(key), split_of(key));
    moved += split_of(key, {.validation = 0, .test = 0.5}, 1) != split_of(key, {.validation = 0, .test = 0.5}, 2);
  }
  EXPECT_NEAR(moved, 500, 80);  // two independent fair draws differ half of the time
  // More test data takes keys from the others, and none from test.
  for (int i = 0; i < 1000; ++i) {
    const std::string key = fmt::format("k{}", i);
    if (split_of(key, {.validation = 0.1, .test = 0.2}) == Split::test) {
      EXPECT_EQ(split_of(key, {.validation = 0.1, .test = 0.3}), Split::test);
    }
  }
}

TEST(SplitOf, RefusesSharesThatLeaveNothing) { EXPECT_THROW(split_of("a", {.validation = 0.6, .test = 0.5}), OptionError); }

ImageSet two_pictures() {
  ImageSet set;
  set.channels = set.height = 1;
  set.width = 2;
  set.pixels = {1, 2, 3, 4};
  set.labels = {0, 1};
  set.class_names = {"a", "b"};
  set.ids = {"x", "y"};
  set.keys = {"font", "font"};
  set.splits = {Split::train, Split::train};
  return set;
}

template <typename Set>
std::string message(const Set& set) {
  try {
    check_set(set, "mine");
  } catch (const FormatError& error) {
    return error.what();
  }
  return "";
}

TEST(CheckSet, NamesTheSampleThatIsWrong) {
  ImageSet set = two_pictures();
  EXPECT_EQ(message(set), "");
  set.labels[1] = 2;
  EXPECT_EQ(message(set), "mine: sample 1 has label 2, but the set has 2 classes (0 to 1)");
  set = two_pictures();
  set.ids[1] = "x";
  EXPECT_EQ(message(set), "mine: samples 0 and 1 have the same id 'x'; ids must be unique");
  set = two_pictures();
  set.splits[1] = Split::test;
  EXPECT_EQ(message(set), "mine: the key 'font' stands in train and, at sample 1, in test data; split by key, never by sample");
  set = two_pictures();
  set.pixels.pop_back();
  EXPECT_NE(message(set).find("pixels"), std::string::npos);
}

TEST(CheckSet, GraphRowsAreSortedSymmetricAndFreeOfLoops) {
  GraphSet graph;
  graph.nodes.ids = {"a", "b", "c"};
  graph.nodes.texts = {"a", "b", "c"};
  graph.row_begin = {0, 1, 3, 4};
  graph.neighbours = {1, 0, 2, 1};
  EXPECT_EQ(message(graph), "");
  graph.neighbours = {1, 2, 0, 1};
  EXPECT_NE(message(graph).find("not ascending"), std::string::npos);
  graph.neighbours = {1, 0, 2, 0};
  EXPECT_NE(message(graph).find("one direction"), std::string::npos);
  graph.neighbours = {0, 0, 2, 1};
  EXPECT_NE(message(graph).find("to itself"), std::string::npos);
  graph.neighbours = {1, 0, 3, 1};
  EXPECT_NE(message(graph).find("node 3 of 3"), std::string::npos);
}

}  // namespace
}  // namespace lighten
