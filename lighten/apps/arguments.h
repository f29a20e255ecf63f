// What both programs do with a command line that the parser refuses.
#pragma once
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "lighten/base/error.h"
#include "lighten/base/options.h"

namespace lighten {

/// "unknown option '--agianst' of lighten eval; did you mean '--against'? (see lighten eval --help)" for the first argument
/// that looks like a flag and belongs to no option, "" if there is none. Values of options are not looked at. Call it after a
/// failed parse; `command` is how the program is called, to which the names of the subcommands that were given are added.
inline std::string unknown_flag_message(const CLI::App& app, const std::string& command) {
  std::vector<std::string> known;
  std::string whole = command;
  for (const CLI::App* level = &app;;) {
    for (const CLI::Option* option : level->get_options()) {
      for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
      for (const std::string& name : option->get_snames()) known.push_back("-" + name);
    }
    if (level->get_subcommands().empty()) break;
    level = level->get_subcommands().front();
    whole += " " + level->get_name();
  }
  for (std::string flag : app.remaining(/*recurse=*/true)) {
    flag = flag.substr(0, flag.find('='));
    if (flag.size() < 2 || flag[0] != '-' || flag == "--") continue;
    const std::string nearest = nearest_name(flag, known);
    return fmt::format("unknown option '{}' of {}{} (see {} --help)", flag, whole,
                       nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest), whole);
  }
  return "";
}

/// A check for options that take a whole number from 0: the parser itself would wrap "-1" around.
inline std::string refuse_negative(const std::string& text) {
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  return digits ? "" : fmt::format("'{}' must be a whole number, 0 or above", text);
}

/// Throws OptionError for flags of a random model that a model from a file leaves without meaning.
inline void refuse_without_random(const CLI::App& app, const std::string& random) {
  for (const char* flag : {"--bits", "--group-size"})
    if (random.empty() && app.count(flag) > 0)
      throw_error<OptionError>("{} says how the weights of --random SHAPE are packed; a MODEL brings its own", flag);
}

/// At the end of --help.
inline constexpr const char* kExitCodes = "Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted (Ctrl-C).\n";

}  // namespace lighten
