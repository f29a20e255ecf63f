// The words of a light model's config.json: shared by its writer and its reader.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "lighten/base/options.h"
#include "lighten/kernels/linear.h"

namespace lighten::runtime {

/// The spec of a wide matrix [rows, columns] that stays float in 16 bits: binary16, or bfloat16 where a value is beyond its
/// range.
LinearSpec half_spec(const std::vector<float>& values, const std::vector<int64_t>& shape);

/// Names of the parts of a banded tensor.
std::string band_name(const std::string& tensor, size_t band);
std::string places_name(const std::string& tensor);
/// Whether a light model may hold this tensor in bands: the embedding and the head.
bool may_be_banded(const std::string& tensor);
/// Whether every number of 0 .. size - 1 is there once.
bool is_permutation(std::span<const int32_t> places);

/// {"type": "scalar", "bits": 3, "zero": "integer", "rows": ..., "columns": ..., "group_size": ...}; type "f16", "bf16" or
/// "f32" without codes. Several planes of bits: "planes" too.
Json spec_to_json(const LinearSpec& spec);
/// Throws FormatError that begins with `where` (file and tensor) on missing fields, unknown words and numbers that no kernel
/// runs.
LinearSpec spec_from_json(const Json& json, const std::string& where);

}  // namespace lighten::runtime
