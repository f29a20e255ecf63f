#include <algorithm>
#include <chrono>
#include <optional>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/runtime/model.h"
#include "lighten/runtime/stop_filter.h"

namespace lighten {
namespace {

constexpr size_t kPromptStep = 256;  // tokens between two looks at Ctrl-C

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Feeds the prompt; false when interrupted on the way.
bool feed(RuntimeModel& model, KvCache& cache, std::span<const int32_t> prompt, float* logits) {
  while (prompt.size() > kPromptStep) {
    if (interrupt_requested()) return false;
    model.forward(cache, prompt.first(kPromptStep), nullptr, 0);
    prompt = prompt.subspan(kPromptStep);
  }
  model.forward(cache, prompt, logits, 1);
  return true;
}

std::vector<int32_t> end_tokens(const RuntimeModel& model, const Tokenizer* tokenizer, const GenerateOptions& options) {
  std::vector<int32_t> ends;
  if (!options.ignore_end) ends.insert(ends.end(), model.config().end_tokens.begin(), model.config().end_tokens.end());
  if (tokenizer == nullptr) return ends;
  if (!options.ignore_end && tokenizer->eos() >= 0) ends.push_back(tokenizer->eos());
  for (const std::string& stop : options.stop)  // a special token never shows in the text
    if (const int32_t id = tokenizer->id(stop); id >= 0 && tokenizer->is_special(id)) ends.push_back(id);
  return ends;
}

}  // namespace

GenerateResult generate(RuntimeModel& model, KvCache& cache, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<bool(const std::string&)>& on_text) {
  if (prompt.empty()) throw OptionError("the prompt is empty: there is nothing to continue");
  if (options.max_tokens < 0) throw_error<OptionError>("--max-tokens {}: must not be negative", options.max_tokens);
  if (const auto needed = cache.length() + static_cast<int64_t>(prompt.size()); needed > cache.capacity())
    throw_error<OptionError>("the text has {} tokens, but the context has room for {}; shorten it or give a longer context",
                             needed, cache.capacity());
  const std::shared_ptr<const Tokenizer> tokenizer = model.tokenizer();
  const std::vector<int32_t> ends = end_tokens(model, tokenizer.get(), options);
  Sampler sampler(options.sampling);
  runtime::StopFilter filter(options.stop);
  std::optional<StreamDecoder> decoder;
  if (tokenizer) decoder.emplace(tokenizer);
  std::vector<float> logits(static_cast<size_t>(model.config().vocab_size));
  std::vector<int32_t> history(prompt.begin(), prompt.end());

  GenerateResult result;
  result.prompt_tokens = static_cast<int64_t>(prompt.size());
  bool listening = true;
  const auto emit = [&](const std::string& text) {
    result.text += text;
    if (!text.empty() && on_text && listening) listening = on_text(text);
  };

  auto start = std::chrono::steady_clock::now();
  if (!feed(model, cache, prompt, logits.data())) result.reason = "interrupted";
  result.prompt_seconds = seconds_since(start);
  start = std::chrono::steady_clock::now();
  while (result.reason.empty()) {
    if (static_cast<int64_t>(result.tokens.size()) >= options.max_tokens) {
      result.reason = "length";
    } else if (interrupt_requested()) {
      result.reason = "interrupted";
    } else {
      const int32_t next = sampler.sample(logits, history);
      if (std::find(ends.begin(), ends.end(), next) != ends.end()) {
        result.reason = "stop";
        break;
      }
      result.tokens.push_back(next);
      history.push_back(next);
      if (decoder) emit(filter.add(decoder->add(next)));
      if (filter.stopped() || !listening)
        result.reason = "stop";
      else if (cache.length() >= cache.capacity())
        result.reason = "length";
      else if (static_cast<int64_t>(result.tokens.size()) < options.max_tokens)
        model.forward(cache, std::span(&next, 1), logits.data(), 1);
    }
  }
  result.decode_seconds = seconds_since(start);
  if (decoder && !filter.stopped()) emit(filter.add(decoder->finish()));
  emit(filter.finish());
  return result;
}

}  // namespace lighten
