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
  int threads = 0;
  bool exact = false;
  std::string json = {};  ///< file for text, tokens and speeds; "": none; "-": in place of the answer on standard output
};

/// All but model, prompt, stop and json, which a command line binds by hand.
OptionList describe(RunOptions& options);

/// A conversation whose past stays in the KV cache: only what is new is computed. Without a chat template (or raw) the texts
/// are simply strung together.
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
  std::vector<int32_t> render(const std::vector<ChatMessage>& messages) const;
  /// Drops the oldest exchanges of `messages` until their ids leave room for an answer.
  void make_room(std::vector<ChatMessage>& messages, std::vector<int32_t>& ids) const;
  RuntimeModel& model_;
  RunOptions options_;
  std::string template_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> cached_;  ///< the ids whose keys and values the cache holds
  std::vector<ChatMessage> messages_;
};

/// The part of run_command after loading.
int converse(Conversation& conversation, const RunOptions& options, Json report, std::istream& in, std::ostream& out);

/// Loads the model, then answers the prompt or, without one, the lines of `in` until its end or /exit (/reset forgets the
/// conversation). Text streams to `out`, one line with the speeds goes to standard error unless quiet. A message that cannot be
/// answered ends a chat no more than it loses its past. Returns the exit code: 0, or 130 after Ctrl-C. Throws FormatError if
/// the tokenizer has ids that the model has not, FileError if `out` takes no more.
int run_command(const RunOptions& options, std::istream& in, std::ostream& out);

}  // namespace lighten
