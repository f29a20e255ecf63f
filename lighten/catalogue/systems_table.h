// The rows of the table of systems: facts about each, and what is implemented of it.
#pragma once
#include <string>
#include <vector>

#include "lighten/evidence/recipe.h"

namespace lighten {

/// One system. `command` and `recipe` stay empty until its folder is complete.
struct SystemRow {
  std::string id, name, title, family, summary;
  std::string command = {};
  Recipe (*recipe)() = nullptr;
};
/// The 77, family by family.
const std::vector<SystemRow>& systems_table();

}  // namespace lighten
