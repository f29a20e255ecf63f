#include "lighten/runtime/chat.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <istream>
#include <ostream>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"

namespace lighten {
namespace {

constexpr int kInterruptedExit = 130;

double rate(double tokens, double seconds) { return seconds > 0 && tokens > 0 ? tokens / seconds : 0; }

/// The first token of an answer comes out of the prompt's own pass.
double decode_rate(const GenerateResult& r) { return rate(static_cast<double>(r.tokens.size()) - 1, r.decode_seconds); }
double prompt_rate(const GenerateResult& r) { return rate(static_cast<double>(r.prompt_tokens), r.prompt_seconds); }

std::string speed_line(const GenerateResult& r) {
  return fmt::format("[prompt {} tokens, {:.0f} tokens/s; answer {} tokens, {:.1f} tokens/s; {}]", r.prompt_tokens,
                     prompt_rate(r), r.tokens.size(), decode_rate(r), r.reason);
}

/// "-" is `out`, where no answer is then printed.
bool json_goes_to_out(const RunOptions& options) { return options.json == "-"; }

void write_json(const RunOptions& options, const Json& json, std::ostream& out) {
  if (json_goes_to_out(options))
    out << json_text(json, 1) << std::endl;
  else if (!options.json.empty())
    write_file(options.json, json_text(json, 1) + "\n");
}

GenerateResult say(Conversation& conversation, const RunOptions& options, const std::string& message, std::ostream& out) {
  const bool print = !json_goes_to_out(options);
  GenerateResult result = conversation.answer(message, [&](const std::string& text) {
    if (print) out << text << std::flush;
    return out.good();
  });
  if (print) out << std::endl;
  info(speed_line(result));
  return result;
}

int one_prompt(Conversation& conversation, const RunOptions& options, Json report, std::ostream& out) {
  const GenerateResult result = say(conversation, options, *options.prompt, out);
  report.update(to_json(result));
  write_json(options, report, out);
  return result.reason == "interrupted" ? kInterruptedExit : 0;
}

/// One line of the chat. What is wrong with a message is said, and the chat goes on.
Json turn(Conversation& conversation, const RunOptions& options, const std::string& line, std::ostream& out) {
  Json turn = {{"message", line}};
  try {
    turn.update(to_json(say(conversation, options, line, out)));
  } catch (const Error& error) {
    warn(error.what());
    turn["error"] = error.what();
  }
  return turn;
}

int chat(Conversation& conversation, const RunOptions& options, Json report, std::istream& in, std::ostream& out) {
  const bool terminal = ::isatty(STDIN_FILENO) == 1 && ::isatty(STDERR_FILENO) == 1;
  if (terminal) info("Type a message; /reset forgets the conversation, /exit (or Ctrl-D) ends it.");
  report["turns"] = Json::array();
  std::string line;
  while (out.good() && !interrupt_requested()) {
    if (terminal) fmt::print(stderr, "> ");
    if (!std::getline(in, line)) break;
    if (line.ends_with('\r')) line.pop_back();  // written on Windows
    if (line == "/exit") break;
    if (line == "/reset") {
      conversation.reset();
    } else if (!line.empty()) {
      report["turns"].push_back(turn(conversation, options, line, out));
    }
  }
  if (terminal) fmt::print(stderr, "\n");
  write_json(options, report, out);
  return interrupt_requested() ? kInterruptedExit : 0;
}

/// A token that the model has no row for would end the answer half way. Special tokens may lie outside (Gemma's tokenizer names
/// one for images); rows without a token are padding.
void check_vocabulary(const RuntimeModel& model, const std::string& path) {
  const std::shared_ptr<const Tokenizer> tokenizer = model.tokenizer();
  if (!tokenizer) return;
  const auto rows = static_cast<int32_t>(model.config().vocab_size);
  for (int32_t id = rows; id < tokenizer->size(); ++id)
    if (!tokenizer->is_special(id) && !tokenizer->token(id).empty())
      throw_error<FormatError>(
          "{}: the token \"{}\" has the id {}, but the model's vocabulary has {} entries: tokenizer and weights do not belong "
          "together",
          fs::is_directory(path) ? (fs::path(path) / "tokenizer.json").string() : path, tokenizer->token(id), id, rows);
}

}  // namespace

Json to_json(const GenerateResult& r) {
  return {{"text", r.text},
          {"tokens", r.tokens},
          {"reason", r.reason},
          {"prompt_tokens", r.prompt_tokens},
          {"prompt_seconds", r.prompt_seconds},
          {"prompt_tokens_per_s", prompt_rate(r)},
          {"decode_seconds", r.decode_seconds},
          {"decode_tokens_per_s", decode_rate(r)}};
}

OptionList describe(RunOptions& o) {
  OptionList list = {
      option("max-tokens", o.max_tokens, range(0, 1e9), "longest answer", "Lighten", "tokens"),
      option("system", o.system, any_value(), "system message, in place of the one that the chat template brings", "Lighten"),
      Option("raw", o.raw, "continue the text as it is, without the chat template", "Lighten"),
  };
  for (Option& entry : describe(o.sampling)) list.push_back(std::move(entry));
  list.push_back(Option("ignore-end", o.ignore_end, "go on past the end of the answer", "Lighten"));
  list.push_back(option("context", o.context, range(0, 1 << 30), "longest conversation; 0: as long as the model allows",
                        "Lighten", "tokens"));
  list.push_back(option("kv-cache", o.kv_cache, one_of(kv_cache_names()), kKvCacheDoc, "Lighten"));
  list.push_back(option("activations", o.activations, one_of(activations_names()), kActivationsDoc, "Lighten"));
  list.push_back(option("parallel", o.parallel, range(1, 4096), "prompts of --prompts that are answered at once", "Lighten"));
  list.push_back(option("threads", o.threads, range(0, 4096), "processors to use; 0: all", "Lighten"));
  list.push_back(option("device", o.device, one_of(device_names()), kDeviceDoc, "Lighten"));
  list.push_back(Option("exact", o.exact, "compute with float32 activations and KV cache (slower)", "Lighten"));
  return list;
}

PromptWriter::PromptWriter(const RuntimeModel& model, const RunOptions& options)
    : tokenizer_(model.tokenizer()),
      how_{.max_tokens = options.max_tokens,
           .sampling = options.sampling,
           .stop = options.stop,
           .ignore_end = options.ignore_end} {
  if (!tokenizer_) throw ModelError("the model brings no tokenizer (tokenizer.json), so it cannot read text");
  if (!options.raw) template_ = model.chat_template();
  const ChatFormat format = detect_chat_format(template_);
  if (format == ChatFormat::none) template_.clear();
  if (format != ChatFormat::none && !options.ignore_end)
    for (std::string& stop : chat_stop_strings(format)) how_.stop.push_back(std::move(stop));
}

std::vector<int32_t> PromptWriter::ids(const std::vector<ChatMessage>& messages) const {
  std::string text;
  if (!template_.empty())
    text = render_chat(template_, messages);
  else
    for (const ChatMessage& message : messages) text += message.content;
  std::vector<int32_t> ids = tokenizer_->encode(text);
  if (tokenizer_->adds_bos() && tokenizer_->bos() >= 0 && (ids.empty() || ids.front() != tokenizer_->bos()))
    ids.insert(ids.begin(), tokenizer_->bos());
  const std::string& last = messages.back().content;
  if (ids.empty() && last.empty()) throw OptionError("the prompt is empty: there is nothing to continue");
  if (ids.empty())
    throw_error<OptionError>("the tokenizer knows no character of the prompt \"{}\": there is nothing to continue", last);
  return ids;
}

Conversation::Conversation(RuntimeModel& model, const RunOptions& options)
    : model_(model), options_(options), writer_(model, options), cache_(model.new_cache(options.context)) {
  reset();
}

void Conversation::reset() {
  messages_.clear();
  if (!options_.system.empty()) messages_.push_back({"system", options_.system});
}

void Conversation::make_room(std::vector<ChatMessage>& messages, std::vector<int32_t>& ids) const {
  const int64_t capacity = cache_->capacity(), room = capacity - std::min(options_.max_tokens, capacity / 4);
  const std::ptrdiff_t system = options_.system.empty() ? 0 : 1;
  const auto too_long = [&] { return static_cast<int64_t>(ids.size()) > room && std::ssize(messages) >= system + 3; };
  if (!too_long()) return;
  std::vector<ChatMessage> alone(messages.begin(), messages.begin() + system);
  alone.push_back(messages.back());
  if (const size_t least = writer_.ids(alone).size(); static_cast<int64_t>(least) > capacity)
    throw_error<OptionError>("the message has {} tokens, but the context has room for {}; shorten it", least, capacity);
  while (too_long()) {
    info("the context is full: the oldest exchange is dropped");
    messages.erase(messages.begin() + system, messages.begin() + system + 2);
    ids = writer_.ids(messages);
  }
}

GenerateResult Conversation::answer(const std::string& message, const std::function<bool(const std::string&)>& on_text) {
  std::vector<ChatMessage> messages = messages_;
  messages.push_back({"user", message});
  std::vector<int32_t> ids = writer_.ids(messages);
  make_room(messages, ids);

  // What the cache holds already need not be computed again; the last id must, for its logits.
  const auto limit = std::min(cached_.size(), ids.size() - 1);
  const auto same = static_cast<size_t>(
      std::mismatch(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(limit), cached_.begin()).first - ids.begin());
  cache_->truncate(static_cast<int64_t>(same));
  cached_.resize(same);

  GenerateResult result;
  try {
    result = generate(model_, *cache_, std::span(ids).subspan(same), writer_.how(), on_text);
  } catch (...) {
    cache_->truncate(static_cast<int64_t>(same));
    throw;
  }
  cached_ = std::move(ids);
  cached_.insert(cached_.end(), result.tokens.begin(), result.tokens.end());
  cached_.resize(static_cast<size_t>(cache_->length()));
  messages_ = std::move(messages);
  messages_.push_back({"assistant", result.text});
  return result;
}

int converse(Conversation& conversation, const RunOptions& options, Json report, std::istream& in, std::ostream& out) {
  const int code = options.prompt ? one_prompt(conversation, options, std::move(report), out)
                                  : chat(conversation, options, std::move(report), in, out);
  if (!out.good()) throw FileError("cannot write the answer to standard output: the disk is full, or nobody reads it");
  return code;
}

int run_command(const RunOptions& options, std::istream& in, std::ostream& out) {
  RunOptions checked = options;
  validate(describe(checked));
  const auto start = std::chrono::steady_clock::now();
  const std::unique_ptr<RuntimeModel> model =
      RuntimeModel::load(options.model, {.threads = options.threads,
                                         .exact = options.exact,
                                         .kv_cache = kv_format(options.kv_cache),
                                         .activations = activations(options.activations),
                                         .device = device(options.device)});
  check_vocabulary(*model, options.model);
  const double load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!options.raw && detect_chat_format(model->chat_template()) == ChatFormat::none)
    info("no chat template: the prompt is continued as it is");
  Json report = {{"model", options.model}, {"load_seconds", load_seconds}, {"weight_bytes", model->weight_bytes()}};
  if (!options.prompts.empty()) return answer_prompts(*model, options, std::move(report), out);
  Conversation conversation(*model, options);
  return converse(conversation, options, std::move(report), in, out);
}

}  // namespace lighten
