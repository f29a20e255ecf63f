// Frozen sentence features of texts, computed once: every text's vector is kept on disk under the hash of what it came from.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

/// A matrix of float32, row by row.
struct Features {
  int64_t rows = 0, columns = 0;
  std::vector<float> values;
  std::span<const float> row(int64_t i) const { return {values.data() + i * columns, static_cast<size_t>(columns)}; }
};

struct FeatureOptions {
  int64_t max_tokens = 128;  ///< longer texts are cut; MiniLM was trained with 128
  bool cache = true;         ///< read and keep vectors below the cache folder
};

/// Unit vectors of the texts by all-MiniLM-L6-v2 [texts, 384] (mean pooling, as sentence-transformers), in order. Equal texts
/// are computed once; what an earlier call (even an interrupted one) computed is read from the cache. `name` is shown with the
/// progress. Throws FileError if the model is neither there nor can be fetched, Interrupted after Ctrl-C.
Features minilm_features(const std::vector<std::string>& texts, const std::string& name, const FeatureOptions& options = {});

/// The same with any BERT folder (config.json, safetensors, tokenizer.json).
Features text_features(const fs::path& model, const std::vector<std::string>& texts, const std::string& name,
                       const FeatureOptions& options = {});

}  // namespace lighten
