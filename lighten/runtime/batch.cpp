#include "lighten/runtime/batch.h"

#include <algorithm>
#include <chrono>
#include <deque>

#include "lighten/base/error.h"
#include "lighten/runtime/generation.h"

namespace lighten {
namespace {

constexpr int64_t kWorthSharing = 16;  // tokens that must be the same before a past is taken over

using Clock = std::chrono::steady_clock;
double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

int64_t same_tokens(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const size_t n = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()).first - a.begin();
}

/// A computed past and the ids it stands for.
struct Past {
  std::unique_ptr<KvCache> cache;
  std::vector<int32_t> ids;
};

}  // namespace

struct BatchGenerator::Text {
  std::vector<int32_t> ids;  ///< the prompt, then every token that was fed
  GenerateOptions options;
  std::function<bool(const std::string&)> on_text;
  std::unique_ptr<KvCache> cache;
  std::unique_ptr<runtime::Generation> generation;  ///< from joining on
  Clock::time_point joined, answering;
  GenerateResult result;
  bool done = false;

  int64_t unread() const { return static_cast<int64_t>(ids.size()) - cache->length(); }
  bool reads_prompt() const { return generation->result().tokens.empty(); }
};

struct BatchGenerator::State {
  RuntimeModel& model;
  BatchOptions options;
  std::deque<std::unique_ptr<Text>> texts;
  std::vector<Text*> waiting, running;
  std::deque<Past> pasts;  ///< of finished texts, the newest last
  std::vector<float> logits;
  int64_t reused = 0;

  void admit();
  bool join(Text& text);
  void end(Text& text);
  void sweep();
};

BatchGenerator::BatchGenerator(RuntimeModel& model, const BatchOptions& options)
    : state_(std::make_unique<State>(State{model, options, {}, {}, {}, {}, {}})) {
  if (options.parallel < 1) throw_error<OptionError>("--parallel {}: must be at least 1", options.parallel);
  if (options.prompt_tokens < 1) throw_error<OptionError>("prompt_tokens {}: must be at least 1", options.prompt_tokens);
}
BatchGenerator::~BatchGenerator() = default;

size_t BatchGenerator::add(std::vector<int32_t> prompt, const GenerateOptions& options,
                           std::function<bool(const std::string&)> on_text) {
  State& s = *state_;
  auto text = std::make_unique<Text>();
  text->cache = s.model.new_cache(s.options.context);
  const runtime::Generation possible(s.model, *text->cache, prompt, options, {});  // refuses now what could not be run later
  text->ids = std::move(prompt);
  text->options = options;
  text->on_text = std::move(on_text);
  s.waiting.push_back(text.get());
  s.texts.push_back(std::move(text));
  return s.texts.size() - 1;
}

/// Starts a text on the longest past that it shares; false if it had better wait for one that is being computed.
bool BatchGenerator::State::join(Text& text) {
  const int64_t most = static_cast<int64_t>(text.ids.size()) - 1;  // the last id is read for its logits
  const KvCache* best = nullptr;
  int64_t shared = 0;
  for (const Text* other : running) {
    const int64_t same = std::min(same_tokens(text.ids, other->ids), most), ready = std::min(same, other->cache->length());
    if (same - ready >= kWorthSharing) return false;
    if (ready > shared) best = other->cache.get(), shared = ready;
  }
  for (const Past& past : pasts) {
    const int64_t same = std::min(same_tokens(text.ids, past.ids), most);
    if (same > shared) best = past.cache.get(), shared = same;
  }
  if (shared >= kWorthSharing) {
    text.cache = best->fork(shared);
    reused += shared;
  }
  const auto past = static_cast<size_t>(text.cache->length());
  const std::span<const int32_t> ids = text.ids;
  text.generation =
      std::make_unique<runtime::Generation>(model, *text.cache, ids.subspan(past), text.options, text.on_text, ids.first(past));
  text.generation->result().prompt_tokens = static_cast<int64_t>(ids.size());
  text.joined = text.answering = Clock::now();
  return true;
}

void BatchGenerator::State::admit() {
  for (auto at = waiting.begin(); at != waiting.end() && static_cast<int64_t>(running.size()) < options.parallel;) {
    if (!join(**at)) {
      ++at;
      continue;
    }
    running.push_back(*at);
    at = waiting.erase(at);
  }
}

void BatchGenerator::State::end(Text& text) {
  text.result = std::move(text.generation->result());
  text.result.prompt_seconds = seconds_between(text.joined, text.answering);
  text.result.decode_seconds = seconds_between(text.answering, Clock::now());
  text.done = true;
  text.generation.reset();
  text.ids.resize(static_cast<size_t>(text.cache->length()));
  pasts.push_back({std::move(text.cache), std::move(text.ids)});
  while (static_cast<int64_t>(pasts.size()) > options.kept_pasts) pasts.pop_front();
}

/// Takes the texts that have ended out of the running ones.
void BatchGenerator::State::sweep() {
  std::erase_if(running, [](const Text* text) { return text->done; });
}

bool BatchGenerator::step() {
  State& s = *state_;
  s.admit();
  if (s.running.empty()) return false;
  std::vector<BatchStep> steps;
  std::vector<Text*> heard;  // texts whose logits come
  int64_t room = s.options.prompt_tokens;
  for (Text* text : s.running) {
    const int64_t count = text->reads_prompt() ? std::min(text->unread(), room) : 1;
    if (text->reads_prompt()) room -= count;
    if (count == 0) continue;
    const bool whole = count == text->unread();
    const std::span<const int32_t> unread = std::span(text->ids).subspan(static_cast<size_t>(text->cache->length()));
    steps.push_back({text->cache.get(), unread.first(static_cast<size_t>(count)), whole ? 1 : 0});
    if (whole) heard.push_back(text);
  }
  const auto vocab = static_cast<size_t>(s.model.config().vocab_size);
  s.logits.resize(heard.size() * vocab);
  s.model.forward_batch(steps, s.logits.data());
  for (size_t i = 0; i < heard.size(); ++i) {
    Text& text = *heard[i];
    if (text.reads_prompt()) text.answering = Clock::now();
    if (const std::optional<int32_t> token = text.generation->next(std::span(s.logits).subspan(i * vocab, vocab)))
      text.ids.push_back(*token);
    else
      s.end(text);
  }
  s.sweep();
  return true;
}

void BatchGenerator::leave(size_t number) {
  State& s = *state_;
  Text& text = *s.texts.at(number);
  if (text.done) return;
  if (text.generation) {
    text.generation->interrupt();
    s.end(text);
    s.sweep();
    return;
  }
  std::erase(s.waiting, &text);
  text.result.prompt_tokens = static_cast<int64_t>(text.ids.size());
  text.result.reason = "interrupted";
  text.done = true;
  text.cache.reset();
}

bool BatchGenerator::finished(size_t number) const { return state_->texts.at(number)->done; }
const GenerateResult& BatchGenerator::result(size_t number) const { return state_->texts.at(number)->result; }
int64_t BatchGenerator::reused_tokens() const { return state_->reused; }

}  // namespace lighten
