#include "lighten/catalogue/tasks.h"

#include <gtest/gtest.h>

#include <set>

#include "lighten/base/error.h"

namespace lighten {
namespace {

TEST(Tasks, EveryRowIsCompleteAndNamedOnce) {
  std::set<std::string> seen;
  for (const TaskMethod& method : task_methods()) {
    EXPECT_TRUE(seen.insert(method.verb + " " + method.task + " " + method.name).second) << method.name;
    EXPECT_TRUE(method.run) << method.name;
    EXPECT_EQ(!method.apply, method.apply_options.empty()) << method.name;
    EXPECT_EQ(!method.apply, method.verb + " " + method.task != "train classify") << "what classifies is used later";
    EXPECT_FALSE(method.summary.empty()) << method.name;
    EXPECT_TRUE(method.example.starts_with("lighten " + method.verb + (method.task.empty() ? "" : " " + method.task)))
        << method.example;
  }
}

TEST(Tasks, DefaultsAreAllowedAndNoFlagStandsForTwoThings) {
  for (const TaskMethod& method : task_methods()) {
    validate(method.files);
    validate(method.options);
    std::set<std::string> names;
    for (const OptionList* list : {&method.files, &method.options, &method.apply_options})
      for (const Option& option : *list) EXPECT_TRUE(names.insert(option.name).second) << method.name << " --" << option.name;
  }
}

TEST(Tasks, RowsShareNoOptions) {
  std::vector<TaskMethod> first = task_methods(), second = task_methods();
  const auto epochs = [](std::vector<TaskMethod>& methods) -> Option& {
    for (Option& option : methods[0].options)
      if (option.name == "epochs") return option;
    throw OptionError("no epochs");
  };
  epochs(first).set("77");
  EXPECT_EQ(epochs(first).value(), 77);
  EXPECT_NE(epochs(second).value(), 77);
}

TEST(Tasks, AMissingOptionIsNamed) {
  EXPECT_NO_THROW(require_option("x", "data", "a folder"));
  try {
    require_option("", "data", "a folder");
    FAIL();
  } catch (const OptionError& error) {
    EXPECT_STREQ(error.what(), "--data is missing: a folder");
  }
}

}  // namespace
}  // namespace lighten
