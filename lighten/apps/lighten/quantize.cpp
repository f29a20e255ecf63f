// lighten quantize: the main job, a float model in, a light model out.
#include <algorithm>
#include <iostream>
#include <map>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/catalogue/catalogue.h"
#include "lighten/compress/checkpoint.h"
#include "lighten/compress/pipeline.h"
#include "lighten/data/packages.h"
#include "lighten/evidence/report.h"
#include "lighten/formats/weights.h"

namespace lighten {
namespace {

struct QuantizeVerbOptions {
  QuantizeRequest request;
  std::string model, output, group = "auto", head_group = "auto", zero = "integer", frequent, report;
  std::vector<std::string> calibration, trim_corpus;
  bool dry_run = false;
};

OptionList describe(QuantizeVerbOptions& o) {
  const std::vector<std::string> groups = {"auto", "0", "32", "64", "128"};
  return {
      option("bits", o.request.bits, one_of({2, 3, 4, 8}), "bits per weight of the linears", ""),
      option("group-size", o.group, one_of(groups),
             "inputs that share a scale: auto is the largest that divides every width, 0 is per channel",
             "AWQ and GPTQ papers: 128"),
      option("zero", o.zero, one_of(std::vector<std::string>{"integer", "minimum", "symmetric"}),
             "what groups keep beside their scale: a zero point, a minimum, nothing", "AWQ paper"),
      option("head-bits", o.request.head_bits, one_of({0, 2, 3, 4, 8}),
             "bits of embedding and head, rounded for the logits of --calib's text if given; 0 keeps them in 16-bit floats",
             ""),
      option("head-group-size", o.head_group, one_of(groups), "group size of embedding and head", ""),
      option("head-frequent", o.frequent, any_value(),
             "BITS:TOKENS, ...: more bits for the rows of the tokens that --calib holds most often, as 8:4096, or "
             "8:2048,4:16384 (the 2,048 most frequent, then the next 16,384); the others have --head-bits",
             "Lighten"),
      option("trim-min-count", o.request.trim_min_count, range(1, 1e9),
             "--trim-vocab keeps tokens that its texts hold so many times", "Lighten"),
      option("trim-tokens", o.request.trim_tokens, range(0, 1e9),
             "--trim-vocab fills up to so many with tokens of the same characters, most common first; 0: none", "Lighten",
             "tokens"),
      option("calib-tokens", o.request.calibration_tokens, range(1, 1e9),
             "tokens of calibration, in rows of 512 drawn by --seed", "64 rows", "tokens"),
      option("checkpoint-seconds", o.request.checkpoint_seconds, range(0, 1e6),
             "how often the work is saved, for a stop; 0: after every block", "Lighten", "seconds"),
      Option("resume", o.request.resume,
             "go on with stopped work of the same settings, to equal bytes; --no-resume starts anew", ""),
      Option("force", o.request.force, "replace OUT if it exists, once the new model is complete", ""),
      Option("dry-run", o.dry_run, "check every shape, print plan, size, memory and time, write nothing", ""),
  };
}

int64_t group_of(const std::string& text) { return text == "auto" ? kLargestThatFits : std::stoll(text); }

/// "self_attn.q_proj": mean and worst block of its error.
struct ErrorSummary {
  double sum = 0, worst = 0;
  int64_t count = 0, worst_layer = 0;
};
std::vector<std::pair<std::string, ErrorSummary>> summarise(const std::vector<LayerError>& errors) {
  std::vector<std::pair<std::string, ErrorSummary>> list;
  for (const LayerError& error : errors) {
    auto found = std::find_if(list.begin(), list.end(), [&](const auto& entry) { return entry.first == error.linear; });
    if (found == list.end()) found = list.insert(list.end(), {error.linear, {}});
    ErrorSummary& summary = found->second;
    summary.sum += error.relative_error;
    ++summary.count;
    if (error.relative_error >= summary.worst) {
      summary.worst = error.relative_error;
      summary.worst_layer = error.layer;
    }
  }
  return list;
}

void print(const QuantizeVerbOptions& o, const QuantizeReport& report, uint64_t parameters) {
  Table table({"", "before", "after"});
  table.row({"size of all files", human_bytes(static_cast<double>(report.size_before)),
             human_bytes(static_cast<double>(report.size_after))});
  table.row({"against 16-bit floats",
             fmt::format("{:.1f} %", 50.0 * static_cast<double>(report.size_before) / static_cast<double>(parameters)),
             fmt::format("{:.1f} %", 50.0 * static_cast<double>(report.size_after) / static_cast<double>(parameters))});
  if (report.tokens_after != report.tokens_before) {
    table.row({"tokens in the vocabulary", std::to_string(report.tokens_before), std::to_string(report.tokens_after)});
    table.row({"saved by their rows", "", human_bytes(static_cast<double>(report.rows_saved))});
  }
  table.row({"bits per weight, all tensors", "", fmt::format("{:.2f}", report.bits_per_weight)});
  table.row({"bits per weight, quantized linears, without padding", "", fmt::format("{:.3f}", report.linear_bits)});
  fmt::print("\n{}\n", table.text());
  if (!report.errors.empty()) {
    Table errors({"relative squared error of", "mean, %", "worst, %", "in block"});
    for (const auto& [linear, summary] : summarise(report.errors))
      errors.row({linear, fmt::format("{:.3f}", 100 * summary.sum / static_cast<double>(summary.count)),
                  fmt::format("{:.3f}", 100 * summary.worst), fmt::format("{}", summary.worst_layer)});
    fmt::print("{}\n", errors.text());
  }
  fmt::print("{} in {}, peak memory {}\n", o.output, human_seconds(report.seconds),
             human_bytes(static_cast<double>(report.peak_bytes)));
}

void write_report(const QuantizeVerbOptions& o, const QuantizeReport& report, const Json& json) {
  Report page(fmt::format("{}: {} at {} bits", o.model, o.request.method_name, o.request.bits),
              fmt::format("Written to {} in {}.", o.output, human_seconds(report.seconds)));
  page.figures({{human_bytes(static_cast<double>(report.size_before)), "size before"},
                {human_bytes(static_cast<double>(report.size_after)), "size after"},
                {fmt::format("{:.2f}", report.bits_per_weight), "bits per weight, all tensors"},
                {human_bytes(static_cast<double>(report.peak_bytes)), "peak memory"}});
  std::map<std::string, Series> lines;
  std::vector<Series> series;
  for (const auto& [linear, summary] : summarise(report.errors)) {
    Series line{linear, {}, {}, {}, {}};
    for (const LayerError& error : report.errors)
      if (error.linear == linear) {
        line.x.push_back(static_cast<double>(error.layer));
        line.y.push_back(100 * error.relative_error);
      }
    series.push_back(std::move(line));
  }
  if (!series.empty())
    page.plot({Plot::Kind::lines, "Error of every linear", "Relative squared error of the output on calibration inputs.",
               "block", "error, % (logarithmic)", series, false, true});
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : json.at("options").items())
    rows.push_back({name, value.is_string() ? value.get<std::string>() : json_text(value)});
  page.heading("Options").table("", {"option", "value"}, rows);
  page.write(o.report);
}

QuantizeReport quantize_or_say_how_to_go_on(const QuantizeRequest& request) {
  try {
    return quantize(request);
  } catch (const Interrupted&) {
    const fs::path partial = partial_folder(request.output);
    if (!fs::exists(partial)) throw;
    if (!compress::has_saved_work(partial))
      throw Interrupted("interrupted before anything was saved; the same command begins anew");
    throw Interrupted(
        fmt::format("interrupted; what was done is kept in {}: the same command goes on from there", partial.string()));
  }
}

}  // namespace

Verb quantize_verb(CLI::App& root, int argc, char** argv) {
  Verb verb = make_verb(
      root, "quantize", "makes a float model light: fewer bits per weight, chosen by a method",
      "  lighten quantize smollm2-135m --method awq --bits 4 --group-size 64 --head-bits 4 --calib prose -o out/light\n"
      "  lighten quantize model/ --method awq+gptq --bits 3 --calib texts.txt -o out/light --report out/light.html\n"
      "  lighten quantize model.gguf --method rtn --bits 8 --dry-run -o out/rtn8\n"
      "  lighten quantize gemma3-270m --method gptq --head-bits 4 --calib prose --trim-vocab prose -o out/english\n"
      "Methods compose: a transform (awq), then a rounding (rtn, gptq): awq+gptq. A method's own options are listed by\n"
      "`lighten quantize --method NAME --help`.\n");
  auto options = std::make_shared<QuantizeVerbOptions>();
  options->request.method_name = peek_argument(argc, argv, "method");
  if (argc > 0 && !options->request.method_name.empty()) options->request.methods = parse_method(options->request.method_name);
  verb.app->add_option("MODEL", options->model, "folder, .gguf or data id")->required();
  verb.app
      ->add_option("--method", options->request.method_name,
                   fmt::format("{}, or two of them as awq+gptq", fmt::join(method_names(), ", ")))
      ->required()
      ->type_name("NAME");
  verb.app->add_option("-o,--output", options->output, "the light model, a folder")->required()->type_name("DIR");
  verb.app
      ->add_option("--calib", options->calibration,
                   "calibration texts (a .jsonl: its fields text), or prose for its calibration.txt")
      ->type_name("FILE...");
  verb.app
      ->add_option("--trim-vocab", options->trim_corpus,
                   "texts, or prose for its calibration.txt: keep only the tokens that they need (all text still encodes)")
      ->type_name("FILE...");
  verb.app->add_option("--report", options->report, "an HTML page with the plot of all errors")->type_name("FILE");
  const OptionList own = describe(*options);
  bind_options(*verb.app, own);
  OptionList chosen;
  for (const MethodEntry& method : options->request.methods) {
    bind_options(*verb.app, method.described, "Options of " + method.name, {}, method.name + "-");
    chosen.insert(chosen.end(), method.described.begin(), method.described.end());
  }
  verb.run = [options, own, chosen, app = verb.app, common = verb.common] {
    QuantizeRequest& request = options->request;
    if (request.methods.empty()) request.methods = parse_method(request.method_name);  // an empty name: says so
    validate(own);
    validate(chosen);
    request.group_size = group_of(options->group);
    request.head_group_size = group_of(options->head_group);
    if (app->count("--head-frequent") > 0) request.head_frequent = parse_head_bands(options->frequent);
    request.zero = options->zero == "integer"   ? ZeroKind::integer
                   : options->zero == "minimum" ? ZeroKind::minimum
                                                : ZeroKind::symmetric;
    request.seed = common->seed;
    request.threads = common->threads;
    request.output = options->output;
    if (!request.force) check_output(request);  // before a model or text is fetched
    request.model = resolve_model(options->model);
    for (const std::string& text : options->trim_corpus) request.trim_corpus.push_back(resolve_text(text, "calibration.txt"));
    for (const std::string& text : options->calibration) request.calibration.push_back(resolve_text(text, "calibration.txt"));

    check_output(request);
    if (!options->report.empty()) check_writable(options->report);
    const QuantizePlan plan = plan_quantize(request);
    if (options->dry_run) check_quantize(request);
    Json json = {{"model", options->model}, {"method", request.method_name}, {"output", options->output}};
    json["options"] = to_json(own);
    json["options"].update(to_json(chosen));
    json["options"]["seed"] = request.seed;
    json["plan"] = plan.json;
    if (common->for_people() && (!common->quiet || options->dry_run)) fmt::print("{}\n", plan.text);
    std::cout.flush();
    if (options->dry_run) {
      write_json(*common, json);
      return 0;
    }
    const uint64_t parameters = parameter_count(open_weights(request.model)->config());
    const QuantizeReport report = quantize_or_say_how_to_go_on(request);
    json.update(report.json());
    if (common->for_people()) print(*options, report, parameters);
    if (!options->report.empty()) write_report(*options, report, json);
    write_json(*common, json);
    return 0;
  };
  return verb;
}

}  // namespace lighten
