// The explicit table of the 77 systems and of the baselines, and the runner of their recipes. Knows nothing of torch.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lighten/evidence/recipe.h"

namespace lighten {

struct SystemEntry {
  std::string id;       ///< "awq"
  std::string title;    ///< "AWQ: Activation-aware Weight Quantization for ..."
  std::string family;   ///< "quantization"
  std::string summary;  ///< one line: what it is for
  std::string command;  ///< how a user calls it on own input; "" while not implemented
  std::optional<Recipe> recipe;
  bool implemented = false;  ///< the table holds a recipe and a function
  bool baseline = false;     ///< rtn, gptq: listed apart
  std::string name;          ///< "AWQ"
};
/// The 77 in order of family, then the baselines.
const std::vector<SystemEntry>& systems();
const SystemEntry* find_system(const std::string& id);
/// Throws OptionError with the nearest id.
const SystemEntry& system_of(const std::string& id);
/// The families in the order of the table.
std::vector<std::string> families();

/// The committed result.json of a system's last full run, looked for from the program's folder and the working folder upwards
/// (lighten/systems/FAMILY/ID/result.json) and in ../share/lighten of an installation. Nothing if there is none.
std::optional<Json> committed_result(const SystemEntry& system);

/// The options of the method or system of that name, with the object that they are bound to; nothing if it has none.
struct MethodOptions {
  std::shared_ptr<void> owner;
  OptionList described;
};
std::optional<MethodOptions> method_options(const std::string& name);

/// Runs the recipe into `folder` and returns the table and the claims as text. Throws OptionError if the system has none (names
/// those that have).
std::string run_recipe(const std::string& id, RecipeSize size, uint64_t seed, const fs::path& folder, int threads);

/// How many threads torch may use; 0 leaves it as it is.
void set_torch_threads(int threads);

}  // namespace lighten
