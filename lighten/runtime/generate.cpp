#include "lighten/runtime/generation.h"

#include <algorithm>
#include <chrono>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"

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

namespace runtime {

Generation::Generation(const RuntimeModel& model, const KvCache& cache, std::span<const int32_t> prompt,
                       const GenerateOptions& options, OnText on_text, std::span<const int32_t> past)
    : cache_(cache),
      max_tokens_(options.max_tokens),
      on_text_(std::move(on_text)),
      history_(past.begin(), past.end()),
      sampler_(options.sampling),
      filter_(options.stop) {
  if (prompt.empty()) throw OptionError("the prompt is empty: there is nothing to continue");
  if (options.max_tokens < 0) throw_error<OptionError>("--max-tokens {}: must not be negative", options.max_tokens);
  if (const auto needed = cache.length() + static_cast<int64_t>(prompt.size()); needed > cache.capacity())
    throw_error<OptionError>("the text has {} tokens, but the context has room for {}; shorten it or give a longer context",
                             needed, cache.capacity());
  const std::shared_ptr<const Tokenizer> tokenizer = model.tokenizer();
  history_.insert(history_.end(), prompt.begin(), prompt.end());
  ends_ = end_tokens(model, tokenizer.get(), options);
  if (tokenizer) decoder_.emplace(tokenizer);
  result_.prompt_tokens = static_cast<int64_t>(prompt.size());
}

void Generation::emit(const std::string& text) {
  result_.text += text;
  if (!text.empty() && on_text_ && listening_) listening_ = on_text_(text);
}

std::optional<int32_t> Generation::finish(const std::string& reason) {
  result_.reason = reason;
  if (decoder_ && !filter_.stopped()) emit(filter_.add(decoder_->finish()));
  emit(filter_.finish());
  return std::nullopt;
}

std::optional<int32_t> Generation::next(std::span<float> logits) {
  if (!takes_more()) return finish("length");
  const int32_t token = sampler_.sample(logits, history_);
  if (std::find(ends_.begin(), ends_.end(), token) != ends_.end()) return finish("stop");
  result_.tokens.push_back(token);
  history_.push_back(token);
  if (decoder_) emit(filter_.add(decoder_->add(token)));
  if (filter_.stopped() || !listening_) return finish("stop");
  if (!takes_more() || cache_.length() >= cache_.capacity()) return finish("length");
  return token;
}

}  // namespace runtime

GenerateResult generate(RuntimeModel& model, KvCache& cache, std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<bool(const std::string&)>& on_text) {
  runtime::Generation generation(model, cache, prompt, options, on_text);
  std::vector<float> logits(static_cast<size_t>(model.config().vocab_size));
  auto start = std::chrono::steady_clock::now();
  if (!feed(model, cache, prompt, logits.data())) generation.interrupt();
  const double prompt_seconds = seconds_since(start);
  start = std::chrono::steady_clock::now();
  while (!generation.finished()) {
    if (interrupt_requested()) {
      generation.interrupt();
    } else if (const std::optional<int32_t> token = generation.next(logits)) {
      model.forward(cache, std::span(&*token, 1), logits.data(), 1);
    }
  }
  GenerateResult result = std::move(generation.result());
  result.prompt_seconds = prompt_seconds;
  result.decode_seconds = seconds_since(start);
  return result;
}

}  // namespace lighten
