// How fast is it? Prefill, decode, loading and memory of a model, or of a shape with random weights.
#pragma once
#include <string>

#include "lighten/base/options.h"
#include "lighten/runtime/model.h"

namespace lighten {

struct BenchOptions {
  std::string model = {};   ///< a path, or "" with `random`
  std::string random = {};  ///< "llama-1b", "smollm2-135m": random weights of this shape
  int bits = 4;             ///< of random weights
  int64_t group_size = 64;  ///< of random weights
  int64_t prefill = 512, decode = 128;
  int64_t context = 0;   ///< tokens before the first decoded one
  int64_t parallel = 1;  ///< texts that are decoded at once
  std::string kv_cache = "f16", activations = "auto", isa = "auto", device = "cpu";
  int repeat = 5;
  int threads = 0;
  bool exact = false;
  bool limits = false;
};
/// All but model.
OptionList describe(BenchOptions& options);

/// Times `prefill` random tokens at once, and `decode` tokens one by one after `context` others, `repeat` times after
/// untimed ones; with `parallel` > 1 also so many texts together, one token each in every step.
/// {"prefill_tokens_per_s": {min, median, max}, "decode_tokens_per_s": {...}, "parallel_tokens_per_s": {...} of all texts
/// together, "rss_bytes": peak of the process, mapped pages included, "weight_bytes", "kv_bytes": of one text's context,
/// "load_seconds": as given, and the settings}.
Json bench_model(RuntimeModel& model, const BenchOptions& options, double load_seconds);

/// Loads the model (or makes the random one; then the peak of memory counts from there) and times it. Throws as
/// RuntimeModel::load.
Json bench(const BenchOptions& options);

}  // namespace lighten
