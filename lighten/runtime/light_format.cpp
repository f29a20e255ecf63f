#include "lighten/runtime/light_format.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "lighten/base/error.h"

namespace lighten::runtime {
namespace {

constexpr float kLargestHalf = 65504;
constexpr const char* kCodeNames[] = {"scalar", "levels", "trits"};  // as PackedCodes
constexpr const char* kZeroNames[] = {"symmetric", "integer", "minimum"};

const Json& field(const Json& json, const char* name, const std::string& where) {
  const auto found = json.find(name);
  if (found == json.end())
    throw_error<FormatError>("{}: the field \"{}\" is missing; write the light model again", where, name);
  return *found;
}

int64_t number(const Json& json, const char* name, const std::string& where) {
  const Json& value = field(json, name, where);
  if (!value.is_number_integer()) throw_error<FormatError>("{}: the field \"{}\" must be a whole number", where, name);
  return value.get<int64_t>();
}

std::string word(const Json& json, const char* name, const std::string& where) {
  const Json& value = field(json, name, where);
  if (!value.is_string()) throw_error<FormatError>("{}: the field \"{}\" must be a text", where, name);
  return value.get<std::string>();
}

}  // namespace

LinearSpec half_spec(const std::vector<float>& values, const std::vector<int64_t>& shape) {
  const bool wide = std::any_of(values.begin(), values.end(), [](float v) { return std::abs(v) > kLargestHalf; });
  return {.bits = 16, .zero = PackedZero::symmetric, .bfloat = wide, .rows = shape[0], .columns = shape[1], .group_size = 0};
}

Json spec_to_json(const LinearSpec& spec) {
  const bool codes = spec.bits <= 8;
  Json json = {{"type", codes             ? kCodeNames[static_cast<size_t>(spec.codes)]
                        : spec.bits == 32 ? "f32"
                        : spec.bfloat     ? "bf16"
                                          : "f16"},
               {"bits", spec.bits},
               {"zero", codes ? Json(kZeroNames[static_cast<size_t>(spec.zero)]) : Json(nullptr)},
               {"rows", spec.rows},
               {"columns", spec.columns},
               {"group_size", spec.group_size}};
  if (spec.planes > 1) json["planes"] = spec.planes;
  return json;
}

LinearSpec spec_from_json(const Json& json, const std::string& where) {
  if (!json.is_object()) throw_error<FormatError>("{}: the tensor's description must be an object", where);
  const std::string type = word(json, "type", where);
  const int64_t bits = number(json, "bits", where);
  LinearSpec spec{.bits = static_cast<int>(bits),
                  .zero = PackedZero::symmetric,
                  .bfloat = type == "bf16",
                  .rows = number(json, "rows", where),
                  .columns = number(json, "columns", where),
                  .group_size = number(json, "group_size", where)};
  const auto* const named = std::ranges::find(kCodeNames, type);
  const bool codes = named != std::end(kCodeNames);
  if (codes) spec.codes = static_cast<PackedCodes>(named - std::begin(kCodeNames));
  const bool fits = codes ? bits <= 8 : (type == "f32" && bits == 32) || ((type == "f16" || type == "bf16") && bits == 16);
  if (!fits)
    throw_error<FormatError>("{}: type \"{}\" with {} bits is not known to this Lighten ({})", where, type, bits,
                             LIGHTEN_VERSION);
  if (codes) {
    const std::string zero = word(json, "zero", where);
    size_t kind = 0;
    while (kind < std::size(kZeroNames) && zero != kZeroNames[kind]) ++kind;
    if (kind == std::size(kZeroNames))
      throw_error<FormatError>("{}: zero \"{}\" must be symmetric, integer or minimum", where, zero);
    spec.zero = static_cast<PackedZero>(kind);
  }
  if (json.contains("planes")) {
    const int64_t planes = number(json, "planes", where);
    if (planes < 1 || planes > kMostPlanes)
      throw_error<FormatError>("{}: {} planes; 1 to {} are possible", where, planes, kMostPlanes);
    spec.planes = static_cast<int>(planes);
  }
  try {
    check(spec);
  } catch (const ModelError& error) {
    throw_error<FormatError>("{}: {}", where, error.what());
  }
  return spec;
}

std::string band_name(const std::string& tensor, size_t band) { return tensor + ".band" + std::to_string(band); }
std::string places_name(const std::string& tensor) { return tensor + ".places"; }

bool may_be_banded(const std::string& tensor) { return tensor == "model.embed_tokens.weight" || tensor == "lm_head.weight"; }

bool is_permutation(std::span<const int32_t> places) {
  std::vector<bool> seen(places.size());
  for (const int32_t place : places) {
    if (place < 0 || static_cast<size_t>(place) >= places.size() || seen[static_cast<size_t>(place)]) return false;
    seen[static_cast<size_t>(place)] = true;
  }
  return true;
}

}  // namespace lighten::runtime
