#include "lighten/runtime/bench.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <vector>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/kernels/cpu.h"
#include "lighten/kernels/roofs.h"

namespace lighten {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Json spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return {{"min", values.front()}, {"median", (values[(n - 1) / 2] + values[n / 2]) / 2}, {"max", values.back()}};
}

/// Sets the process's peak of memory back to the present use, where the system allows it.
void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

double prefill_rate(RuntimeModel& model, std::span<const int32_t> tokens, std::vector<float>& logits) {
  const std::unique_ptr<KvCache> cache = model.new_cache();
  const auto start = Clock::now();
  model.forward(*cache, tokens, logits.data(), 1);
  return static_cast<double>(tokens.size()) / seconds_since(start);
}

/// A cache that holds `tokens`.
std::unique_ptr<KvCache> filled(RuntimeModel& model, std::span<const int32_t> tokens) {
  std::unique_ptr<KvCache> cache = model.new_cache();
  if (!tokens.empty()) model.forward(*cache, tokens, nullptr, 0);
  return cache;
}

using Pasts = std::vector<std::unique_ptr<KvCache>>;

/// Tokens a second of one text after each of `pasts`, all together. `logits` [texts, vocab].
double decode_rate(RuntimeModel& model, std::span<const std::unique_ptr<KvCache>> pasts, std::span<const int32_t> tokens,
                   std::vector<float>& logits) {
  Pasts caches;
  for (const auto& past : pasts) caches.push_back(past->fork(past->length()));
  const auto start = Clock::now();
  std::vector<BatchStep> steps(caches.size());
  for (const int32_t& token : tokens) {
    for (size_t i = 0; i < caches.size(); ++i) steps[i] = {caches[i].get(), std::span(&token, 1), 1};
    model.forward_batch(steps, logits.data());
  }
  return static_cast<double>(pasts.size() * tokens.size()) / seconds_since(start);
}

}  // namespace

namespace {

constexpr Isa kIsas[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon};

std::vector<std::string> isa_names() {
  std::vector<std::string> names{"auto"};
  for (const Isa isa : kIsas) names.push_back(isa_name(isa));
  return names;
}
Isa isa_of(const std::string& name) {
  for (const Isa isa : kIsas)
    if (isa_name(isa) == name) return isa;
  throw_error<OptionError>("--isa {}: there are no kernels of that name", name);
}

}  // namespace

OptionList describe(BenchOptions& o) {
  return {
      option("random", o.random, any_value(), "random weights of this shape in place of a model: llama-1b or smollm2-135m",
             "Lighten"),
      option("bits", o.bits, one_of({2, 3, 4, 8, 16}), "bits of random weights", "Lighten"),
      option("group-size", o.group_size, range(0, 1 << 20), "group size of random weights; 0: per channel", "Lighten"),
      option("prefill", o.prefill, range(1, 1e6), "tokens fed at once", "llama-bench's pp512", "tokens"),
      option("decode", o.decode, range(1, 1e6), "tokens fed one by one", "llama-bench's tg128", "tokens"),
      option("context", o.context, range(0, 1 << 24), "tokens in the context before decoding", "Lighten", "tokens"),
      option("parallel", o.parallel, range(1, 4096), "texts decoded at once, besides one alone", "Lighten"),
      option("kv-cache", o.kv_cache, one_of(kv_cache_names()), kKvCacheDoc, "Lighten"),
      option("activations", o.activations, one_of(activations_names()), kActivationsDoc, "Lighten"),
      option("isa", o.isa, one_of(isa_names()), "instruction set of the kernels; auto: the widest that this processor has",
             "Lighten"),
      option("device", o.device, one_of(device_names()), kDeviceDoc, "Lighten"),
      option("repeat", o.repeat, range(1, 1000), "timed passes", "llama-bench"),
      option("threads", o.threads, range(0, 4096), "processors to use; 0: all", "Lighten"),
      Option("exact", o.exact, "float32 activations and KV cache", "Lighten"),
      Option("limits", o.limits, "measure what the machine can do before and after, and the share of it that was reached",
             "Lighten"),
  };
}

Json bench_model(RuntimeModel& model, const BenchOptions& options, double load_seconds) {
  const int64_t vocab = model.config().vocab_size, most = model.config().context_length;
  if (const int64_t needed = std::max(options.prefill, options.context + options.decode); needed > most)
    throw_error<OptionError>("{} tokens are to be held, but the model's context has {}: choose a smaller --{}", needed, most,
                             options.prefill > most ? "prefill" : "context or --decode");
  Random random(0);
  std::vector<int32_t> tokens(static_cast<size_t>(std::max({options.prefill, options.decode, options.context})));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab)));
  const std::span<const int32_t> all(tokens), prompt = all.first(static_cast<size_t>(options.prefill)),
                                              steps = all.first(static_cast<size_t>(options.decode));
  std::vector<float> logits(static_cast<size_t>(vocab * options.parallel));

  prefill_rate(model, prompt, logits);  // untimed, as llama-bench does
  Pasts pasts;                          // one for each text, so that no text reads another's keys from the processor's cache
  for (int64_t i = 0; i < options.parallel; ++i)
    pasts.push_back(filled(model, all.first(static_cast<size_t>(options.context))));
  const std::span<const std::unique_ptr<KvCache>> every(pasts), one = every.first(1);
  for (const auto& texts : {one, every}) decode_rate(model, texts, steps.first(std::min<size_t>(steps.size(), 8)), logits);
  std::vector<double> prefill, decode, parallel;
  Progress progress("bench", (options.parallel > 1 ? 3 : 2) * options.repeat, "passes");
  for (int i = 0; i < options.repeat; ++i) {
    prefill.push_back(prefill_rate(model, prompt, logits));
    progress.advance(1, fmt::format("prefill {:.0f} tokens/s", prefill.back()));
    decode.push_back(decode_rate(model, one, steps, logits));
    progress.advance(1, fmt::format("decode {:.1f} tokens/s", decode.back()));
    if (options.parallel == 1) continue;
    parallel.push_back(decode_rate(model, every, steps, logits));
    progress.advance(1, fmt::format("{} texts {:.1f} tokens/s", options.parallel, parallel.back()));
  }
  progress.finish();
  Json result = {{"prefill_tokens_per_s", spread(prefill)},
                 {"decode_tokens_per_s", spread(decode)},
                 {"rss_bytes", peak_resident_bytes()},
                 {"weight_bytes", model.weight_bytes()},
                 {"load_seconds", load_seconds},
                 {"prefill", options.prefill},
                 {"decode", options.decode},
                 {"repeat", options.repeat},
                 {"threads", options.threads == 0 ? available_processors() : options.threads},
                 {"exact", options.exact},
                 {"isa", isa_name(current_isa())}};
  result["context"] = options.context;
  result["parallel"] = options.parallel;
  result["kv_cache"] = options.exact ? "f32" : options.kv_cache;
  result["activations"] = options.exact ? "f32" : options.activations;
  result["device"] = options.device;
  result["kv_bytes"] = pasts.front()->bytes();
  if (!parallel.empty()) result["parallel_tokens_per_s"] = spread(parallel);
  return result;
}

namespace {

/// Decoding reads every weight, and the keys and values of its context, once a token; prefill multiplies every weight of the
/// layers with every token. The limit is the better of the two measurements, so that a share is never flattered by a noisy one.
Json shares(const RuntimeModel& model, const Json& measured, const Roofs& before, const Roofs& after) {
  const Roofs roofs{std::max(before.read_gb_per_s, after.read_gb_per_s), std::max(before.integer_gops, after.integer_gops),
                    std::max(before.float_gflops, after.float_gflops)};
  const ModelConfig& c = model.config();
  const double layer = static_cast<double>(c.hidden_size) *
                       static_cast<double>(2 * c.heads * c.head_dim + 2 * c.kv_heads * c.head_dim + 3 * c.intermediate_size);
  const double prefill = measured.at("prefill_tokens_per_s").at("median").get<double>(),
               decode = measured.at("decode_tokens_per_s").at("median").get<double>(),
               bytes = measured.at("weight_bytes").get<double>() + measured.at("kv_bytes").get<double>();
  const double gops = 2e-9 * layer * static_cast<double>(c.layers) * prefill, gigabytes = 1e-9 * bytes * decode;
  Json json = {
      {"read_gb_per_s", roofs.read_gb_per_s}, {"integer_gops", roofs.integer_gops}, {"float_gflops", roofs.float_gflops}};
  json["decode_gb_per_s"] = gigabytes;
  json["decode_share"] = gigabytes / roofs.read_gb_per_s;
  json["prefill_gops"] = gops;
  const bool whole = measured.value("bits", 4) <= 8 && !measured.at("exact").get<bool>();
  if (const double limit = whole ? roofs.integer_gops : roofs.float_gflops; limit > 0) json["prefill_share"] = gops / limit;
  return json;
}

}  // namespace

Json bench(const BenchOptions& options) {
  BenchOptions checked = options;
  validate(describe(checked));
  if (options.model.empty() == options.random.empty()) throw OptionError("give either a model or --random SHAPE");
  const RuntimeOptions runtime{.threads = options.threads,
                               .exact = options.exact,
                               .kv_cache = kv_format(options.kv_cache),
                               .activations = activations(options.activations),
                               .device = device(options.device)};
  if (options.limits && runtime.device != Device::cpu)
    throw OptionError("--limits measures the processor: leave it out with --device cuda");
  if (options.isa != "auto") set_isa(isa_of(options.isa));
  const auto start = Clock::now();
  const std::unique_ptr<RuntimeModel> model =
      options.random.empty() ? RuntimeModel::load(options.model, runtime)
                             : RuntimeModel::random(options.random, options.bits, options.group_size, runtime);
  const double load_seconds = seconds_since(start);
  ThreadPool pool(options.limits ? options.threads : 1);
  const Roofs before = options.limits ? measure_roofs(pool) : Roofs{};
  if (!options.random.empty() || options.limits) reset_peak();  // of making the weights, or of measuring the limits
  Json json = {{"model", options.random.empty() ? options.model : options.random + " (random weights)"}};
  if (!options.random.empty()) json.update(Json{{"bits", options.bits}, {"group_size", options.group_size}});
  json.update(bench_model(*model, options, load_seconds));
  if (options.limits) json["limits"] = shares(*model, json, before, measure_roofs(pool));
  return json;
}

}  // namespace lighten
