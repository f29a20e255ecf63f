#include "lighten/apps/lighten/verbs.h"

#include <algorithm>
#include <iostream>

#include "lighten/apps/arguments.h"
#include "lighten/base/error.h"
#include "lighten/base/ranks.h"
#include "lighten/data/packages.h"

namespace lighten {
namespace {

std::string description_of(const Option& option) {
  std::string text = option.doc;
  std::vector<std::string> facts;
  if (const std::string value = option.value_text(); !value.empty())
    facts.push_back("default " + value + (option.unit.empty() ? "" : " " + option.unit));
  if (!option.source.empty() && option.source != "Lighten") facts.push_back(option.source);
  if (facts.empty()) return text;
  text += " (" + facts[0];
  return text + (facts.size() > 1 ? "; " + facts[1] : "") + ")";
}

std::string type_of(const Option& option) {
  if (!option.allowed.names.empty()) return "{" + fmt::format("{}", fmt::join(option.allowed.names, "|")) + "}";
  if (std::holds_alternative<std::string*>(option.target)) return "TEXT";
  return option.allowed.text.empty() ? "NUMBER" : "{" + option.allowed.text + "}";
}

bool looks_like_a_file(const std::string& text) { return text.find_first_of("/.") != std::string::npos; }

std::vector<std::string> text_ids() {
  std::vector<std::string> ids;
  for (const DataEntry& entry : data_entries())
    if (entry.kind == "text") ids.push_back(entry.id);
  return ids;
}

}  // namespace

Verb make_verb(CLI::App& root, const std::string& name, const std::string& summary, const std::string& examples) {
  Verb verb;
  verb.common = std::make_shared<Common>();
  verb.app = root.add_subcommand(name, summary);
  verb.app->footer("\nExamples:\n" + examples);
  verb.app->add_option("--json", verb.common->json, "write the figures to this file (- for standard output)")
      ->type_name("FILE")
      ->group("Common");
  verb.app->add_option("--seed", verb.common->seed, "seed of every random choice (default 0)")
      ->type_name("N")
      ->check(refuse_negative, "", "")
      ->group("Common");
  verb.app->add_option("--threads", verb.common->threads, "processors to use (default 0: all)")
      ->type_name("N")
      ->check(CLI::Range(0, 4096))
      ->group("Common");
  verb.app->add_flag("-q,--quiet", verb.common->quiet, "no progress and no remarks on standard error")->group("Common");
  return verb;
}

int run_action(const VerbActions& actions) {
  for (const auto& [app, run] : actions)
    if (app->parsed()) return run();
  throw OptionError("a subcommand is missing (see --help)");
}

void need_one_process(const std::string& what) {
  if (const int processes = launched_processes(); processes > 1)
    throw_error<OptionError>("{} works in one process, but {} were started; call it without mpirun", what, processes);
}

void bind_options(CLI::App& app, const OptionList& options, const std::string& group,
                  const std::vector<std::pair<std::string, std::string>>& short_names, const std::string& prefix) {
  for (const Option& described : options) {
    if (described.name == "seed" || described.name == "threads") continue;
    std::string name = "--" + described.name;
    if (app.get_option_no_throw(name)) name = "--" + prefix + described.name;
    std::string flag = name;
    for (const auto& [full, letter] : short_names)
      if (full == described.name) flag = "-" + letter + "," + flag;
    // A copy of the option (it holds pointers to its fields) lives in the callback.
    if (std::holds_alternative<bool*>(described.target)) {
      app.add_flag_function(
             flag + ",!--no-" + name.substr(2),
             [option = described](int64_t count) mutable { option.set(count > 0 ? "true" : "false"); },
             description_of(described))
          ->group(group);
      continue;
    }
    app.add_option_function<std::string>(
           flag, [option = described](const std::string& text) mutable { option.set(text); }, description_of(described))
        ->type_name(type_of(described))
        ->group(group);
  }
}

void write_json(const Common& common, const Json& json) {
  if (common.json == "-")
    std::cout << json_text(json, 1) << "\n";
  else if (!common.json.empty())
    write_file(common.json, json_text(json, 1) + "\n");
}

fs::path resolve_text(const std::string& text, const std::string& file_in_folder) {
  if (text.empty()) throw OptionError("an empty name of a text: give a text file, or one of the texts of `lighten data list`");
  fs::path path = text;
  if (!fs::exists(path)) {
    const DataEntry* entry = find_data(text);
    if (!entry && looks_like_a_file(text)) throw_error<FileError>("{}: there is no such text file", text);
    if (!entry)
      throw OptionError(unknown_name_message("text", text, text_ids()) + "; and there is no file or folder of that name");
    if (entry->kind != "text") throw_error<OptionError>("'{}' is a {}, not a text", text, entry->kind);
    path = data_path(text);
  }
  if (!fs::is_directory(path)) return path;
  if (!fs::exists(path / file_in_folder))
    throw_error<FileError>("{}: a folder without {}; give a text file", path.string(), file_in_folder);
  return path / file_in_folder;
}

std::string peek_argument(int argc, char** argv, const std::string& name) {
  const std::string flag = "--" + name;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == flag && i + 1 < argc) return argv[i + 1];
    if (argument.starts_with(flag + "=")) return argument.substr(flag.size() + 1);
  }
  return "";
}

}  // namespace lighten
