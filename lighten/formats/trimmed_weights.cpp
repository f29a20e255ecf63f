#include "lighten/formats/trimmed_weights.h"

#include <algorithm>

namespace lighten {
namespace {

ModelConfig renumbered(ModelConfig config, const TrimmedVocabulary& vocabulary) {
  config.vocab_size = static_cast<int64_t>(vocabulary.kept.size());
  config.bos_token = vocabulary.new_id(config.bos_token);
  for (int64_t& end : config.end_tokens) end = vocabulary.new_id(end);
  std::erase(config.end_tokens, -1);
  return config;
}

class TrimmedWeights final : public WeightSource {
 public:
  TrimmedWeights(std::unique_ptr<WeightSource> source, TrimmedVocabulary vocabulary)
      : source_(std::move(source)),
        vocabulary_(std::move(vocabulary)),
        config_(renumbered(source_->config(), vocabulary_)),
        tensors_(source_->tensors()) {
    for (StoredTensor& tensor : tensors_) {
      if (!has_row_per_token(tensor.name) || tensor.shape.empty() || tensor.shape[0] == 0) continue;
      tensor.bytes = tensor.bytes / static_cast<uint64_t>(tensor.shape[0]) * vocabulary_.kept.size();
      tensor.shape[0] = config_.vocab_size;
    }
  }

  const fs::path& path() const override { return source_->path(); }
  const ModelConfig& config() const override { return config_; }
  const std::vector<StoredTensor>& tensors() const override { return tensors_; }

  std::vector<float> read(const std::string& name) const override {
    std::vector<float> values = source_->read(name);
    if (!has_row_per_token(name)) return values;
    const auto columns = static_cast<size_t>(config_.hidden_size);
    for (size_t row = 0; row < vocabulary_.kept.size(); ++row) {  // ascending: no row is overwritten that is still needed
      const auto from = static_cast<size_t>(vocabulary_.kept[row]);
      if (from != row) std::copy_n(values.data() + from * columns, columns, values.data() + row * columns);
    }
    values.resize(vocabulary_.kept.size() * columns);
    values.shrink_to_fit();
    return values;
  }

  std::optional<QuantTensor> read_quantized(const std::string& name) const override {
    if (has_row_per_token(name)) return std::nullopt;
    return source_->read_quantized(name);
  }

  std::shared_ptr<const Tokenizer> tokenizer() const override { return vocabulary_.tokenizer; }
  std::string chat_template() const override { return source_->chat_template(); }
  uint64_t size_on_disk() const override { return source_->size_on_disk(); }
  std::string container() const override { return source_->container(); }

 private:
  std::unique_ptr<WeightSource> source_;
  TrimmedVocabulary vocabulary_;
  ModelConfig config_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace

bool has_row_per_token(const std::string& tensor) {
  return tensor == "model.embed_tokens.weight" || tensor == "lm_head.weight";
}

std::unique_ptr<WeightSource> trimmed_weights(std::unique_ptr<WeightSource> source, TrimmedVocabulary vocabulary) {
  return std::make_unique<TrimmedWeights>(std::move(source), std::move(vocabulary));
}

}  // namespace lighten
