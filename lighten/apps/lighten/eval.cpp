// lighten eval: perplexity, distance to the float model, size.
#include <iostream>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/data/packages.h"
#include "lighten/eval/evaluate.h"
#include "lighten/formats/text_rows.h"
#include "lighten/runtime/model.h"

namespace lighten {
namespace {

struct EvalVerbOptions {
  std::string model, against, text, engine = "runtime", kv_cache = "f16", activations = "auto", device = "cpu";
  EvaluationOptions evaluation;
  bool exact = false;
};

OptionList describe(EvalVerbOptions& o) {
  return {
      option("window", o.evaluation.window, range(2, 1 << 20), "tokens scored at once; windows do not overlap",
             "the protocol of README.md", "tokens"),
      option("max-tokens", o.evaluation.max_tokens, range(0, 1e12), "only so many tokens of the text; 0: all", "", "tokens"),
      option("engine", o.engine, one_of(std::vector<std::string>{"runtime", "torch"}),
             "runtime: the kernels that `run` uses; torch: float32 after dequantization", ""),
      option("bootstrap", o.evaluation.bootstrap, range(0, 1000000), "resamples over windows for the 95 % intervals", ""),
      option("kv-cache", o.kv_cache, one_of(kv_cache_names()), std::string("runtime: ") + kKvCacheDoc, "Lighten"),
      option("activations", o.activations, one_of(activations_names()), std::string("runtime: ") + kActivationsDoc, "Lighten"),
      option("device", o.device, one_of(device_names()), std::string("runtime: ") + kDeviceDoc, "Lighten"),
      Option("exact", o.exact, "runtime: float32 activations, not rounded", ""),
  };
}

std::string interval(const Interval& i, int decimals, double factor = 1) {
  if (!i.known()) return "–";
  return fmt::format("{:.{}f} to {:.{}f}", i.low * factor, decimals, i.high * factor, decimals);
}

void print(const Evaluation& e, const Json& json) {
  Table table({"", "value", "95 % interval"});
  table.row({"perplexity", fmt::format("{:.3f}", e.perplexity), interval(e.perplexity_ci, 3)});
  table.row({"bits per byte", fmt::format("{:.4f}", e.bits_per_byte), interval(e.bits_per_byte_ci, 4)});
  if (e.against) {
    table.row(
        {"perplexity of the other model", fmt::format("{:.3f}", e.against_perplexity), interval(e.against_perplexity_ci, 3)});
    table.row(
        {"perplexity above it, %", fmt::format("{:+.2f}", 100 * e.perplexity_rise), interval(e.perplexity_rise_ci, 2, 100)});
    table.row({"KL to it, mean, nats", fmt::format("{:.5f}", e.kl_mean), interval(e.kl_mean_ci, 5)});
    table.row({"KL to it, 99th percentile, nats", fmt::format("{:.4f}", e.kl_p99), interval(e.kl_p99_ci, 4)});
    table.row(
        {"same most likely token, %", fmt::format("{:.2f}", 100 * e.top1_agreement), interval(e.top1_agreement_ci, 2, 100)});
  }
  table.row({"size of all files, MB", fmt::format("{:.2f}", json.at("size_bytes").get<double>() / 1e6), ""});
  table.row({"bits per weight", fmt::format("{:.2f}", json.at("bits_per_weight").get<double>()), ""});
  table.row({"tokens scored", fmt::format("{}", e.tokens), ""});
  std::cout << table.text();
}

/// What is wrong with a text names its file.
template <typename Evaluate>
Evaluation evaluated(const Evaluate& evaluate, const fs::path& text) {
  try {
    return evaluate();
  } catch (const FormatError& error) {
    throw_error<FormatError>("{}: {}", text.string(), error.what());
  }
}

}  // namespace

Verb eval_verb(CLI::App& root) {
  Verb verb = make_verb(root, "eval", "perplexity on a text, distance to the float model, size",
                        "  lighten eval out/light --against smollm2-135m --text prose\n"
                        "  lighten eval model.gguf --text test.txt --max-tokens 16384 --json e.json\n"
                        "  lighten eval out/light --text test.txt --engine torch\n");
  auto options = std::make_shared<EvalVerbOptions>();
  verb.app->add_option("MODEL", options->model, "folder, .gguf or data id")->required();
  verb.app->add_option("--against", options->against, "the float model to compare with: KL and agreement")->type_name("MODEL");
  verb.app->add_option("--text", options->text, "text file, or prose for its test.txt")->required()->type_name("FILE");
  bind_options(*verb.app, describe(*options));
  verb.run = [options, common = verb.common] {
    if (options->exact && options->engine == "torch")
      throw OptionError("--exact is for the runtime engine; --engine torch always computes in float32");
    options->evaluation.seed = common->seed;
    const fs::path text_file = resolve_text(options->text, "test.txt");
    const std::string text = read_prose(text_file, "text");
    const Engine engine = options->engine == "torch" ? Engine::torch : Engine::runtime;
    EvaluatedModel model =
        open_for_evaluation(resolve_model(options->model), engine, common->threads, options->exact,
                            kv_format(options->kv_cache), activations(options->activations), device(options->device));
    std::optional<EvaluatedModel> reference;
    if (!options->against.empty())
      reference = open_for_evaluation(resolve_model(options->against), engine, common->threads, true);
    const Evaluation result =
        evaluated([&] { return evaluate(model, reference ? &*reference : nullptr, text, options->evaluation); }, text_file);
    Json json = {{"model", options->model}};
    if (reference) json["against"] = options->against;
    json["text"] = text_file.string();
    json["engine"] = options->engine;
    json["window"] = options->evaluation.window;
    json.update(result.json());
    json["size_bytes"] = model.size_bytes;
    json["bits_per_weight"] = model.bits_per_weight;
    if (common->for_people()) print(result, json);
    write_json(*common, json);
    return 0;
  };
  return verb;
}

}  // namespace lighten
