// lighten-run: runs a model, and nothing else. No torch inside.
#include <CLI/CLI.hpp>
#include <iostream>
#include <new>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/runtime/chat.h"

namespace {

using namespace lighten;

constexpr const char* kExamples = R"(Examples:
  lighten-run out/awq                                    chat; Ctrl-D ends it
  lighten-run out/awq -p "Explain what a hash table is." -n 64
  lighten-run model.gguf -p "Once upon a time" --raw --temperature 0.8 --top-p 0.95 --seed 7
  lighten-run out/awq -p "Name three rivers." --stop "." --json answer.json --quiet
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

int run(int argc, char** argv) {
  RunOptions options;
  const OptionList described = describe(options);
  bool quiet = false;
  CLI::App app("Runs a language model: a light folder, a Hugging Face folder or a .gguf file.", "lighten-run");
  app.set_version_flag("--version", std::string("lighten-run ") + LIGHTEN_VERSION);
  app.footer(kExamples);
  app.add_option("MODEL", options.model, "light folder, Hugging Face folder or .gguf")->required();
  app.add_option("-p,--prompt", options.prompt, "answer this and end; without it: chat, line by line from standard input");
  app.add_option("--stop", options.stop, "end the answer before this text (may be given several times)")
      ->allow_extra_args(false);
  app.add_option("--json", options.json, "write text, tokens and speeds to this file");
  app.add_flag("--quiet", quiet, "no speeds on standard error");
  add_flags(app, described);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return fail(std::string(error.what()) + " (see lighten-run --help)", 2);
  }
  set_quiet(quiet);
  install_interrupt_handler();
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
