// Samples that people bring as rows: vectors of their own, or texts.
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

/// float32 [samples, width]: the rows of an .npy of numbers, or for any other file the MiniLM features (minilm_features(), 384
/// columns, cached) of the texts of formats/text_rows.h. `sample` is what a row stands for ("node"), for errors. Throws
/// FormatError that names the file if it holds no rows or NaN, and what reading throws.
torch::Tensor read_feature_rows(const fs::path& file, const std::string& sample);

/// The MiniLM features of texts, [texts, 384]; `name` is shown with the progress.
torch::Tensor text_rows(const std::vector<std::string>& texts, const std::string& name);

/// For --help: what such a file is.
std::string feature_rows_help(const std::string& samples);

}  // namespace lighten
