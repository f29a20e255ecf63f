// Several texts at once: every step reads the weights once for all of them.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lighten/runtime/model.h"

namespace lighten {

struct BatchOptions {
  int64_t parallel = 8;         ///< texts on their way at once; the others wait
  int64_t context = 0;          ///< tokens of each text; 0: the model's context
  int64_t prompt_tokens = 128;  ///< prompt tokens in one step, so that texts on their way never wait long
  int64_t kept_pasts = 4;       ///< caches of finished texts that are kept for later texts with the same beginning
};

/// Continuous batching: texts join and leave at any step. A text whose first tokens another one has computed takes them over
/// (its keys and values are shared, not copied); one that would begin like another that is still reading its prompt waits for
/// it. Each text is the one that generate() would give with the same options.
class BatchGenerator {
 public:
  /// Throws OptionError if a number is out of range.
  explicit BatchGenerator(RuntimeModel& model, const BatchOptions& options = {});
  ~BatchGenerator();

  /// Queues a text, at any time; its number, counting from 0. Throws as generate().
  size_t add(std::vector<int32_t> prompt, const GenerateOptions& options = {},
             std::function<bool(const std::string&)> on_text = {});
  /// One pass: a token for every text on its way, prompt tokens for those that joined. False if nothing was left to do.
  bool step();
  /// Ends a text early: its reason is "interrupted". Nothing happens if it has ended already. Not from on_text, which returns
  /// false instead.
  void leave(size_t number);
  bool finished(size_t number) const;
  /// Final once finished(number). Seconds count from joining, and include the other texts' share.
  const GenerateResult& result(size_t number) const;
  /// Prompt tokens that were taken over from other texts so far.
  int64_t reused_tokens() const;

 private:
  struct Text;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lighten
