// One text on its way: what was said so far, and how the next token is chosen.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lighten/runtime/model.h"
#include "lighten/runtime/stop_filter.h"

namespace lighten::runtime {

class Generation {
 public:
  using OnText = std::function<bool(const std::string&)>;
  /// `prompt` goes after what `cache` holds; the cache must outlive the generation. `past`: ids before the prompt that the
  /// repetition penalty shall see too. Throws OptionError if the prompt is empty or does not fit.
  Generation(const RuntimeModel& model, const KvCache& cache, std::span<const int32_t> prompt, const GenerateOptions& options,
             OnText on_text, std::span<const int32_t> past = {});
  /// Chooses from the newest token's logits [vocab], which it modifies. The token to feed next, or nothing: the text has ended
  /// and the result says why.
  std::optional<int32_t> next(std::span<float> logits);
  void interrupt() { finish("interrupted"); }
  bool finished() const { return !result_.reason.empty(); }
  GenerateResult& result() { return result_; }

 private:
  bool takes_more() const { return static_cast<int64_t>(result_.tokens.size()) < max_tokens_; }
  void emit(const std::string& text);
  std::optional<int32_t> finish(const std::string& reason);

  const KvCache& cache_;
  int64_t max_tokens_;
  OnText on_text_;
  std::vector<int32_t> ends_, history_;
  Sampler sampler_;
  StopFilter filter_;
  std::optional<StreamDecoder> decoder_;
  bool listening_ = true;
  GenerateResult result_;
};

}  // namespace lighten::runtime
