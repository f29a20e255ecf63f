// The words of a light model's config.json: shared by its writer and its reader.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/options.h"
#include "lighten/kernels/linear.h"

namespace lighten::runtime {

/// The spec of a wide matrix [rows, columns] that stays float in 16 bits: binary16, or bfloat16 where a value is beyond its
/// range.
LinearSpec half_spec(const std::vector<float>& values, const std::vector<int64_t>& shape);

/// {"type": "scalar", "bits": 3, "zero": "integer", "rows": ..., "columns": ..., "group_size": ...}; type "f16", "bf16" or
/// "f32" without codes. Several planes of bits: "planes" too.
Json spec_to_json(const LinearSpec& spec);
/// Throws FormatError that begins with `where` (file and tensor) on missing fields, unknown words and numbers that no kernel
/// runs.
LinearSpec spec_from_json(const Json& json, const std::string& where);

}  // namespace lighten::runtime
