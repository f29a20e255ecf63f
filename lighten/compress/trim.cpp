#include "lighten/compress/trim.h"

#include "lighten/base/error.h"
#include "lighten/data/sha256.h"
#include "lighten/formats/text_rows.h"
#include "lighten/formats/trimmed_weights.h"

namespace lighten::compress {
namespace {

/// How often the corpus holds each token; the facts about the corpus go to `record`.
std::vector<int64_t> count_tokens(const std::vector<fs::path>& corpus, const Tokenizer& tokenizer, TrimRecord& record) {
  std::vector<int64_t> counts(static_cast<size_t>(tokenizer.size()));
  for (const fs::path& file : corpus) {
    record.files.push_back(file.filename().string());
    record.sha256.push_back(sha256_of_file(file));
    const std::string text = read_prose(file, "--trim-vocab text");
    const std::vector<int32_t> ids = tokenizer.encode(text, /*special=*/false);
    record.corpus_tokens += static_cast<int64_t>(ids.size());
    for (const int32_t id : ids) ++counts[static_cast<size_t>(id)];
  }
  return counts;
}

}  // namespace

Json TrimRecord::json() const {
  Json corpus = Json::array();
  for (size_t i = 0; i < files.size(); ++i) corpus.push_back({{"file", files[i]}, {"sha256", sha256[i]}});
  return {{"tokens", after}, {"tokens_before", before}, {"min_count", min_count},
          {"fill", fill},    {"corpus", corpus},        {"corpus_tokens", corpus_tokens}};
}

std::unique_ptr<WeightSource> trim_to_corpus(std::unique_ptr<WeightSource> source, const QuantizeRequest& request,
                                             TrimRecord& record) {
  if (request.trim_min_count < 1) throw_error<OptionError>("--trim-min-count {}: must be at least 1", request.trim_min_count);
  if (request.trim_tokens < 0) throw_error<OptionError>("--trim-tokens {}: must not be negative", request.trim_tokens);
  const ModelConfig& config = source->config();
  const std::shared_ptr<const Tokenizer> tokenizer = source->tokenizer();
  record.before = config.vocab_size;
  record.min_count = request.trim_min_count;
  record.fill = request.trim_tokens;
  const std::vector<int64_t> counts = count_tokens(request.trim_corpus, *tokenizer, record);

  TrimVocabularyOptions options{.min_count = request.trim_min_count,
                                .tokens = request.trim_tokens,
                                .rows = config.vocab_size,
                                .required = config.end_tokens,
                                .chat_template = source->chat_template()};
  options.required.push_back(config.bos_token);
  TrimmedVocabulary vocabulary = trim_vocabulary(*tokenizer, counts, options, request.model.string());
  record.after = static_cast<int64_t>(vocabulary.kept.size());
  return trimmed_weights(std::move(source), std::move(vocabulary));
}

}  // namespace lighten::compress
