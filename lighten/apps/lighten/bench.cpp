// lighten bench: prefill, decode, loading and memory of a model, or of a shape with random weights.
#include <algorithm>
#include <iostream>
#include <optional>

#include "lighten/apps/arguments.h"
#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/base/process.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/data/packages.h"
#include "lighten/runtime/bench.h"

namespace lighten {

namespace {

constexpr int kUsageExit = 2;

/// In a process of its own that holds no torch, so that the peak of memory is the model's: lighten-run, where it stands beside
/// this program. Else in this process. Nothing if the other program failed; it has said why.
std::optional<Json> measure(const BenchOptions& options, int& exit_code) {
  std::error_code error;
  const fs::path runner = fs::read_symlink("/proc/self/exe", error).parent_path() / "lighten-run";
  if (error || !fs::exists(runner, error)) return bench(options);
  std::vector<std::string> arguments = {runner.string(), "bench"};
  if (!options.model.empty()) arguments.push_back(options.model);
  if (is_quiet()) arguments.emplace_back("--quiet");
  BenchOptions values = options, defaults;
  const OptionList usual = describe(defaults);
  for (const Option& option : describe(values)) {
    const auto same = [&](const Option& other) { return other.name == option.name && other.value() == option.value(); };
    if (std::any_of(usual.begin(), usual.end(), same)) continue;
    const bool of_random = option.name == "random" || option.name == "bits" || option.name == "group-size";
    if (of_random && options.random.empty()) continue;
    if (option.name == "exact" || option.name == "limits") {
      if (option.name == "exact" ? options.exact : options.limits) arguments.push_back("--" + option.name);
      continue;
    }
    arguments.push_back("--" + option.name);
    arguments.push_back(option.value_text());
  }
  const ProcessResult child = run_process(arguments, {}, {}, /*show_errors=*/true);
  exit_code = child.exit_code;
  if (exit_code == kUsageExit)
    warn(
        fmt::format("{} refused what this program passed on; if it does not know an option, it is another build: build or "
                    "install both anew",
                    runner.string()));
  if (exit_code != 0) return std::nullopt;
  return Json::parse(child.output);
}

}  // namespace

Verb bench_verb(CLI::App& root) {
  Verb verb =
      make_verb(root, "bench", "measures prefill and decode speed, memory and loading",
                "  lighten bench out/light\n"
                "  lighten bench smollm2-135m --prefill 256 --decode 64 --repeat 3 --json speed.json\n"
                "  lighten bench out/light --parallel 8 --context 4096 --kv-cache i8\n"
                "  lighten bench --random llama-1b --bits 4 --group-size 32       speed at a shape, without its weights\n");
  auto options = std::make_shared<BenchOptions>();
  verb.app->add_option("MODEL", options->model, "folder, .gguf or data id; none with --random");
  bind_options(*verb.app, describe(*options));
  verb.run = [options, app = verb.app, common = verb.common] {
    if (options->model.empty() == options->random.empty())
      throw OptionError("bench needs a MODEL or --random SHAPE (one of them)");
    refuse_without_random(*app, options->random);
    if (!options->model.empty()) options->model = resolve_model(options->model).string();
    options->threads = common->threads;
    int exit_code = 0;
    const std::optional<Json> measured = measure(*options, exit_code);
    if (!measured) return exit_code;
    const Json& json = *measured;
    if (!common->for_people()) return write_json(*common, json), 0;
    Table table({"", "median", "min", "max"});
    const auto rate = [&](const std::string& name, const char* key) {
      const Json& spread = json.at(key);
      table.row({name, fmt::format("{:.1f}", spread.at("median").get<double>()),
                 fmt::format("{:.1f}", spread.at("min").get<double>()), fmt::format("{:.1f}", spread.at("max").get<double>())});
    };
    rate(fmt::format("prefill of {}, tokens/s", options->prefill), "prefill_tokens_per_s");
    const std::string after = options->context > 0 ? fmt::format(" after {}", options->context) : "";
    rate(fmt::format("decode of {}{}, tokens/s", options->decode, after), "decode_tokens_per_s");
    if (json.contains("parallel_tokens_per_s"))
      rate(fmt::format("{} texts at once, tokens/s in all", options->parallel), "parallel_tokens_per_s");
    std::cout << table.text() << "\n";
    Table facts({"", ""});
    facts.row({"weights", human_bytes(json.at("weight_bytes").get<double>())});
    if (options->context > 0) facts.row({"keys and values", human_bytes(json.at("kv_bytes").get<double>())});
    facts.row({"peak memory", human_bytes(json.at("rss_bytes").get<double>())});
    facts.row({"loading", fmt::format("{:.2f} s", json.at("load_seconds").get<double>())});
    if (const auto limits = json.find("limits"); limits != json.end()) {
      const auto percent = [&](const char* key) { return limits->contains(key) ? 100 * limits->at(key).get<double>() : 0; };
      facts.row({"decode reads", fmt::format("{:.1f} GB/s, {:.0f} % of {:.1f}", limits->at("decode_gb_per_s").get<double>(),
                                             percent("decode_share"), limits->at("read_gb_per_s").get<double>())});
      facts.row({"prefill multiplies", fmt::format("{:.0f} GOP/s, {:.0f} % of {:.0f}", limits->at("prefill_gops").get<double>(),
                                                   percent("prefill_share"), limits->at("integer_gops").get<double>())});
    }
    std::cout << facts.text();
    write_json(*common, json);
    return 0;
  };
  return verb;
}

}  // namespace lighten
