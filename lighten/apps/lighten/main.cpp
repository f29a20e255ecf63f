// lighten: makes machine learning light. One subcommand a verb; see --help of each.
#include <algorithm>
#include <iostream>
#include <new>

#include "lighten/apps/arguments.h"
#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/base/launched.h"
#include "lighten/base/progress.h"
#include "lighten/base/ranks.h"
#include "lighten/base/threads.h"
#include "lighten/catalogue/systems.h"

namespace {

using namespace lighten;

constexpr const char* kExamples = R"(
Examples:
  lighten quantize smollm2-135m --method awq --bits 4 --calib prose -o out/light
  lighten eval out/light --against smollm2-135m --text prose
  lighten run out/light -p "Explain what a hash table is."

A MODEL is a folder (Hugging Face or light), a .gguf file, or an id of `lighten data list`.
)";

int fail(const std::string& sentence, int exit_code) {
  std::cout.flush();
  if (!tells_error(exit_code)) return exit_code;
  fmt::print(stderr, "lighten: {}\n", sentence);
  finish_ranks(exit_code);  // under mpirun the other processes end too
  return exit_code;
}

int run(int argc, char** argv) {
  CLI::App root("Lighten makes machine learning models light: quantizes, measures, runs.", "lighten");
  root.set_version_flag("--version", std::string("lighten ") + LIGHTEN_VERSION);
  root.footer(std::string(kExamples) + kExitCodes);
  root.require_subcommand(0, 1);
  root.get_formatter()->column_width(34);
  const std::string asked = argc > 1 ? argv[1] : "";
  const bool quantize = asked == "quantize";
  const std::vector<Verb> verbs = {quantize_verb(root, quantize ? argc : 0, argv),
                                   eval_verb(root),
                                   run_verb(root),
                                   inspect_verb(root),
                                   tokenize_verb(root),
                                   bench_verb(root),
                                   systems_verb(root),
                                   data_verb(root),
                                   embed_verb(root),
                                   index_verb(root),
                                   label_verb(root, argc, argv),
                                   train_verb(root, argc, argv),
                                   distill_verb(root, argc, argv),
                                   reproduce_verb(root),
                                   demo_verb(root)};
  const Verb* chosen = nullptr;
  std::vector<std::string> names;
  for (const Verb& verb : verbs) {
    names.push_back(verb.app->get_name());
    if (names.back() == asked) chosen = &verb;
  }
  if (asked.empty()) {
    std::cout << root.help();
    return 2;
  }
  if (!chosen && !asked.starts_with("-")) throw OptionError(unknown_name_message("command", asked, names));
  if (const std::string task = argc > 2 ? argv[2] : ""; chosen && !task.empty() && !task.starts_with("-")) {
    std::vector<std::string> tasks;
    for (const CLI::App* sub : chosen->app->get_subcommands({})) tasks.push_back(sub->get_name());
    if (!tasks.empty() && std::find(tasks.begin(), tasks.end(), task) == tasks.end())
      throw OptionError(unknown_name_message("command of lighten " + asked, task, tasks));
  }
  try {
    root.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return root.exit(success);
  } catch (const CLI::ParseError& error) {
    if (chosen)
      if (const std::string unknown = unknown_flag_message(*chosen->app, "lighten " + asked); !unknown.empty())
        return fail(unknown, 2);
    return fail(fmt::format("{} (see lighten{} --help)", error.what(), chosen ? " " + asked : ""), 2);
  }
  if (!chosen) return fail("a command is missing (see lighten --help)", 2);
  set_quiet(chosen->common->quiet);
  if (chosen->common->threads > 0) chosen->common->threads = usable_threads(chosen->common->threads);
  set_torch_threads(chosen->common->threads);
  install_interrupt_handler();
  if (!chosen->common->json.empty() && chosen->common->json != "-") check_writable(chosen->common->json);
  return chosen->run();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const int code = run(argc, argv);
    finish_output();
    finish_ranks(code);
    return code;
  } catch (const Error& error) {
    return fail(error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    return fail("out of memory; use a smaller model, or close other programs", 1);
  } catch (const std::exception& error) {
    const std::string text = error.what();  // torch appends a back trace
    return fail("unexpected error: " + text.substr(0, text.find("\nException raised")), 1);
  }
}
