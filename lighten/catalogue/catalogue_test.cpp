#include "lighten/catalogue/catalogue.h"

#include <gtest/gtest.h>

#include <set>

#include "lighten/base/error.h"

namespace lighten {
namespace {

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const OptionError& error) {
    return error.what();
  }
  return "";
}

TEST(Catalogue, HoldsSeventySevenSystemsAndTheTwoBaselines) {
  std::set<std::string> ids;
  std::map<std::string, int> families;
  int baselines = 0;
  for (const SystemEntry& entry : systems()) {
    EXPECT_TRUE(ids.insert(entry.id).second) << entry.id << " stands twice";
    EXPECT_FALSE(entry.title.empty());
    EXPECT_FALSE(entry.summary.empty()) << entry.id;
    if (entry.baseline)
      ++baselines;
    else
      ++families[entry.family];
  }
  EXPECT_EQ(ids.size(), 79u);
  EXPECT_EQ(baselines, 2);
  const std::map<std::string, int> expected = {{"quantization", 12}, {"language_models", 15}, {"distillation", 13},
                                               {"labels", 15},       {"multimodal", 14},      {"vision", 8}};
  EXPECT_EQ(families, expected);
  EXPECT_EQ(lighten::families(),
            (std::vector<std::string>{"quantization", "language_models", "distillation", "labels", "multimodal", "vision"}));
}

TEST(Catalogue, ImplementedMeansARecipeAndACommand) {
  for (const SystemEntry& entry : systems()) {
    if (!entry.baseline) {
      EXPECT_EQ(entry.implemented, entry.recipe.has_value() && !entry.command.empty()) << entry.id;
    }
    if (entry.recipe) {
      EXPECT_EQ(entry.recipe->id, entry.id);
      EXPECT_TRUE(entry.recipe->run);
    }
  }
  EXPECT_TRUE(system_of("awq").implemented);
  EXPECT_FALSE(system_of("vptq").implemented);
}

TEST(Catalogue, EveryImplementedSystemDescribesItsOptions) {
  for (const SystemEntry& entry : systems()) {
    if (!entry.implemented) continue;
    const std::optional<MethodOptions> options = method_options(entry.id);
    ASSERT_TRUE(options) << entry.id;
    EXPECT_FALSE(options->described.empty()) << entry.id;
  }
}

TEST(Catalogue, UnknownSystemIsAnsweredWithTheNearestId) {
  EXPECT_NE(message_of([] { system_of("flatqant"); }).find("did you mean 'flatquant'?"), std::string::npos);
  EXPECT_NE(message_of([] { run_recipe("vptq", RecipeSize::smoke, 0, "unused", 1); }).find("no recipe yet"), std::string::npos);
}

TEST(Methods, ComposeATransformWithARounding) {
  const auto both = parse_method("awq+gptq");
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[0].name, "awq");
  EXPECT_EQ(both[1].name, "gptq");
  EXPECT_EQ(parse_method("rtn").size(), 1u);
}

TEST(Methods, OptionsAreFreshEachTime) {
  auto first = parse_method("awq");
  ASSERT_FALSE(first[0].described.empty());
  Option& option = first[0].described[0];
  const Json before = option.value();
  for (const char* value : {"false", "7"}) {
    try {
      option.set(value);
      break;
    } catch (const OptionError&) {
    }
  }
  EXPECT_EQ(parse_method("awq")[0].described[0].value(), before);
}

TEST(Methods, NonsenseIsRefusedWithAReason) {
  EXPECT_NE(message_of([] { parse_method("agw"); }).find("did you mean 'awq'?"), std::string::npos);
  EXPECT_NE(message_of([] { parse_method("gptq+awq"); }).find("a transform stands first"), std::string::npos);
  EXPECT_NE(message_of([] { parse_method("awq+awq"); }).find("rounding"), std::string::npos);
  EXPECT_NE(message_of([] { parse_method("awq+gptq+rtn"); }).find("at most"), std::string::npos);
  EXPECT_NE(message_of([] { parse_method(""); }).find("unknown method ''"), std::string::npos);
}

TEST(Catalogue, CommittedResultsAreWellFormed) {
  for (const SystemEntry& entry : systems()) {
    const auto result = committed_result(entry);
    if (!result) continue;
    EXPECT_EQ(result->at("id"), entry.id);
    EXPECT_FALSE(result->at("arms").empty());
    for (const Json& claim : result->at("claims"))
      EXPECT_EQ(claim.at("holds").get<bool>(), claim.at("margin").get<double>() > 0) << claim.at("text");
  }
}

}  // namespace
}  // namespace lighten
