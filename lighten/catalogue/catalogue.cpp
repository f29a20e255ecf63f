#include "lighten/catalogue/catalogue.h"

#include <algorithm>

#include "lighten/base/error.h"
#include "lighten/catalogue/systems_table.h"
#include "lighten/compress/gptq.h"
#include "lighten/compress/rtn.h"
#include "lighten/systems/distillation/meal_v2/meal_v2.h"
#include "lighten/systems/distillation/vqgraph/vqgraph.h"
#include "lighten/systems/labels/bebr/bebr.h"
#include "lighten/systems/labels/dexml/dexml.h"
#include "lighten/systems/labels/erase/erase.h"
#include "lighten/systems/labels/fedlabel/fedlabel.h"
#include "lighten/systems/labels/llp_bp/llp_bp.h"
#include "lighten/systems/labels/lp_icp/lp_icp.h"
#include "lighten/systems/labels/nested_coteaching/nested_coteaching.h"
#include "lighten/systems/quantization/awq/awq.h"

namespace lighten {
namespace {

/// Every method once; add a line here when a system brings a transform or a rounding.
std::vector<MethodEntry> methods() {
  std::vector<MethodEntry> table;
  table.push_back(rtn_method());
  table.push_back(gptq_method());
  table.push_back(awq_method());
  return table;
}

/// Default options of a type, and their description.
template <typename Options>
MethodOptions fresh_options() {
  auto options = std::make_shared<Options>();
  OptionList described = describe(*options);
  return {options, std::move(described)};
}

/// The options of the systems that do not work on weights; add a line here with the system's folder.
const std::vector<std::pair<std::string, MethodOptions (*)()>>& system_options() {
  static const std::vector<std::pair<std::string, MethodOptions (*)()>> table = {
      {"bebr", fresh_options<BebrOptions>},       {"dexml", fresh_options<DexmlOptions>},
      {"erase", fresh_options<EraseOptions>},     {"fedlabel", fresh_options<FedLabelOptions>},
      {"llp-bp", fresh_options<LlpBpOptions>},    {"lp-icp", fresh_options<LpIcpOptions>},
      {"meal-v2", fresh_options<MealV2Options>},  {"nested-coteaching", fresh_options<NestedCoteachingOptions>},
      {"vqgraph", fresh_options<VqGraphOptions>},
  };
  return table;
}

std::vector<SystemEntry> make_systems() {
  std::vector<SystemEntry> entries;
  for (const SystemRow& row : systems_table()) {
    SystemEntry entry{row.id, row.title, row.family, row.summary, row.command, std::nullopt, false, false, row.name};
    if (row.recipe) entry.recipe = row.recipe();
    entry.implemented = row.recipe && !row.command.empty();
    entries.push_back(std::move(entry));
  }
  entries.push_back({"rtn", "Round to nearest", "quantization",
                     "the baseline that needs no data: every weight goes to the nearest level of its group",
                     "lighten quantize MODEL --method rtn --bits 4 -o OUT", std::nullopt, true, true, "RTN"});
  entries.push_back({"gptq", "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
                     "quantization", "the baseline that rounds column by column and lets the rest make up for the error",
                     "lighten quantize MODEL --method gptq --bits 4 --calib TEXT -o OUT", std::nullopt, true, true, "GPTQ"});
  return entries;
}

std::vector<fs::path> result_roots() {
  std::vector<fs::path> roots;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& start : {program, fs::current_path(error)})
    for (fs::path folder = start; !folder.empty(); folder = folder.parent_path()) {
      roots.push_back(folder);
      if (folder == folder.root_path()) break;
    }
  roots.push_back(program / "../share/lighten");
  return roots;
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == at)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

}  // namespace

const std::vector<SystemEntry>& systems() {
  static const std::vector<SystemEntry> entries = make_systems();
  return entries;
}

const SystemEntry* find_system(const std::string& id) {
  for (const SystemEntry& entry : systems())
    if (entry.id == id) return &entry;
  return nullptr;
}

const SystemEntry& system_of(const std::string& id) {
  if (const SystemEntry* entry = find_system(id)) return *entry;
  std::vector<std::string> ids;
  for (const SystemEntry& entry : systems()) ids.push_back(entry.id);
  throw OptionError(unknown_name_message("system", id, ids) + "; `lighten systems` lists them");
}

std::vector<std::string> families() {
  std::vector<std::string> names;
  for (const SystemRow& row : systems_table())
    if (std::find(names.begin(), names.end(), row.family) == names.end()) names.push_back(row.family);
  return names;
}

std::optional<Json> committed_result(const SystemEntry& system) {
  std::string folder = system.id;
  std::replace(folder.begin(), folder.end(), '-', '_');
  for (const fs::path& root : result_roots()) {
    const fs::path file = root / "lighten/systems" / system.family / folder / "result.json";
    std::error_code error;
    if (!fs::is_regular_file(file, error)) continue;
    try {
      return Json::parse(read_file(file));
    } catch (const Json::exception& fault) {
      throw_error<FormatError>("{}: not JSON: {}", file.string(), fault.what());
    }
  }
  return std::nullopt;
}

std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const MethodEntry& method : methods()) names.push_back(method.name);
  return names;
}

std::vector<MethodEntry> parse_method(const std::string& text) {
  std::vector<MethodEntry> chosen;
  for (const std::string& name : split(text, '+')) {
    std::vector<MethodEntry> table = methods();
    const auto found = std::find_if(table.begin(), table.end(), [&](const MethodEntry& method) { return method.name == name; });
    if (const SystemEntry* system = find_system(name); found == table.end() && system && !system->implemented)
      throw_error<OptionError>("'{}' is in the catalogue, but not implemented yet; methods are: {}", name,
                               fmt::join(method_names(), ", "));
    if (found == table.end())
      throw OptionError(unknown_name_message("method", name, method_names()) +
                        "; a transform and a rounding compose: awq+gptq");
    chosen.push_back(std::move(*found));
  }
  if (chosen.size() > 2) throw_error<OptionError>("--method {}: at most a transform and a rounding, as in awq+gptq", text);
  if (chosen.size() == 2) {
    if (!chosen[0].is_transform)
      throw_error<OptionError>("--method {}: {} is no transform; a transform stands first, as in awq+gptq", text,
                               chosen[0].name);
    if (!chosen[1].is_rounding || chosen[1].is_transform)
      throw_error<OptionError>("--method {}: {} is no plain rounding; a rounding (rtn or gptq) stands second, as in awq+gptq",
                               text, chosen[1].name);
  }
  return chosen;
}

std::optional<MethodOptions> method_options(const std::string& name) {
  for (MethodEntry& method : methods())
    if (method.name == name) return MethodOptions{method.options, method.described};
  for (const auto& [id, options] : system_options())
    if (id == name) return options();
  return std::nullopt;
}

void set_torch_threads(int threads) {
  if (threads > 0) torch::set_num_threads(threads);
}

std::string run_recipe(const std::string& id, RecipeSize size, uint64_t seed, const fs::path& folder, int threads) {
  const SystemEntry& system = system_of(id);
  if (!system.recipe) {
    std::string known;
    for (const SystemEntry& entry : systems())
      if (entry.recipe) known += (known.empty() ? "" : ", ") + entry.id;
    throw_error<OptionError>("{} has no recipe {}. Systems that can be reproduced: {}", id,
                             system.baseline ? "of its own: as a baseline it is measured in the recipes of others" : "yet",
                             known.empty() ? "none yet" : known);
  }
  set_torch_threads(threads);
  Bench bench(id, system.recipe->claim, size, seed, folder, threads);
  bench.version("torch", TORCH_VERSION);
  system.recipe->run(bench);
  return bench.finish();
}

}  // namespace lighten
