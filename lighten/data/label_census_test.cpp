#include "lighten/data/label_census.h"

#include <gtest/gtest.h>

namespace lighten {
namespace {

TEST(LabelCensus, RareClassesAreNamedWithTheirRowsAndTheNearestClass) {
  LabelCensus census;
  for (int line = 2; line < 8; ++line) census.add(line % 2 == 0 ? "green" : "red", "l.csv", line);
  EXPECT_EQ(census.rare_classes(), "");
  census.add("gren", "l.csv", 9);
  census.add("violet", "m.csv", 3);
  census.add("violet", "m.csv", 4);
  EXPECT_EQ(census.rare_classes(),
            "2 of 4 classes have fewer than 3 labels; misspelt?\n  'gren' (l.csv: line 9); did you mean 'green'?\n"
            "  'violet' (m.csv: line 3, m.csv: line 4)");
}

TEST(LabelCensus, OfManyRareClassesTenAreListed) {
  LabelCensus census;
  for (int i = 0; i < 13; ++i) census.add(std::string(1, static_cast<char>('a' + i)), "l.csv", i);
  const std::string text = census.rare_classes();
  EXPECT_NE(text.find("'j' (l.csv: line 9)"), std::string::npos);
  EXPECT_EQ(text.find("'k'"), std::string::npos);
  EXPECT_NE(text.find("and 3 more"), std::string::npos);
}

}  // namespace
}  // namespace lighten
