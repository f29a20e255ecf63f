// A float model with fewer tokens.
#pragma once
#include <memory>
#include <vector>

#include "lighten/formats/trim_vocabulary.h"
#include "lighten/formats/weights.h"

namespace lighten {

/// The same model with the trimmed tokenizer: rows `vocabulary.kept` of embedding and head, in that order; vocab_size, BOS and
/// end tokens numbered anew. Everything else comes from `source`, which is read lazily as before.
std::unique_ptr<WeightSource> trimmed_weights(std::unique_ptr<WeightSource> source, TrimmedVocabulary vocabulary);

/// Whether a tensor has a row for every token: the embedding and a head of its own.
bool has_row_per_token(const std::string& tensor);

}  // namespace lighten
