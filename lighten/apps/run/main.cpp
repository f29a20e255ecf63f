// lighten-run: runs a model, and nothing else. No torch inside.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <new>
#include <optional>

#include "lighten/apps/arguments.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/data/packages.h"
#include "lighten/runtime/bench.h"
#include "lighten/runtime/chat.h"

namespace {

using namespace lighten;

constexpr const char* kExamples = R"(Examples:
  lighten-run out/awq                                    chat; Ctrl-D ends it
  lighten-run out/awq -p "Explain what a hash table is." -n 64
  lighten-run model.gguf -p "Once upon a time" --raw --temperature 0.8 --top-p 0.95 --seed 7
  lighten-run out/awq -p "Name three rivers." --stop "." --json answer.json --quiet
  lighten-run out/awq --prompts questions.txt --parallel 8 > answers.jsonl
  lighten-run bench out/awq                              speed and memory; lighten-run bench --help

)";
constexpr const char* kBenchExamples = R"(Examples:
  lighten-run bench out/awq
  lighten-run bench --random llama-1b --bits 4 --group-size 32 --json speed.json

)";

/// One flag for each described option; `-n` and the like are given beside the name.
void add_flags(CLI::App& app, const OptionList& options) {
  for (const Option& described : options) {
    const std::string flag = (described.name == "max-tokens" ? "-n,--" : "--") + described.name;
    const auto set = [&described](const std::string& text) { Option(described).set(text); };
    if (std::holds_alternative<bool*>(described.target)) {
      app.add_flag_callback(
          flag, [set] { set("true"); }, described.doc);
      continue;
    }
    CLI::Option* option = app.add_option_function<std::string>(flag, set, described.doc);
    option->type_name(described.allowed.text.empty() ? "TEXT" : "{" + described.allowed.text + "}")->trigger_on_parse();
    if (!described.value_text().empty()) option->default_str(described.value_text());
  }
}

int fail(const std::string& sentence, int exit_code) {
  fmt::print(stderr, "lighten-run: {}\n", sentence);
  return exit_code;
}

/// Reads the arguments from `first` on; the exit code if there is nothing more to do.
std::optional<int> parse(CLI::App& app, const std::string& command, int argc, char** argv, int first) {
  std::vector<std::string> arguments(argv + first, argv + argc);
  std::reverse(arguments.begin(), arguments.end());  // as the parser wants them
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    const std::string unknown = unknown_flag_message(app, command);
    return fail(unknown.empty() ? fmt::format("{} (see {} --help)", error.what(), command) : unknown, 2);
  }
  return std::nullopt;
}

int run_bench(int argc, char** argv) {
  BenchOptions options;
  const OptionList described = describe(options);
  std::string json;
  bool quiet = false;
  CLI::App app("Measures prefill and decode speed, memory and loading; prints JSON.", "lighten-run bench");
  app.footer(std::string(kBenchExamples) + kExitCodes);
  app.add_option("MODEL", options.model, "folder, .gguf, or id of a model in the cache; none with --random");
  app.add_option("--json", json, "write the figures to this file, not to standard output");
  app.add_flag("-q,--quiet", quiet, "no progress on standard error");
  add_flags(app, described);
  if (const auto code = parse(app, "lighten-run bench", argc, argv, 2)) return *code;
  refuse_without_random(app, options.random);
  set_quiet(quiet);
  install_interrupt_handler();
  if (!options.model.empty()) options.model = resolve_model(options.model, /*fetch=*/false).string();
  const bool to_file = !json.empty() && json != "-";
  if (to_file) check_writable(json);
  const std::string text = json_text(bench(options), 1) + "\n";
  if (to_file)
    write_file(json, text);
  else
    std::cout << text;
  return 0;
}

int run(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "bench") return run_bench(argc, argv);
  RunOptions options;
  const OptionList described = describe(options);
  bool quiet = false;
  CLI::App app("Runs a language model: a light folder, a Hugging Face folder or a .gguf file.", "lighten-run");
  app.set_version_flag("--version", std::string("lighten-run ") + LIGHTEN_VERSION);
  app.footer(std::string(kExamples) + kExitCodes);
  app.add_option("MODEL", options.model, "light folder, Hugging Face folder, .gguf, or id of a model in the cache")->required();
  app.add_option("-p,--prompt", options.prompt, "answer this and end; without it: chat, line by line from standard input");
  app.add_option("--prompts", options.prompts,
                 "answer every line of this file (.jsonl: strings or {\"prompt\": ...}), several at once; a JSON line comes "
                 "out for each as it is done, \"index\" counts prompts from 0")
      ->excludes("--prompt");
  app.add_option("--stop", options.stop, "end the answer before this text (may be given several times)")
      ->allow_extra_args(false);
  app.add_option("--json", options.json, "write text, tokens and speeds to this file (- for standard output)");
  app.add_flag("-q,--quiet", quiet, "no speeds on standard error");
  add_flags(app, described);
  if (const auto code = parse(app, "lighten-run", argc, argv, 1)) return *code;
  set_quiet(quiet);
  install_interrupt_handler();
  options.model = resolve_model(options.model, /*fetch=*/false).string();
  if (!options.json.empty() && options.json != "-") check_writable(options.json);
  return run_command(options, std::cin, std::cout);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const int code = run(argc, argv);
    finish_output();
    return code;
  } catch (const Error& error) {
    return fail(error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    return fail("out of memory; use a smaller model or a shorter --context", 1);
  } catch (const std::exception& error) {
    return fail(std::string("unexpected error: ") + error.what(), 1);
  }
}
