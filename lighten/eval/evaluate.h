// What did it cost? Perplexity, KL, agreement, with intervals, over one protocol for every engine.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/options.h"
#include "lighten/eval/statistics.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/formats/weights.h"
#include "lighten/runtime/model.h"

namespace lighten {

/// Anything that scores a window of tokens: the runtime, torch, a table in a test.
///
/// A window is handed over at once and its logits are fetched a few rows at a time, so that two models with large vocabularies
/// can be compared without holding [window, vocab] twice (Gemma: 0.5 GB each).
class LogitModel {
 public:
  virtual ~LogitModel() = default;
  virtual int64_t vocab_size() const = 0;
  /// Starts a window: `ids` from an empty context. The ids are copied.
  virtual void begin(std::span<const int32_t> ids) = 0;
  /// Logits of the window's next `count` positions: logits [count, vocab].
  virtual void next(int64_t count, float* logits) = 0;
  /// Logits of every position of `ids`, scored from an empty context: logits [ids.size(), vocab].
  void score(std::span<const int32_t> ids, float* logits) {
    begin(ids);
    next(static_cast<int64_t>(ids.size()), logits);
  }
};

enum class Engine : uint8_t { runtime, torch };

/// A model prepared for evaluation, with what the figures about its size need.
struct EvaluatedModel {
  std::unique_ptr<LogitModel> scorer;
  std::shared_ptr<const Tokenizer> tokenizer;
  ModelConfig config;
  uint64_t size_bytes = 0;     ///< all files
  double bits_per_weight = 0;  ///< tensor bytes x 8 / parameters
  int threads = 0;             ///< for the statistics over the vocabulary; 0: all processors
};
/// Opens a light, Hugging Face or GGUF model. `exact`: float32 activations, and float weights kept in float32 (runtime engine;
/// the torch engine always is). Without it the runtime works as a user runs it. The reference of a KL is to be opened exact.
EvaluatedModel open_for_evaluation(const fs::path& path, Engine engine, int threads, bool exact,
                                   KvFormat kv_cache = KvFormat::f16, Activations activations = Activations::automatic,
                                   Device device = Device::cpu);

struct Evaluation {
  double perplexity = 0, bits_per_byte = 0;
  int64_t tokens = 0;  ///< scored
  int64_t windows = 0;
  Interval perplexity_ci, bits_per_byte_ci;
  bool against = false;
  double against_perplexity = 0, perplexity_rise = 0;  ///< rise: perplexity / the other's - 1
  Interval against_perplexity_ci, perplexity_rise_ci;
  double kl_mean = 0, kl_p99 = 0, top1_agreement = 0;
  Interval kl_mean_ci, kl_p99_ci, top1_agreement_ci;
  uint64_t size_bytes = 0;     ///< the model's, copied
  double bits_per_weight = 0;  ///< the model's, copied
  double seconds = 0;          ///< both models and the statistics
  /// {"perplexity", "perplexity_ci": [low, high] or null if unknown, "tokens", ...}; KL and agreement only if `against`.
  Json json() const;
};

struct EvaluationOptions {
  int64_t window = 512;
  int64_t max_tokens = 0;  ///< cuts the text's tokens before windowing; 0: all
  int bootstrap = 1000;    ///< resamples over windows, 95 % percentile intervals
  uint64_t seed = 0;
};
/// Protocol: the whole text is tokenized without special tokens; windows of `window` tokens, no overlap, the last short one
/// dropped; each window scored alone, its first token not scored; a model whose tokenizer adds BOS gets BOS + window-1 tokens.
/// KL in nats, D(against || model), mean and 99th percentile over positions. bits_per_byte = sum of -log2 p / bytes of the
/// scored tokens' text. Throws FormatError if the text gives no whole window, ModelError if vocabularies differ or logits are
/// NaN, OptionError if the window does not fit the model's context.
Evaluation evaluate(EvaluatedModel& model, EvaluatedModel* against, const std::string& text,
                    const EvaluationOptions& options = {});

/// The windows of that protocol. `bos` -1: none is put before.
std::vector<std::vector<int32_t>> evaluation_windows(std::span<const int32_t> ids, int32_t bos,
                                                     const EvaluationOptions& options);

}  // namespace lighten
