// lighten systems: the catalogue of the 77.
#include <algorithm>
#include <iostream>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/base/table.h"
#include "lighten/catalogue/systems.h"

namespace lighten {
namespace {

std::string family_title(std::string family) {
  std::replace(family.begin(), family.end(), '_', ' ');
  family[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(family[0])));
  return family;
}

/// "3 of 3 claims hold (full run)", or "".
std::string result_text(const SystemEntry& entry) {
  const auto result = committed_result(entry);
  if (!result) return "";
  const Json& claims = result->at("claims");
  const auto holding =
      std::count_if(claims.begin(), claims.end(), [](const Json& claim) { return claim.at("holds").get<bool>(); });
  return fmt::format("{} of {} claims hold ({} run)", holding, claims.size(), result->at("size").get<std::string>());
}

Json row_of(const SystemEntry& entry) {
  Json row = {{"id", entry.id},
              {"title", entry.title},
              {"family", entry.family},
              {"implemented", entry.implemented},
              {"command", entry.command}};
  const auto result = committed_result(entry);
  row["result"] = result ? Json{{"summary", result_text(entry)}, {"size", result->at("size")}, {"claims", result->at("claims")}}
                         : Json(nullptr);
  return row;
}

void print_table() {
  int implemented = 0, all = 0;
  for (const std::string& family : families()) {
    Table table({"", "id", "what it is for"});
    for (const SystemEntry& entry : systems()) {
      if (entry.family != family || entry.baseline) continue;
      table.row({entry.implemented ? "x" : "-", entry.id, entry.summary});
      ++all;
      implemented += entry.implemented;
    }
    fmt::print("{}\n{}\n", family_title(family), table.text());
  }
  Table baselines({"", "id", "what it is for"});
  for (const SystemEntry& entry : systems())
    if (entry.baseline) baselines.row({"x", entry.id, entry.summary});
  fmt::print("Baselines\n{}\nx: ready to use, {} of {}. `lighten systems ID` tells more.\n", baselines.text(), implemented,
             all);
}

void print_markdown() {
  for (const std::string& family : families()) {
    fmt::print("\n**{}**\n\n", family_title(family));
    Table table({"", "id", "paper", "what it is for"});
    for (const SystemEntry& entry : systems()) {
      if (entry.family != family || entry.baseline) continue;
      std::string folder = entry.id;
      std::replace(folder.begin(), folder.end(), '-', '_');
      const std::string id = entry.implemented
                                 ? fmt::format("[`{}`](lighten/systems/{}/{}/README.md)", entry.id, family, folder)
                                 : "`" + entry.id + "`";
      table.row({entry.implemented ? "✓" : "", id, entry.title, entry.summary});
    }
    fmt::print("{}", table.markdown());
  }
}

int show(const Common& common, const std::string& id) {
  const SystemEntry& entry = system_of(id);
  Table table({entry.id, entry.name});
  table.row({"paper", entry.title});
  table.row({"family", family_title(entry.family)});
  table.row({"for", entry.summary});
  table.row({"state", entry.baseline ? "baseline" : entry.implemented ? "ready to use" : "not implemented yet"});
  if (!entry.command.empty()) table.row({"command", entry.command});
  if (entry.recipe) {
    table.row({"claim", entry.recipe->claim});
    table.row({"reproduce", "lighten reproduce " + entry.id});
  }
  if (const std::string result = result_text(entry); !result.empty()) table.row({"measured", result});
  const bool print = common.for_people();
  if (print) std::cout << table.text();
  Json json = row_of(entry);
  json["name"] = entry.name;
  json["summary"] = entry.summary;
  if (const auto result = committed_result(entry); result && print)
    for (const Json& claim : result->at("claims"))
      fmt::print("  {}  {} (margin {:+.1f} %)\n", claim.at("holds").get<bool>() ? "holds" : "FAILS",
                 claim.at("text").get<std::string>(), 100 * claim.at("margin").get<double>());
  if (const auto options = method_options(id)) {
    Table flags({"option", "default", "allowed", "meaning", "source"});
    for (const Option& option : options->described)
      flags.row({"--" + option.name, option.value_text(), option.allowed.text, option.doc, option.source});
    if (print) fmt::print("\n{}", flags.text());
    json["options"] = to_json(options->described);
    json["options_markdown"] = to_markdown(options->described);
  }
  write_json(common, json);
  return 0;
}

}  // namespace

Verb systems_verb(CLI::App& root) {
  Verb verb = make_verb(root, "systems", "the catalogue of the 77 published systems: state, command, measured result",
                        "  lighten systems\n"
                        "  lighten systems awq\n"
                        "  lighten systems --json systems.json\n");
  struct Options {
    std::string id;
    bool markdown = false;
  };
  auto options = std::make_shared<Options>();
  verb.app->add_option("ID", options->id, "one system");
  verb.app->add_flag("--markdown", options->markdown, "the map as README.md holds it");
  verb.run = [options, common = verb.common] {
    if (!options->id.empty()) return show(*common, options->id);
    if (common->for_people()) options->markdown ? print_markdown() : print_table();
    Json rows = Json::array();
    for (const SystemEntry& entry : systems())
      if (!entry.baseline) rows.push_back(row_of(entry));
    write_json(*common, rows);
    return 0;
  };
  return verb;
}

}  // namespace lighten
