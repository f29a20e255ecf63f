// The verbs of `lighten`, one file each, and what they share.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/options.h"

namespace lighten {

/// The flags that every verb has.
struct Common {
  std::string json;  ///< file for the figures; "": none; "-": standard output, where nothing else is then printed
  uint64_t seed = 0;
  int threads = 0;
  bool quiet = false;
  /// Whether tables and texts for people go to standard output.
  bool for_people() const { return json != "-"; }
};

/// A verb on the command line: its flags, and what it does after they were read. Returns the exit code.
struct Verb {
  CLI::App* app = nullptr;
  std::shared_ptr<Common> common;
  std::function<int()> run;
};

/// The subcommands of a verb (`lighten train graph`), and what each does.
using VerbActions = std::vector<std::pair<CLI::App*, std::function<int()>>>;
/// Runs the one that was named.
int run_action(const VerbActions& actions);

/// Throws OptionError, naming `what`, if mpirun or srun started several processes.
void need_one_process(const std::string& what);

/// Adds the subcommand with the common flags; `examples` stand at the end of its --help.
Verb make_verb(CLI::App& root, const std::string& name, const std::string& summary, const std::string& examples);

/// One flag for every described option (seed and threads excepted, which all verbs have), with its default, what it may be and
/// where the default comes from. `short_names`: {"max-tokens", "n"} adds -n. `prefix` goes before names that the verb uses
/// already.
void bind_options(CLI::App& app, const OptionList& options, const std::string& group = "Options",
                  const std::vector<std::pair<std::string, std::string>>& short_names = {}, const std::string& prefix = "");

/// Writes to common.json if it is given; "-" is standard output.
void write_json(const Common& common, const Json& json);
/// A text file; a folder that holds `file_in_folder`; or the id of a text set (`prose`).
fs::path resolve_text(const std::string& text, const std::string& file_in_folder);
/// "--name" that stands in the arguments before parsing, e.g. to know the method whose flags are to be added.
std::string peek_argument(int argc, char** argv, const std::string& name);

Verb quantize_verb(CLI::App& root, int argc, char** argv);
Verb eval_verb(CLI::App& root);
Verb run_verb(CLI::App& root);
Verb inspect_verb(CLI::App& root);
Verb tokenize_verb(CLI::App& root);
Verb bench_verb(CLI::App& root);
Verb systems_verb(CLI::App& root);
Verb data_verb(CLI::App& root);
Verb embed_verb(CLI::App& root);
Verb index_verb(CLI::App& root);
Verb label_verb(CLI::App& root, int argc, char** argv);
Verb train_verb(CLI::App& root, int argc, char** argv);
Verb distill_verb(CLI::App& root, int argc, char** argv);
Verb reproduce_verb(CLI::App& root);
Verb demo_verb(CLI::App& root);

}  // namespace lighten
