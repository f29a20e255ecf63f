#include "lighten/eval/scorers.h"

#include "lighten/base/error.h"

namespace lighten {

namespace {

class TorchScorer : public LogitModel {
 public:
  explicit TorchScorer(Decoder decoder) : decoder_(std::move(decoder)) {}
  int64_t vocab_size() const override { return decoder_->config.vocab_size; }

  void begin(std::span<const int32_t> ids) override {
    const torch::InferenceMode inference;
    const std::vector<int64_t> wide(ids.begin(), ids.end());
    hidden_ = decoder_->hidden_states(torch::tensor(wide).unsqueeze(0)).squeeze(0);
    position_ = 0;
  }

  void next(int64_t count, float* logits) override {
    const torch::InferenceMode inference;
    if (position_ + count > hidden_.size(0)) throw_error<OptionError>("logits asked past the end of the window");
    const auto rows = decoder_->head(hidden_.slice(0, position_, position_ + count));
    torch::from_blob(logits, {count, vocab_size()}).copy_(rows);
    position_ += count;
  }

 private:
  Decoder decoder_;
  torch::Tensor hidden_;  // [window, hidden]
  int64_t position_ = 0;
};

class RuntimeScorer : public LogitModel {
 public:
  explicit RuntimeScorer(std::unique_ptr<RuntimeModel> model) : model_(std::move(model)) {}
  int64_t vocab_size() const override { return model_->config().vocab_size; }

  void begin(std::span<const int32_t> ids) override {
    ids_.assign(ids.begin(), ids.end());
    const auto length = static_cast<int64_t>(ids.size());
    if (!cache_ || cache_->capacity() < length) cache_ = model_->new_cache(length);
    cache_->truncate(0);
  }

  void next(int64_t count, float* logits) override {
    const auto from = static_cast<size_t>(cache_->length());
    if (from + static_cast<size_t>(count) > ids_.size()) throw_error<OptionError>("logits asked past the end of the window");
    model_->forward(*cache_, std::span(ids_).subspan(from, static_cast<size_t>(count)), logits, count);
  }

 private:
  std::unique_ptr<RuntimeModel> model_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> ids_;
};

}  // namespace

std::unique_ptr<LogitModel> torch_scorer(Decoder decoder) { return std::make_unique<TorchScorer>(std::move(decoder)); }

std::unique_ptr<LogitModel> runtime_scorer(std::unique_ptr<RuntimeModel> model) {
  return std::make_unique<RuntimeScorer>(std::move(model));
}

}  // namespace lighten
