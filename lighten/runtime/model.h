// A decoder that runs without torch: mapped light models, or float and GGUF models packed in memory.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/options.h"
#include "lighten/formats/chat_template.h"
#include "lighten/formats/model_config.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/kernels/attention.h"
#include "lighten/kernels/linear.h"

namespace lighten {

/// In-memory form of a model that is not light yet. `native`: GGUF blocks that our kernels express exactly stay low-bit, the
/// rest becomes f16.
enum class FloatStorage : uint8_t { native, f16, bf16, f32 };

/// "f16" or "i8", as options name it. Throws OptionError for others.
KvFormat kv_format(const std::string& name);
inline constexpr const char* kKvCacheDoc = "keys and values as 16-bit floats, or rounded to 8 bits with a scale per head";

/// How activations enter low-bit products; Arithmetic in kernels/linear.h says more of each.
enum class Activations : uint8_t {
  automatic,  ///< bits16 in models narrower than 1,024 (hidden size), where outliers weigh most; adaptive in others
  bits8,      ///< what llama.cpp does: SmolLM2-135M moves by a KL of 3.4e-3 nats and 4 % of its choices
  adaptive,   ///< 6e-4 nats and 1.5 %
  bits16      ///< 4e-7 nats
};
/// "auto", "8", "adaptive" or "16", as options name it. Throws OptionError for others.
Activations activations(const std::string& name);
inline constexpr const char* kActivationsDoc =
    "what low-bit products round activations to: 8 bits, 16, or 16 where a few inputs tower over their block (adaptive); auto: "
    "16 in "
    "models narrower than 1,024, else adaptive";
/// The values of the two options.
inline std::vector<std::string> kv_cache_names() { return {"f16", "i8"}; }
inline std::vector<std::string> activations_names() { return {"auto", "8", "adaptive", "16"}; }

/// Where matrices are multiplied; all else is the processor's.
enum class Device : uint8_t { cpu, cuda };
/// "cpu" or "cuda", as options name it. Throws OptionError for others.
Device device(const std::string& name);
inline std::vector<std::string> device_names() { return {"cpu", "cuda"}; }
inline constexpr const char* kDeviceDoc =
    "where matrices of 2, 3, 4 or 8 bits are multiplied; cuda: on the graphics card, activations rounded to 16-bit floats, "
    "attention "
    "and all else on the processor (needs a build with LIGHTEN_CUDA)";

struct RuntimeOptions {
  int threads = 0;                              ///< 0: all processors
  bool exact = false;                           ///< float32 activations and KV cache: the mode that tests compare
  FloatStorage storage = FloatStorage::native;  ///< how weights of a float or GGUF model are kept
  KvFormat kv_cache = KvFormat::f16;            ///< of keys and values; `exact` makes it f32
  Activations activations = Activations::automatic;
  Device device = Device::cpu;
};

/// Keys and values of one sequence. Positions past `length` are free. Created by RuntimeModel::new_cache.
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual int64_t length() const = 0;
  virtual int64_t capacity() const = 0;
  virtual void truncate(int64_t length) = 0;  ///< forget everything from `length` on
  virtual uint64_t bytes() const = 0;         ///< pages shared with other caches included
  /// Another sequence with the same first `length` tokens. Memory is shared as long as neither writes into it. Throws
  /// OptionError if there are fewer.
  virtual std::unique_ptr<KvCache> fork(int64_t length) const = 0;
};

/// One sequence's share of a step over several.
struct BatchStep {
  KvCache* cache = nullptr;
  std::span<const int32_t> tokens = {};  ///< appended to the cache
  int64_t logits_for = 1;                ///< the last so many of them
};

class RuntimeModel {
 public:
  /// A light folder, a Hugging Face folder or a .gguf. Throws FileError, FormatError, ModelError.
  static std::unique_ptr<RuntimeModel> load(const fs::path& path, const RuntimeOptions& options = {});
  /// Random weights of a known shape ("llama-1b", "smollm2-135m"), packed at `bits`/`group_size`, head included: for speed
  /// only. bits 16: f16.
  static std::unique_ptr<RuntimeModel> random(const std::string& shape, int bits, int64_t group_size,
                                              const RuntimeOptions& options = {});
  virtual ~RuntimeModel() = default;

  virtual const ModelConfig& config() const = 0;
  virtual std::shared_ptr<const Tokenizer> tokenizer() const = 0;  ///< null for random models
  virtual std::string chat_template() const = 0;
  virtual uint64_t weight_bytes() const = 0;  ///< packed tensors as they lie in memory
  virtual uint64_t size_on_disk() const = 0;

  /// capacity 0: the model's context length, grown as needed.
  virtual std::unique_ptr<KvCache> new_cache(int64_t capacity = 0) const = 0;
  /// Appends `tokens` to the cache and writes logits of the last `logits_for` of them to `logits` [logits_for, vocab] (0:
  /// none). Throws OptionError if the context is full or an id is outside the vocabulary.
  virtual void forward(KvCache& cache, std::span<const int32_t> tokens, float* logits, int64_t logits_for = 1) = 0;
  /// The same for several sequences at once: every weight is read once for all of them. `logits` [sum of logits_for, vocab], in
  /// the order of the steps. A sequence's logits do not depend on its company where weights have 8 bits or fewer; float weights
  /// may be summed in another order. Throws as forward, and if a cache occurs twice; then no cache has changed.
  virtual void forward_batch(std::span<const BatchStep> steps, float* logits);
};

/// How the next token is chosen. Order: repetition penalty, temperature, top-k, top-p, min-p. temperature 0 is greedy.
struct SamplingOptions {
  double temperature = 0;
  int top_k = 0;                  ///< 0: off
  double top_p = 1;               ///< 1: off
  double min_p = 0;               ///< 0: off
  double repetition_penalty = 1;  ///< 1: off (CTRL's rule: positive logits divided, negative multiplied)
  int repetition_window = 64;
  uint64_t seed = 0;
};

/// Declared once: flags, validation, --help.
OptionList describe(SamplingOptions& options);

/// Draws from logits [vocab] (modified in place). `history`: the tokens so far, for the repetition penalty.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);
  ~Sampler();
  int32_t sample(std::span<float> logits, std::span<const int32_t> history);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct GenerateOptions {
  int64_t max_tokens = 256;
  SamplingOptions sampling = {};
  std::vector<std::string> stop =
      {};  ///< the text ends before the first of these; a special token's text ends it too, though it never shows
  bool ignore_end = false;  ///< go on past end-of-text
};
struct GenerateResult {
  std::string text;
  std::vector<int32_t> tokens;  ///< without the end token; the last one is not in the cache yet
  std::string reason;           ///< "stop", "length", "interrupted"
  int64_t prompt_tokens = 0;
  double prompt_seconds = 0, decode_seconds = 0;
};
/// Feeds `prompt` (ids after what the cache holds already) and generates. `on_text` gets text as it becomes complete (never
/// half a character, never a part of a stop string); returning false stops. Throws OptionError, before any work, if the prompt
/// is empty or does not fit.
GenerateResult generate(RuntimeModel& model, KvCache& cache, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<bool(const std::string&)>& on_text = {});

}  // namespace lighten
