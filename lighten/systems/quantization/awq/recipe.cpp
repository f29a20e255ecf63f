// The reproduction: AWQ beside round-to-nearest, its two halves and GPTQ, on SmolLM2-135M; embedding and head stay float.
#include "lighten/systems/quantization/awq/recipe.h"

#include <ATen/Parallel.h>

#include <chrono>
#include <numeric>

#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/compress/accounting.h"
#include "lighten/compress/gptq.h"
#include "lighten/compress/in_memory.h"
#include "lighten/compress/rtn.h"
#include "lighten/data/packages.h"
#include "lighten/eval/scorers.h"
#include "lighten/runtime/bench.h"
#include "lighten/systems/quantization/awq/awq.h"

namespace lighten {
namespace {

using Metrics = std::map<std::string, double>;

/// How much of everything one size of the recipe takes.
struct Extent {
  int64_t model_blocks, quantized_blocks;  ///< 0: all
  int64_t rows, row;                       ///< calibration
  int64_t windows, far_windows, window;    ///< tests
  int seeds;
  bool whole_table;  ///< the arms beyond the first claim's
  bool speed;        ///< tokens a second too
};

Extent extent_of(RecipeSize size) {
  switch (size) {
    case RecipeSize::smoke:
      return {1, 1, 8, 64, 1, 0, 64, 1, false, false};
    case RecipeSize::standard:
      return {0, 10, 2, 512, 6, 0, 512, 1, false, true};
    case RecipeSize::full:
      break;
  }
  return {0, 0, 64, 512, 16, 12, 512, 3, true, true};
}

/// The float model's logits for windows that come again and again: the last hidden states are kept, the head is computed anew.
class RememberingScorer : public LogitModel {
 public:
  explicit RememberingScorer(Decoder model) : model_(std::move(model)) {}
  int64_t vocab_size() const override { return model_->config.vocab_size; }
  void begin(std::span<const int32_t> ids) override {
    const torch::InferenceMode inference;
    const std::vector<int64_t> window(ids.begin(), ids.end());
    auto [found, fresh] = windows_.try_emplace(window);
    if (fresh) found->second = model_->hidden_states(torch::tensor(window).unsqueeze(0)).squeeze(0);
    hidden_ = found->second;
    position_ = 0;
  }
  void next(int64_t count, float* logits) override {
    const torch::InferenceMode inference;
    const torch::Tensor rows = model_->head(hidden_.narrow(0, position_, count));
    torch::from_blob(logits, {count, vocab_size()}).copy_(rows);
    position_ += count;
  }

 private:
  Decoder model_;
  std::map<std::vector<int64_t>, torch::Tensor> windows_;
  torch::Tensor hidden_;
  int64_t position_ = 0;
};

/// What the arms are made of.
struct Method {
  std::unique_ptr<Transform> transform;
  std::unique_ptr<Rounding> rounding;
  GridOptions grid;
};

/// The texts, the float model and the fixed parts of every arm.
class Laboratory {
 public:
  explicit Laboratory(Bench& bench) : bench_(bench), extent_(extent_of(bench.size())) {
    const bool fetch = bench.size() != RecipeSize::smoke;
    source_ = open_weights(data_path("smollm2-135m", fetch));
    prose_ = data_path("prose", fetch);
    near_ = read_file(prose_ / "test.txt");
    far_ = read_file(prose_ / "far.txt");
    if (bench.size() == RecipeSize::smoke) {  // tokenizing all of it takes longer than the rest
      near_.resize(std::min<size_t>(near_.size(), 20000));
      far_.resize(std::min<size_t>(far_.size(), 20000));
    }
    Decoder model = fresh_model();
    reference_ = evaluated(std::make_unique<RememberingScorer>(model));
  }
  const Extent& extent() const { return extent_; }

  /// Rows of the documentation ("calibration.txt") or of the far domain ("calibration_far.txt").
  const CalibrationRows& rows(const std::string& file, uint64_t seed) {
    auto [found, fresh] = rows_.try_emplace({file, seed});
    if (fresh)
      found->second = read_calibration({prose_ / file}, *source_->tokenizer(),
                                       {.tokens = extent_.rows * extent_.row, .row = extent_.row, .seed = seed});
    return found->second;
  }

  Metrics float_model() {
    Metrics metrics;
    measure(metrics, *reference_, nullptr);
    metrics["weight_mb"] = static_cast<double>(parameter_count(source_->config())) * 2e-6;
    metrics["bits"] = 16;
    return metrics;
  }

  Metrics quantized(const std::string& arm, uint64_t seed, const Method& method, const CalibrationRows& rows) {
    Decoder model = fresh_model();
    const auto start = std::chrono::steady_clock::now();
    const RoundedModel rounded = quantize(model, method, rows);
    Metrics metrics;
    metrics["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    write_file(errors_file(arm, seed), json_text(Json(rounded.block_errors)));
    BitAccount account;
    for (const auto& [name, tensor] : rounded.tensors) account.add(tensor);
    measure(metrics, *evaluated(torch_scorer(model)), reference_.get());
    const double untouched = static_cast<double>(parameter_count(source_->config()) - account.weights) * 2e-6;
    metrics["weight_mb"] = static_cast<double>(account.total()) / 8e6 + untouched;
    metrics["bits"] = account.effective_bits();
    for (const double error : rounded.block_errors)
      metrics["layer_error"] += error / static_cast<double>(rounded.block_errors.size());
    return metrics;
  }

  /// Per-block errors of an arm, also one that an earlier run measured; empty if there are none.
  std::vector<double> errors(const std::string& arm, uint64_t seed) const {
    const fs::path file = errors_file(arm, seed);
    return fs::exists(file) ? Json::parse(read_file(file)).get<std::vector<double>>() : std::vector<double>();
  }

 private:
  TensorReader reader() const {
    return [this](const std::string& name) { return source_->read(name); };
  }
  Decoder fresh_model() const {
    if (extent_.model_blocks == 0) return load_decoder(*source_);
    Decoder model = load_ends(source_->config(), reader());
    for (int64_t layer = 0; layer < extent_.model_blocks; ++layer)
      model->blocks.push_back(load_block(source_->config(), reader(), layer));
    return model;
  }
  std::unique_ptr<EvaluatedModel> evaluated(std::unique_ptr<LogitModel> scorer) const {
    auto model = std::make_unique<EvaluatedModel>();
    model->scorer = std::move(scorer);
    model->tokenizer = source_->tokenizer();
    model->config = source_->config();
    model->threads = bench_.threads();
    return model;
  }
  fs::path errors_file(const std::string& arm, uint64_t seed) const {
    return bench_.folder() / fmt::format("errors-{}-{}-{}.json", to_string(bench_.size()), arm, seed);
  }

  void measure(Metrics& metrics, EvaluatedModel& model, EvaluatedModel* against) const {
    const auto on = [&](const std::string& text, int64_t windows, const std::string& suffix) {
      if (windows == 0) return;
      const Evaluation e =
          evaluate(model, against, text, {.window = extent_.window, .max_tokens = windows * extent_.window, .bootstrap = 0});
      metrics["perplexity" + suffix] = e.perplexity;
      if (!against) return;
      metrics["kl" + suffix] = e.kl_mean;
      metrics["agreement" + suffix] = e.top1_agreement;
    };
    on(near_, extent_.windows, "");
    on(far_, extent_.far_windows, "_far");
  }

  RoundedModel quantize(Decoder& model, const Method& method, const CalibrationRows& rows) const {
    const auto all = static_cast<int64_t>(model->blocks.size());
    const int64_t count = extent_.quantized_blocks == 0 ? all : std::min(all, extent_.quantized_blocks);
    Progress progress("quantize", count, "blocks");
    RoundedModel rounded = round_in_memory(model, rows, method.transform.get(), *method.rounding, method.grid,
                                           {.blocks = count, .on_block = [&](int64_t) { progress.advance(); }});
    progress.finish();
    return rounded;
  }
  Bench& bench_;
  Extent extent_;
  fs::path prose_;
  std::unique_ptr<WeightSource> source_;
  std::string near_, far_;
  std::unique_ptr<EvaluatedModel> reference_;
  std::map<std::pair<std::string, uint64_t>, CalibrationRows> rows_;
};

Method method_named(const std::string& name, int bits) {
  const GridOptions grid{.bits = bits, .group_size = 64};
  if (name == "rtn") return {nullptr, make_rtn(), grid};
  if (name == "gptq") return {nullptr, make_gptq(), grid};
  if (name == "gptq-2022") return {nullptr, make_gptq({.asymmetric = false}), grid};
  if (name == "scale") return {make_awq(), make_rtn(), grid};
  if (name == "clip") return {nullptr, make_awq_rounding(), grid};
  return {make_awq(), make_awq_rounding(), grid};
}

/// How much worse a method gets on both tests when it was calibrated on the other domain: for every seed the mean of the two
/// relative rises.
std::vector<double> domain_loss(const Bench& bench, const std::string& arm) {
  const std::string far = arm + "-far-calibrated";
  const std::vector<double> near_own = bench.values(arm, "perplexity"), near_other = bench.values(far, "perplexity"),
                            far_own = bench.values(far, "perplexity_far"), far_other = bench.values(arm, "perplexity_far");
  std::vector<double> losses;
  for (size_t seed = 0; seed < near_own.size(); ++seed)
    losses.push_back((near_other[seed] / near_own[seed] + far_other[seed] / far_own[seed]) / 2 - 1);
  return losses;
}

void describe_metrics(Bench& bench) {
  bench.describe_metric("perplexity", "perplexity, documentation");
  bench.describe_metric("perplexity_far", "perplexity, Bible");
  bench.describe_metric("kl", "KL to float, documentation", "nats");
  bench.describe_metric("kl_far", "KL to float, Bible", "nats");
  bench.describe_metric("agreement", "same first choice as float, documentation");
  bench.describe_metric("agreement_far", "same first choice as float, Bible");
  bench.describe_metric("layer_error", "relative output error of the linears");
  bench.describe_metric("bits", "bits per quantized weight");
  bench.describe_metric("weight_mb", "weights, embedding in 16 bits", "MB");
  bench.describe_metric("seconds", "time to quantize", "s");
  bench.baseline("float");
}

void plot_size_against_quality(Bench& bench, const std::vector<std::string>& methods) {
  Plot plot{Plot::Kind::lines,
            "Quality against size",
            "Test text of other documents than the calibration text. Lower left is better.",
            "MB",
            "perplexity",
            {},
            false,
            true};
  for (const std::string& method : methods) {
    Series series{.name = method, .x = {}, .y = {}, .labels = {}, .error = {}};
    for (const std::string bits : {"3", "4"}) {
      const std::string arm = method + "-" + bits;
      if (bench.values(arm, "perplexity").empty()) continue;
      series.x.push_back(bench.mean(arm, "weight_mb"));
      series.y.push_back(bench.mean(arm, "perplexity"));
      series.labels.push_back(bits + " bits");
      series.error.push_back(bench.sd(arm, "perplexity"));
    }
    if (!series.x.empty()) plot.series.push_back(series);
  }
  plot.series.push_back({.name = "float 16",
                         .x = {bench.mean("float", "weight_mb")},
                         .y = {bench.mean("float", "perplexity")},
                         .labels = {"16 bits"},
                         .error = {}});
  bench.plot(plot);
}

/// Tokens a second at the model's shape, one width after the other when all else is done: bits decide it, not the method.
void measure_speed(Bench& bench) {
  Series prefill{.name = "prefill", .x = {}, .y = {}, .labels = {}, .error = {}}, decode = prefill;
  decode.name = "decode";
  Json speeds = Json::object();
  for (const int bits : {16, 4, 3}) {
    BenchOptions options;
    options.random = "smollm2-135m";
    options.bits = bits;
    options.repeat = 3;
    options.threads = bench.threads();
    const Json speed = lighten::bench(options);
    const std::string name = fmt::format("{} bits", bits);
    for (const auto& [series, key] : {std::pair(&prefill, "prefill_tokens_per_s"), std::pair(&decode, "decode_tokens_per_s")}) {
      series->labels.push_back(name);
      series->y.push_back(speed.at(key).at("median"));
      speeds[name][key] = speed.at(key);
    }
  }
  bench.setting("speed", speeds);
  const char* caption = "Random weights of SmolLM2-135M's shape, embedding and head in the same bits; medians of three passes.";
  bench.plot({Plot::Kind::bars, "Speed of writing", caption, "", "decode, tokens/s (higher is better)", {decode}});
  bench.plot({Plot::Kind::bars, "Speed of reading", caption, "", "prefill, tokens/s (higher is better)", {prefill}});
}

void plot_layer_errors(Bench& bench, const Laboratory& laboratory, const std::vector<std::string>& arms, uint64_t seed) {
  Plot plot{Plot::Kind::lines,
            "Error block by block",
            "Relative squared output error of a block's seven linears on float inputs, mean.",
            "block",
            "relative error",
            {},
            false,
            true};
  for (const std::string& arm : arms) {
    Series series{.name = arm, .x = {}, .y = laboratory.errors(arm, seed), .labels = {}, .error = {}};
    for (size_t block = 0; block < series.y.size(); ++block) series.x.push_back(static_cast<double>(block));
    if (!series.y.empty()) plot.series.push_back(series);
  }
  bench.plot(plot);
}

void run(Bench& bench) {
  at::set_num_threads(bench.threads());
  describe_metrics(bench);
  Laboratory laboratory(bench);
  const Extent& extent = laboratory.extent();
  const std::vector<uint64_t> seeds = bench.seeds(extent.seeds);
  const std::vector<std::string> three_bits = {"scale", "clip", "awq", "gptq"}, four_bits = {"awq", "gptq"},
                                 moved = {"awq", "gptq"};

  Metrics once;  // what has no seed is measured once and stands beside every seed
  const auto measure = [&](const std::string& method, int bits, const std::string& text, uint64_t seed) {
    const std::string arm = fmt::format("{}-{}{}", method, bits, text == "calibration.txt" ? "" : "-far-calibrated");
    return bench.arm(arm, seed,
                     [&] { return laboratory.quantized(arm, seed, method_named(method, bits), laboratory.rows(text, seed)); });
  };
  once = bench.arm("float", seeds[0], [&] { return laboratory.float_model(); });
  for (const uint64_t seed : seeds) bench.arm("float", seed, [&] { return once; });
  for (const int bits : {3, 4}) {
    if (bits == 4 && !extent.whole_table) continue;
    once = measure("rtn", bits, "calibration.txt", seeds[0]);
    for (const uint64_t seed : seeds) bench.arm(fmt::format("rtn-{}", bits), seed, [&] { return once; });
  }
  for (const uint64_t seed : seeds) {
    for (const std::string& method : three_bits) measure(method, 3, "calibration.txt", seed);
    if (!extent.whole_table) continue;
    for (const std::string& method : moved) measure(method, 3, "calibration_far.txt", seed);
    for (const std::string& method : four_bits) measure(method, 4, "calibration.txt", seed);
    measure("gptq-2022", 3, "calibration.txt", seed);
  }

  bench.claim_below("AWQ has a lower perplexity than round-to-nearest at 3 bits", "awq-3", "rtn-3", "perplexity");
  bench.claim_below("scaling alone helps at 3 bits", "scale-3", "rtn-3", "perplexity");
  bench.claim_below("clipping alone helps at 3 bits", "clip-3", "rtn-3", "perplexity");
  bench.claim_below("scaling and clipping together beat scaling alone", "awq-3", "scale-3", "perplexity");
  bench.claim_below("scaling and clipping together beat clipping alone", "awq-3", "clip-3", "perplexity");
  bench.claim_below("AWQ has a lower perplexity than GPTQ at 3 bits, as in the paper's tables", "awq-3", "gptq-3",
                    "perplexity");
  if (extent.whole_table) {
    bench.claim_below("AWQ has a lower perplexity than round-to-nearest at 4 bits", "awq-4", "rtn-4", "perplexity");
    bench.claim_below("on text far from the calibration text AWQ has a lower perplexity than GPTQ at 3 bits", "awq-3", "gptq-3",
                      "perplexity_far");
    const std::vector<double> awq = domain_loss(bench, "awq-3"), gptq = domain_loss(bench, "gptq-3");
    std::vector<double> differences;
    for (size_t seed = 0; seed < awq.size(); ++seed) differences.push_back(gptq[seed] - awq[seed]);
    bench.claim_paired("AWQ loses less than GPTQ when it is calibrated on the other domain (difference of the relative rises)",
                       differences);
    const auto mean = [](const std::vector<double>& values) {
      return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
    };
    bench.note(
        fmt::format("Calibrated on the other domain, perplexity rises by {:.1f} % with AWQ and by {:.1f} % with GPTQ (3 "
                    "bits, mean over seeds and both test texts).",
                    100 * mean(awq), 100 * mean(gptq)));
  }
  plot_size_against_quality(bench, {"rtn", "awq", "gptq"});
  if (extent.speed) measure_speed(bench);
  plot_layer_errors(bench, laboratory, {"rtn-3", "scale-3", "clip-3", "awq-3", "gptq-3"}, seeds[0]);

  bench.note(
      "Groups of 64 inputs share a binary16 scale and an integer zero point. Embedding, head and norms stay float. RTN has "
      "no seed; it is measured once. GPTQ aims at the float model's outputs (asymmetric), the stronger form of the baseline; "
      "gptq-2022 is the paper's own, which aims at the rounded model's.");
  if (extent.quantized_blocks > 0)
    bench.note(fmt::format("This size quantizes the first {} blocks only and reads little text; --full is the measurement.",
                           extent.quantized_blocks));
  bench.setting("model", "smollm2-135m");
  bench.setting("text", "prose");
  bench.setting("calibration_rows", extent.rows);
  bench.setting("calibration_row_tokens", extent.row);
  bench.setting("test_windows", Json{extent.windows, extent.far_windows});
  AwqOptions awq;
  bench.setting("awq", to_json(describe(awq)));
  GptqOptions gptq;
  bench.setting("gptq", to_json(describe(gptq)));
  bench.version("torch", TORCH_VERSION);
}

}  // namespace

Recipe awq_recipe() {
  return {.id = "awq",
          .claim =
              "Scaling up the input channels that activations call important, then clipping, rounds a language model to 3 "
              "bits with a lower perplexity than round-to-nearest, and depends less on the calibration text than GPTQ.",
          .run = run};
}

}  // namespace lighten
