// Subcommands whose flags are those of the method that is asked for: rows of the catalogue's table of tasks.
#pragma once
#include "lighten/apps/lighten/verbs.h"

namespace lighten {

/// Adds --method to `app`, and the files and options of the chosen method of `verb task` (catalogue/tasks.h; looked up in the
/// arguments before parsing, the first method being the default). Returns what it does after parsing.
std::function<int()> bind_task(CLI::App& app, const std::shared_ptr<Common>& common, const std::string& verb,
                               const std::string& task, int argc, char** argv);
/// The same as a subcommand of its own: `lighten train classify`.
void add_task(CLI::App& parent, const std::shared_ptr<Common>& common, VerbActions& actions, const std::string& verb,
              const std::string& task, const std::string& summary, int argc, char** argv);
/// Whether --apply was given. Nothing is trained then: throws OptionError for a flag besides those of `takes`; and without
/// --apply for one of `only`.
bool applies(const CLI::App& app, const std::vector<std::string>& takes, const std::vector<std::string>& only = {});
/// Whether the table has a method of that name for `verb task`.
bool has_task_method(const std::string& verb, const std::string& task, const std::string& method);

}  // namespace lighten
