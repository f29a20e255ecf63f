// The explicit table of the 77 systems and of the baselines.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lighten/compress/method.h"
#include "lighten/evidence/recipe.h"

namespace lighten {

struct SystemEntry {
  std::string id;        ///< "awq"
  std::string title;     ///< "AWQ: Activation-aware Weight Quantization for ..."
  std::string family;    ///< "quantization"
  std::string summary;   ///< one line: what it is for
  std::string command;   ///< how a user calls it on own input; "" while not implemented
  std::optional<Recipe> recipe;
  bool implemented = false;  ///< the table holds a recipe and a function
  bool baseline = false;     ///< rtn, gptq: listed apart
};
/// The 77 in order of family, then the baselines.
const std::vector<SystemEntry>& systems();
const SystemEntry* find_system(const std::string& id);

/// The methods that `--method` accepts, each with fresh default options.
std::vector<std::string> method_names();
/// "awq+gptq" -> entries in order. Throws OptionError with the nearest name; a transform must stand before a rounding, at most one of each.
std::vector<MethodEntry> parse_method(const std::string& text);

}  // namespace lighten
