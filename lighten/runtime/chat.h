// `lighten run`: one prompt, or a chat on the terminal.
#pragma once
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "lighten/base/options.h"
#include "lighten/runtime/model.h"

namespace lighten {

struct RunOptions {
  std::string model = {};                  ///< a path: light folder, Hugging Face folder or .gguf
  std::optional<std::string> prompt = {};  ///< none: interactive chat
  std::string system = {};                 ///< system message; "": what the template says by itself
  bool raw = false;                        ///< no chat template: the text is continued as it is
  int64_t max_tokens = 256;                ///< of one answer
  SamplingOptions sampling = {};
  std::vector<std::string> stop = {};
  bool ignore_end = false;
  int64_t context = 0;  ///< tokens of the KV cache; 0: the model's context
  std::string kv_cache = "f16", activations = "auto", device = "cpu";
  std::string prompts = {};  ///< a file of prompts that are answered together; "": none
  int64_t parallel = 8;      ///< of them, at once
  int threads = 0;
  bool exact = false;
  std::string json = {};  ///< file for text, tokens and speeds; "": none; "-": in place of the answer on standard output
};

/// All but model, prompt, prompts, stop and json, which a command line binds by hand.
OptionList describe(RunOptions& options);

/// Text, tokens, reason and speeds, as `--json` writes them.
Json to_json(const GenerateResult& result);

/// What a tokenizer and a chat template make of messages. Without a template (or raw) the texts are simply strung together.
class PromptWriter {
 public:
  /// Throws ModelError if the model brings no tokenizer.
  PromptWriter(const RuntimeModel& model, const RunOptions& options);
  std::vector<int32_t> ids(const std::vector<ChatMessage>& messages) const;
  /// How an answer to these is generated: the options, and the stop strings of the template.
  const GenerateOptions& how() const { return how_; }

 private:
  std::string template_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  GenerateOptions how_;
};

/// A conversation whose past stays in the KV cache: only what is new is computed.
class Conversation {
 public:
  Conversation(RuntimeModel& model, const RunOptions& options);
  /// The model's answer to `message`. Oldest turns are dropped when the context is full. Throws OptionError for a message that
  /// is empty or does not fit even alone; the conversation is then as it was.
  GenerateResult answer(const std::string& message, const std::function<bool(const std::string&)>& on_text = {});
  void reset();
  const std::vector<ChatMessage>& messages() const { return messages_; }
  int64_t cached_tokens() const { return cache_->length(); }

 private:
  /// Drops the oldest exchanges of `messages` until their ids leave room for an answer.
  void make_room(std::vector<ChatMessage>& messages, std::vector<int32_t>& ids) const;
  RuntimeModel& model_;
  RunOptions options_;
  PromptWriter writer_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> cached_;  ///< the ids whose keys and values the cache holds
  std::vector<ChatMessage> messages_;
};

/// The part of run_command after loading.
int converse(Conversation& conversation, const RunOptions& options, Json report, std::istream& in, std::ostream& out);

/// The prompts of a file: one on each line, or (name ends in .jsonl) a JSON string or {"prompt": ...} on each line; empty lines
/// are left out. Throws FileError, FormatError with the line's number.
std::vector<std::string> read_prompts(const fs::path& file);

/// Answers the prompts of options.prompts together; on `out` a line of JSON {"index", "prompt", "text", "reason", ...} for each
/// as it is done; one that does not fit gets "error" in place of the text, and the exit code is 1. The part of run_command
/// after loading.
int answer_prompts(RuntimeModel& model, const RunOptions& options, Json report, std::ostream& out);

/// Loads the model, then answers the prompt, the file of prompts or, without one, the lines of `in` until its end or /exit
/// (/reset forgets the conversation). Text streams to `out`, one line with the speeds goes to standard error unless quiet. A
/// message that cannot be answered ends a chat no more than it loses its past. Returns the exit code: 0, or 130 after Ctrl-C.
/// Throws FormatError if the tokenizer has ids that the model has not, FileError if `out` takes no more.
int run_command(const RunOptions& options, std::istream& in, std::ostream& out);

}  // namespace lighten
