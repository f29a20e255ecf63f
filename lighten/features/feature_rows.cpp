#include "lighten/features/feature_rows.h"

#include <algorithm>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/features/text_features.h"
#include "lighten/formats/file_kind.h"
#include "lighten/formats/npy.h"
#include "lighten/formats/text_rows.h"

namespace lighten {

torch::Tensor text_rows(const std::vector<std::string>& texts, const std::string& name) {
  if (const auto empty = std::count(texts.begin(), texts.end(), ""); empty > 0)
    warn(fmt::format("{}: {} of {} texts are empty; all of those get the same features", name, empty, texts.size()));
  const Features features = minilm_features(texts, name);
  return torch::tensor(features.values).view({features.rows, features.columns});
}

torch::Tensor read_feature_rows(const fs::path& file, const std::string& sample) {
  if (small_ending(file) != ".npy") return text_rows(read_text_rows(file), file.filename().string());
  const NpyFile npy(file);
  if (npy.rows() == 0) throw_error<FormatError>("{}: holds no rows; a {} has one each", file.string(), sample);
  return torch::tensor(npy.to_float()).view({npy.rows(), npy.columns()});
}

std::string feature_rows_help(const std::string& samples) {
  return ".npy [" + samples +
         ", width], or texts, whose MiniLM features are taken (of 128 tokens at most): .txt one a line, .jsonl, .csv or .tsv "
         "with `text`";
}

}  // namespace lighten
