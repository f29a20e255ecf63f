// A model without weights that says what a test tells it to, and a tokenizer whose tokens are pieces of text.
#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "lighten/base/error.h"
#include "lighten/runtime/model.h"

namespace lighten::test {

/// Token i is the text pieces[i]; encode takes the longest piece that fits and leaves out "~". Pieces that begin with "<|" are
/// special.
class PieceTokenizer final : public Tokenizer {
 public:
  explicit PieceTokenizer(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  std::vector<int32_t> encode(std::string_view text, bool) const override {
    std::vector<int32_t> ids;
    while (!text.empty()) {
      int32_t best = -1;
      for (int32_t i = 0; i < size(); ++i)
        if (text.starts_with(token(i)) && (best < 0 || token(i).size() > token(best).size())) best = i;
      if (best < 0 && text.front() != '~') throw FormatError("no piece for: " + std::string(text));
      if (best < 0) {
        text.remove_prefix(1);
        continue;
      }
      ids.push_back(best);
      text.remove_prefix(token(best).size());
    }
    return ids;
  }
  std::string decode(const std::vector<int32_t>& ids, bool skip_special) const override {
    std::string text;
    for (const int32_t id : ids) text += piece(id, skip_special);
    return text;
  }
  std::string piece(int32_t id, bool skip_special) const override { return skip_special && is_special(id) ? "" : token(id); }
  int32_t size() const override { return static_cast<int32_t>(pieces_.size()); }
  int32_t id(std::string_view token) const override {
    const auto found = std::find(pieces_.begin(), pieces_.end(), token);
    return found == pieces_.end() ? -1 : static_cast<int32_t>(found - pieces_.begin());
  }
  std::string token(int32_t id) const override { return pieces_.at(static_cast<size_t>(id)); }
  bool is_special(int32_t id) const override { return token(id).starts_with("<|"); }
  int32_t bos() const override { return -1; }
  int32_t eos() const override { return -1; }
  bool adds_bos() const override { return false; }
  Json to_json() const override { return {{"pieces", pieces_}}; }

 private:
  std::vector<std::string> pieces_;
};

struct ScriptedCache final : KvCache {
  explicit ScriptedCache(int64_t capacity) : room(capacity) {}
  int64_t length() const override { return now; }
  int64_t capacity() const override { return room; }
  void truncate(int64_t length) override { now = length; }
  uint64_t bytes() const override { return 0; }
  std::unique_ptr<KvCache> fork(int64_t length) const override {
    auto copy = std::make_unique<ScriptedCache>(room);
    copy->now = length;
    return copy;
  }
  int64_t room, now = 0;
};

/// Says the tokens of `script`, one after each forward that asks for logits.
class ScriptedModel final : public RuntimeModel {
 public:
  ScriptedModel(std::vector<std::string> pieces, std::string chat_template = "")
      : tokenizer_(std::make_shared<PieceTokenizer>(std::move(pieces))), template_(std::move(chat_template)) {
    config_.vocab_size = tokenizer_->size();
    config_.context_length = 1000;
  }
  void say(const std::vector<std::string>& pieces) {
    script_.clear();
    for (const std::string& piece : pieces) script_.push_back(tokenizer_->id(piece));
    next_ = 0;
  }
  ModelConfig& settings() { return config_; }
  const std::vector<int32_t>& fed() const { return fed_; }  ///< every id that went through forward
  void forget_fed() { fed_.clear(); }

  const ModelConfig& config() const override { return config_; }
  std::shared_ptr<const Tokenizer> tokenizer() const override { return tokenizer_; }
  std::string chat_template() const override { return template_; }
  uint64_t weight_bytes() const override { return 0; }
  uint64_t size_on_disk() const override { return 0; }
  std::unique_ptr<KvCache> new_cache(int64_t capacity) const override {
    return std::make_unique<ScriptedCache>(capacity == 0 ? config_.context_length : capacity);
  }
  void forward(KvCache& cache, std::span<const int32_t> tokens, float* logits, int64_t logits_for) override {
    auto& scripted = static_cast<ScriptedCache&>(cache);
    scripted.now += static_cast<int64_t>(tokens.size());
    if (scripted.now > scripted.room) throw OptionError("the context is full");
    fed_.insert(fed_.end(), tokens.begin(), tokens.end());
    if (logits_for == 0) return;
    std::fill(logits, logits + config_.vocab_size, 0.0f);
    logits[script_.at(next_++)] = 1;
  }

 private:
  ModelConfig config_;
  std::shared_ptr<const PieceTokenizer> tokenizer_;
  std::string template_;
  std::vector<int32_t> script_, fed_;
  size_t next_ = 0;
};

}  // namespace lighten::test
