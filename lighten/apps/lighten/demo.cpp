// lighten demo: a real chat model made light, what it cost, and an answer from it.
#include <algorithm>
#include <iostream>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/catalogue/catalogue.h"
#include "lighten/compress/pipeline.h"
#include "lighten/data/packages.h"
#include "lighten/data/sha256.h"
#include "lighten/eval/evaluate.h"
#include "lighten/eval/scorers.h"
#include "lighten/evidence/report.h"
#include "lighten/runtime/bench.h"
#include "lighten/runtime/chat.h"

namespace lighten {
namespace {

struct DemoOptions {
  std::string output = "out/demo", method = "gptq", prompt = "Explain what a hash table is.";
  int bits = 4, head_bits = 4;
  int64_t group_size = 64, tokens = 8192;
};

OptionList describe(DemoOptions& o) {
  return {
      option("method", o.method, any_value(), "method of the light model", ""),
      option("bits", o.bits, one_of({2, 3, 4, 8}), "bits per weight", ""),
      option("group-size", o.group_size, one_of({0, 32, 64, 128}), "inputs that share a scale", ""),
      option("head-bits", o.head_bits, one_of({0, 2, 3, 4, 8}), "bits of embedding and head", ""),
      option("tokens", o.tokens, range(512, 1e9), "tokens of the test text that are scored", "", "tokens"),
      option("prompt", o.prompt, any_value(), "what the light model is asked", ""),
  };
}

/// One row of the table.
struct Row {
  std::string name;
  double size = 0, bits = 0, prefill = 0, decode = 0;
  Evaluation evaluation;
};

/// Scores every window once and hands the logits out again for the next model: the float model is the slow one. Kept as
/// binary16, whose rounding moves a KL by less than 1e-5.
class RememberedScorer : public LogitModel {
 public:
  explicit RememberedScorer(std::unique_ptr<LogitModel> scorer) : scorer_(std::move(scorer)) {}
  int64_t vocab_size() const override { return scorer_->vocab_size(); }
  void begin(std::span<const int32_t> ids) override {
    const auto [found, fresh] = known_.try_emplace(std::vector<int32_t>(ids.begin(), ids.end()));
    window_ = &found->second;
    recording_ = fresh;
    position_ = 0;
    if (recording_) scorer_->begin(ids);
  }
  void next(int64_t count, float* logits) override {
    const size_t n = static_cast<size_t>(count * vocab_size());
    if (recording_) {
      scorer_->next(count, logits);
      for (size_t i = 0; i < n; ++i) window_->push_back(float_to_half(logits[i]));
    }
    for (size_t i = 0; i < n; ++i) logits[i] = half_to_float((*window_)[position_ + i]);
    position_ += n;
  }

 private:
  std::unique_ptr<LogitModel> scorer_;
  std::map<std::vector<int32_t>, std::vector<Half>> known_;
  std::vector<Half>* window_ = nullptr;
  bool recording_ = false;
  size_t position_ = 0;
};

/// Everything that decides what a light model of the demo is.
Json fingerprint(const QuantizeRequest& request) {
  Json options = Json::object();
  for (const MethodEntry& method : request.methods) options[method.name] = to_json(method.described);
  return {{"lighten", LIGHTEN_VERSION},
          {"layout", kLayoutVersion},
          {"method", request.method_name},
          {"options", options},
          {"bits", request.bits},
          {"group_size", request.group_size},
          {"head_bits", request.head_bits},
          {"calibration_tokens", request.calibration_tokens},
          {"seed", request.seed},
          {"model", fs::file_size(request.model)},
          {"calibration", request.calibration.empty() ? "" : sha256_of_file(request.calibration[0])}};
}

/// GPTQ as well as it can: ranges searched, codes and scales refined after the sweep.
constexpr int kPasses = 4;
void set_demo_options(MethodEntry& method) {
  if (method.name == "gptq") set_from_json(method.described, {{"mse", true}, {"passes", kPasses}});
}

/// The command that makes the same model.
std::string quantize_command(const DemoOptions& o) {
  const bool refined = o.method.find("gptq") != std::string::npos;
  return fmt::format(
      "lighten quantize smollm2-135m --method {}{} --bits {} --group-size {} --head-bits {} --calib prose -o light", o.method,
      refined ? fmt::format(" --mse --passes {}", kPasses) : "", o.bits, o.group_size, o.head_bits);
}

/// Quantizes unless the same model is there already. Returns the report of the work.
Json make_light(QuantizeRequest request, const fs::path& folder, const std::string& name) {
  request.output = folder / name;
  request.methods = parse_method(request.method_name);
  for (MethodEntry& method : request.methods) set_demo_options(method);
  const fs::path record = folder / (name + ".json");
  const Json wanted = fingerprint(request);
  if (fs::exists(request.output) && fs::exists(record)) {
    const Json found = Json::parse(read_file(record), nullptr, false);
    if (found.is_object() && found.value("fingerprint", Json()) == wanted) {
      info(fmt::format("{} is there already", request.output.string()));
      return found;
    }
  }
  info(fmt::format("making {}: {} at {} bits, group {}, head {} bits", request.output.string(), request.method_name,
                   request.bits, request.group_size, request.head_bits));
  request.force = true;  // what an earlier demo made with other settings
  const QuantizeReport report = quantize(request);
  Json json = report.json();
  json["fingerprint"] = wanted;
  write_file(record, json_text(json, 1) + "\n");
  return json;
}

Row measure(const std::string& name, EvaluatedModel model, EvaluatedModel& reference, const std::string& text,
            const DemoOptions& options, const Common& common) {
  Row row{name, static_cast<double>(model.size_bytes), model.bits_per_weight, 0, 0, {}};
  info(fmt::format("measuring {}", name));
  row.evaluation = evaluate(model, &reference, text, {.window = 512, .max_tokens = options.tokens, .seed = common.seed});
  return row;
}

void measure_speed(Row& row, const fs::path& path, FloatStorage storage, const Common& common) {
  const auto model = RuntimeModel::load(path, {.threads = common.threads, .storage = storage});
  BenchOptions options;
  options.prefill = 256;
  options.decode = 48;
  options.repeat = 3;
  options.threads = common.threads;
  const Json json = bench_model(*model, options, 0);
  row.prefill = json.at("prefill_tokens_per_s").at("median");
  row.decode = json.at("decode_tokens_per_s").at("median");
}

/// The model as a folder of 16-bit floats would be: two bytes a parameter, and the same other files as a light model has.
EvaluatedModel open_float16(const fs::path& path, const fs::path& light, const Common& common) {
  EvaluatedModel model = open_for_evaluation(path, Engine::runtime, common.threads, false);
  model.scorer = runtime_scorer(RuntimeModel::load(path, {.threads = common.threads, .storage = FloatStorage::f16}));
  model.size_bytes = 2 * parameter_count(model.config) + size_on_disk(light) - fs::file_size(light / "model.safetensors");
  model.bits_per_weight = 16;
  return model;
}

const std::vector<std::string> kHeader = {"model",    "size, MB",   "of 16 bit",         "perplexity",      "against float",
                                          "KL, nats", "same token", "prefill, tokens/s", "decode, tokens/s"};

std::vector<std::string> cells(const Row& row, const Row& base) {
  const Evaluation& e = row.evaluation;
  return {row.name,
          fmt::format("{:.1f}", row.size / 1e6),
          fmt::format("{:.1f} %", 100 * row.size / base.size),
          fmt::format("{:.2f}", e.perplexity),
          &row == &base ? "" : fmt::format("{:+.1f} %", 100 * (e.perplexity / base.evaluation.perplexity - 1)),
          fmt::format("{:.4f}", e.kl_mean),
          fmt::format("{:.1f} %", 100 * e.top1_agreement),
          fmt::format("{:.0f}", row.prefill),
          fmt::format("{:.0f}", row.decode)};
}

/// Arms of the committed full run of awq with 3 bits, beside float: the first row is the header. Empty without such a run.
std::vector<std::vector<std::string>> committed_rows() {
  const auto result = committed_result(system_of("awq"));
  if (!result) return {};
  struct Column {
    std::string title, metric, format;
    double factor;
  };
  const std::vector<Column> columns = {{"weights, MB", "weight_mb", "{:.1f}", 1},
                                       {"perplexity", "perplexity", "{:.2f}", 1},
                                       {"KL, nats", "kl", "{:.3f}", 1},
                                       {"same token, %", "agreement", "{:.1f}", 100},
                                       {"perplexity on a far domain", "perplexity_far", "{:.2f}", 1}};
  std::vector<std::vector<std::string>> rows = {{"3 bits, head 16 bits"}};
  for (const Column& column : columns) rows[0].push_back(column.title);
  for (const auto& [arm, values] : result->at("arms").items()) {
    if (!arm.ends_with("-3") && arm != "float") continue;
    std::vector<std::string> row = {arm};
    for (const Column& column : columns) {
      const Json mean = values.contains(column.metric) ? values.at(column.metric).at("mean") : Json();
      row.push_back(mean.is_number() ? fmt::format(fmt::runtime(column.format), column.factor * mean.get<double>()) : "–");
    }
    rows.push_back(row);
  }
  return rows;
}

std::string ask(const fs::path& light, const DemoOptions& options, const Common& common) {
  std::ostream silent(nullptr);
  std::ostream& out = common.for_people() ? std::cout : silent;
  const auto model = RuntimeModel::load(light, {.threads = common.threads});
  RunOptions run;
  run.max_tokens = 160;
  run.sampling.repetition_penalty = 1.1;
  run.threads = common.threads;
  Conversation conversation(*model, run);
  out << fmt::format("You:   {}\nModel: ", options.prompt) << std::flush;
  const GenerateResult answer = conversation.answer(options.prompt, [&](const std::string& text) {
    out << text << std::flush;
    return !interrupt_requested();
  });
  check_interrupt();
  const double rate = static_cast<double>(answer.tokens.size()) / std::max(answer.decode_seconds, 1e-9);
  out << fmt::format("\n\n({} tokens, {:.0f} tokens/s)\n", answer.tokens.size(), rate);
  return answer.text;
}

Plot size_plot(const std::vector<Row>& rows) {
  Plot plot{Plot::Kind::scatter,
            "Quality against size",
            "Lower and further left is better.",
            "size of all files, MB",
            "perplexity on unseen text",
            {},
            false,
            false};
  for (const Row& row : rows) plot.series.push_back({row.name, {row.size / 1e6}, {row.evaluation.perplexity}, {row.name}, {}});
  return plot;
}

Plot speed_plot(const std::vector<Row>& rows) {
  Series series;
  for (const Row& row : rows) {
    series.labels.push_back(row.name);
    series.y.push_back(std::round(row.decode));
  }
  return {Plot::Kind::bars, "Speed of writing", "Median of three runs of 48 tokens.", "", "tokens/s (higher is better)",
          {series}};
}

Plot error_plot(const std::vector<std::pair<std::string, Json>>& works) {
  Plot plot{Plot::Kind::lines,
            "Error of every block",
            "Mean relative squared error of the outputs of a block's seven linears, before the embedding and head.",
            "block",
            "error, % (logarithmic)",
            {},
            false,
            true};
  for (const auto& [name, work] : works) {
    std::map<int64_t, std::pair<double, int>> blocks;
    for (const Json& line : work.value("errors", Json::array())) {
      auto& [sum, count] = blocks[line.at("layer").get<int64_t>()];
      sum += line.at("relative_error").get<double>();
      ++count;
    }
    Series series{name, {}, {}, {}, {}};
    for (const auto& [block, error] : blocks) {
      series.x.push_back(static_cast<double>(block));
      series.y.push_back(100 * error.first / error.second);
    }
    if (!series.x.empty()) plot.series.push_back(std::move(series));
  }
  return plot;
}

void write_report(const fs::path& file, const std::vector<Row>& rows, const std::vector<std::pair<std::string, Json>>& works,
                  const DemoOptions& options, const std::string& answer) {
  const Row &base = rows.front(), &light = rows.back();
  Report page("SmolLM2-135M, made light", fmt::format("A chat model of 135 million parameters at {} bits ({}, group {}, "
                                                      "embedding and head {} bits), measured on text it was not calibrated on.",
                                                      options.bits, options.method, options.group_size, options.head_bits));
  page.figures(
      {{fmt::format("{:.1f} MB", light.size / 1e6), fmt::format("size, {:.1f} % of 16 bit", 100 * light.size / base.size)},
       {fmt::format("{:+.1f} %", 100 * (light.evaluation.perplexity / base.evaluation.perplexity - 1)),
        "perplexity against float"},
       {fmt::format("{:.1f} %", 100 * light.evaluation.top1_agreement), "same most likely next token"},
       {fmt::format("{:.0f}", light.decode), "tokens/s while writing"}});
  std::vector<std::vector<std::string>> table;
  for (const Row& row : rows) table.push_back(cells(row, base));
  page.heading("What it cost")
      .table(fmt::format("First {} tokens of the test text (Perl and PostgreSQL manuals), windows of 512", options.tokens),
             kHeader, table, static_cast<int>(rows.size()) - 1);
  page.plot(size_plot(rows)).plot(speed_plot(rows));
  if (const Plot errors = error_plot(works); !errors.series.empty()) page.plot(errors);
  if (auto committed = committed_rows(); committed.size() > 1) {
    const std::vector<std::string> header = committed.front();
    committed.erase(committed.begin());
    page.heading("With 3 bits")
        .table(
            "Means over calibration seeds of the committed run of `lighten reproduce awq --full`; embedding and head in 16 "
            "bits",
            header, committed);
  }
  page.heading("An answer").question_and_answer(options.prompt, answer);
  page.heading("How it was made").code(fmt::format("lighten demo -o {}\n{}", options.output, quantize_command(options)));
  page.write(file);
}

int demo(const DemoOptions& options, const Common& common) {
  parse_method(options.method);  // a wrong name is refused before an hour's work
  const fs::path folder = options.output, model = data_path("smollm2-135m"), texts = data_path("prose");
  fs::create_directories(folder);
  QuantizeRequest request;
  request.model = model;
  request.bits = options.bits;
  request.group_size = request.head_group_size = options.group_size;
  request.head_bits = options.head_bits;
  request.calibration = {texts / "calibration.txt"};
  request.seed = common.seed;
  request.threads = common.threads;
  request.method_name = options.method;
  const auto name_of = [&](const std::string& method) { return fmt::format("{}-{}", method, options.bits); };
  const std::string light_name = name_of(options.method);
  std::vector<std::pair<std::string, Json>> works;
  for (const std::string& method : std::vector<std::string>{"rtn", "awq", options.method}) {
    if (std::any_of(works.begin(), works.end(), [&](const auto& work) { return work.first == name_of(method); })) continue;
    QuantizeRequest each = request;
    each.method_name = method;
    if (method == "rtn") each.calibration.clear();
    works.emplace_back(name_of(method), make_light(each, folder, name_of(method)));
  }

  const std::string text = read_file(texts / "test.txt");
  EvaluatedModel reference = open_for_evaluation(model, Engine::runtime, common.threads, true);
  reference.scorer = std::make_unique<RememberedScorer>(std::move(reference.scorer));
  std::vector<Row> rows;
  rows.push_back(measure("float 16", open_float16(model, folder / light_name, common), reference, text, options, common));
  measure_speed(rows.back(), model, FloatStorage::f16, common);
  std::vector<std::pair<std::string, fs::path>> others = {{"as shipped (Q4_1)", model}};
  for (const auto& [name, work] : works) others.emplace_back(name, folder / name);
  for (const auto& [name, path] : others) {
    rows.push_back(
        measure(name, open_for_evaluation(path, Engine::runtime, common.threads, false), reference, text, options, common));
    measure_speed(rows.back(), path, FloatStorage::native, common);
  }
  reference.scorer.reset();

  std::ostream silent(nullptr);
  std::ostream& out = common.for_people() ? std::cout : silent;
  Table table(kHeader);
  for (const Row& row : rows) table.row(cells(row, rows.front()));
  out << fmt::format("\nSmolLM2-135M on text it was not calibrated on ({} tokens):\n\n{}\n", rows.front().evaluation.tokens,
                     table.text());
  if (const auto committed = committed_rows(); committed.size() > 1) {
    Table few(committed.front());
    for (size_t i = 1; i < committed.size(); ++i) few.row(committed[i]);
    out << fmt::format("With 3 bits (committed run of `lighten reproduce awq --full`):\n\n{}\n", few.text());
  }
  const std::string answer = ask(folder / light_name, options, common);
  write_report(folder / "report.html", rows, works, options, answer);
  write_file(folder / "quality.svg", svg_document(size_plot(rows), 820));
  out << fmt::format("\n{}  the report\n{}  the light model: lighten run {}\n", (folder / "report.html").string(),
                     (folder / light_name).string(), (folder / light_name).string());
  Json json = {{"prompt", options.prompt}, {"answer", answer}, {"rows", Json::array()}};
  for (const Row& row : rows) {
    Json entry = {{"name", row.name}};
    entry.update(row.evaluation.json());
    entry["size_bytes"] = row.size;
    entry["prefill_tokens_per_s"] = row.prefill;
    entry["decode_tokens_per_s"] = row.decode;
    json["rows"].push_back(entry);
  }
  write_file(folder / "demo.json", json_text(json, 1) + "\n");
  write_json(common, json);
  return 0;
}

}  // namespace

Verb demo_verb(CLI::App& root) {
  Verb verb = make_verb(root, "demo", "makes SmolLM2-135M light, shows what it cost, and talks to it (what `make demo` runs)",
                        "  lighten demo\n"
                        "  lighten demo --method awq --bits 4 -o out/awq-demo --prompt \"Name three rivers.\"\n");
  auto options = std::make_shared<DemoOptions>();
  verb.app->add_option("-o,--output", options->output, "folder for models and report (default out/demo)")->type_name("DIR");
  bind_options(*verb.app, describe(*options));
  verb.run = [options, common = verb.common] { return demo(*options, *common); };
  return verb;
}

}  // namespace lighten
