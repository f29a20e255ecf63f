// --trim-vocab: from texts to a model that has a row only for the tokens which they need.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "lighten/compress/pipeline.h"
#include "lighten/formats/weights.h"

namespace lighten::compress {

/// What was taken out, for people, config.json and `resume`.
struct TrimRecord {
  int64_t before = 0, after = 0;  ///< rows of the embedding
  int64_t corpus_tokens = 0;      ///< of the whole corpus
  int64_t min_count = 1, fill = 0;
  std::vector<std::string> files, sha256;  ///< names and contents of the corpus

  Json json() const;
};

/// `source` with the tokens that request.trim_corpus needs. Throws OptionError, FormatError (a text is empty or
/// binary, a tokenizer cannot be trimmed).
std::unique_ptr<WeightSource> trim_to_corpus(std::unique_ptr<WeightSource> source, const QuantizeRequest& request,
                                             TrimRecord& record);

}  // namespace lighten::compress
