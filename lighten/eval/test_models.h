// Evaluation tests' stand-ins: one token a byte, logits from a function.
#pragma once
#include <functional>
#include <utility>

#include "lighten/eval/evaluate.h"

namespace lighten {

/// 'a' is 0, 'b' is 1, ...; ids past 25 are special tokens without text. '|' is the special token 26, or 'z' where special
/// tokens are not recognised.
class LetterTokenizer : public Tokenizer {
 public:
  explicit LetterTokenizer(int32_t bos = -1) : bos_(bos) {}
  std::vector<int32_t> encode(std::string_view text, bool special = true) const override {
    std::vector<int32_t> ids;
    for (const char letter : text) ids.push_back(letter != '|' ? letter - 'a' : special ? 26 : 25);
    return ids;
  }
  std::string decode(const std::vector<int32_t>& ids, bool = false) const override {
    std::string text;
    for (const int32_t id : ids) text += piece(id);
    return text;
  }
  std::string piece(int32_t id, bool = false) const override {
    return id < 26 ? std::string(1, static_cast<char>('a' + id)) : std::string();
  }
  int32_t size() const override { return 27; }
  int32_t id(std::string_view token) const override { return token.size() == 1 ? token[0] - 'a' : -1; }
  std::string token(int32_t id) const override { return piece(id); }
  bool is_special(int32_t id) const override { return id == bos_; }
  int32_t bos() const override { return bos_; }
  int32_t eos() const override { return -1; }
  bool adds_bos() const override { return bos_ >= 0; }
  Json to_json() const override { return {}; }

 private:
  int32_t bos_;
};

/// logits[i] = rule(window so far, i).
class RuleModel : public LogitModel {
 public:
  using Rule = std::function<float(std::span<const int32_t> seen, int32_t token)>;
  RuleModel(int64_t vocab, Rule rule) : vocab_(vocab), rule_(std::move(rule)) {}
  int64_t vocab_size() const override { return vocab_; }
  void begin(std::span<const int32_t> ids) override {
    ids_.assign(ids.begin(), ids.end());
    windows.push_back(ids_);
    position_ = 0;
  }
  void next(int64_t count, float* logits) override {
    chunks.push_back(count);
    for (int64_t row = 0; row < count; ++row) {
      const auto seen = std::span<const int32_t>(ids_).first(++position_);
      for (int64_t i = 0; i < vocab_; ++i) *logits++ = rule_(seen, static_cast<int32_t>(i));
    }
  }
  std::vector<std::vector<int32_t>> windows;  ///< what was scored
  std::vector<int64_t> chunks;                ///< how many rows were fetched at a time

 private:
  int64_t vocab_;
  Rule rule_;
  std::vector<int32_t> ids_;
  size_t position_ = 0;
};

inline EvaluatedModel rule_model(int64_t vocab, RuleModel::Rule rule, int32_t bos = -1) {
  EvaluatedModel model;
  model.scorer = std::make_unique<RuleModel>(vocab, std::move(rule));
  model.tokenizer = std::make_shared<LetterTokenizer>(bos);
  model.config.context_length = 1024;
  model.threads = 1;
  return model;
}
inline const RuleModel& rule_of(const EvaluatedModel& model) { return static_cast<const RuleModel&>(*model.scorer); }

}  // namespace lighten
