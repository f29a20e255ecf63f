#include "lighten/runtime/light_model.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <mutex>
#include <set>
#include <span>

#include "lighten/base/error.h"
#include "lighten/formats/chat_template.h"
#include "lighten/formats/safetensors.h"
#include "lighten/runtime/light_format.h"

namespace lighten {
namespace {

Json parse_json_file(const fs::path& path) {
  const std::string text = read_file(path);
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object())
    throw_error<FormatError>("{}: this is not a JSON object; write the light model again", path.string());
  return json;
}

/// Versions first .. supported are read.
void check_version(const Json& light, const char* name, int first, int supported, const std::string& file) {
  const auto found = light.find(name);
  if (found == light.end() || !found->is_number_integer())
    throw_error<FormatError>("{}: the field \"lighten.{}\" is missing or not a whole number; write the light model again", file,
                             name);
  const int64_t version = found->get<int64_t>();
  if (version >= first && version <= supported) return;
  const auto writer = light.find("written_by");
  throw_error<FormatError>(
      "{}: lighten.{} is {}, written by {}, but this is lighten {}, which reads {}; quantize the model again{}", file, name,
      version, writer != light.end() && writer->is_string() ? writer->get<std::string>() : "an unknown version",
      LIGHTEN_VERSION, supported, version > supported ? " or use the newer Lighten" : "");
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

/// Whether one of the values has all the bits of `exponent` set: infinite or not a number. Branch-free, so that it runs at the
/// memory's speed.
template <typename Bits>
bool any_not_finite(std::span<const Bits> values, Bits exponent) {
  constexpr size_t kStep = 16384;  // an early end does not matter before this
  for (size_t begin = 0; begin < values.size(); begin += kStep) {
    Bits found = 0;
    for (const Bits value : values.subspan(begin, std::min(kStep, values.size() - begin)))
      found |= static_cast<Bits>((value & exponent) == exponent);
    if (found != 0) return true;
  }
  return false;
}

/// A float matrix in kernel layout; its padding is zero.
bool holds_not_finite(const PackedWeight& weight) {
  const size_t bytes = packed_bytes(weight.spec);
  if (weight.spec.bits == 32)
    return any_not_finite(std::span(reinterpret_cast<const uint32_t*>(weight.data), bytes / 4), uint32_t{0x7f800000});
  return any_not_finite(std::span(reinterpret_cast<const uint16_t*>(weight.data), bytes / 2),
                        static_cast<uint16_t>(weight.spec.bfloat ? 0x7f80 : 0x7c00));
}

bool scales_not_finite(const PackedWeight& weight) {
  const int64_t groups = weight.spec.group_size == 0 ? 1 : weight.spec.columns / weight.spec.group_size;
  std::vector<Half> scales(static_cast<size_t>(weight.spec.planes * weight.spec.rows * groups)), minimums;
  if (weight.spec.zero == PackedZero::minimum) minimums.resize(scales.size());
  unpack_linear(weight.spec, weight.data, nullptr, scales.data(), nullptr, minimums.empty() ? nullptr : minimums.data());
  return any_not_finite(std::span<const Half>(scales), Half{0x7c00}) ||
         any_not_finite(std::span<const Half>(minimums), Half{0x7c00});
}

/// One value or scale that is not finite silently ruins every answer.
void check_values(const PackedWeight& weight, const std::string& where) {
  const bool codes = weight.spec.bits <= 8;
  if (codes ? scales_not_finite(weight) : holds_not_finite(weight))
    throw_error<FormatError>("{}: a {} is not finite: the file is damaged; write it again", where, codes ? "scale" : "value");
}

}  // namespace

struct LightModel::State {
  fs::path folder;
  ModelConfig config;
  Json light, method;
  std::unique_ptr<SafetensorsFile> weights;
  std::map<std::string, PackedWeight> packed;
  std::map<std::string, RowBands> banded;
  std::mutex tokenizer_mutex;
  std::shared_ptr<const Tokenizer> tokenizer;

  std::string where(const std::string& name) const { return weights->file().path().string() + ": tensor " + name; }
  void open_config();
  void open_tensors();
  PackedWeight open_packed(const std::string& name, const LinearSpec& spec, const TensorView& view) const;
  RowBands open_bands(const TensorShape& expected, const Json& descriptions, std::set<std::string>& known) const;
  std::string described(const std::string& name) const {
    return (folder / "config.json").string() + ": lighten.tensors." + name;
  }
};

void LightModel::State::open_config() {
  const fs::path path = folder / "config.json";
  const Json json = parse_json_file(path);
  const auto found = json.find("lighten");
  if (found == json.end() || !found->is_object())
    throw_error<FormatError>("{}: no \"lighten\" entry: this is not a light model; make one with `lighten quantize`",
                             path.string());
  light = *found;
  check_version(light, "format_version", 1, kLightFormatVersion, path.string());
  check_version(light, "layout_version", kLayoutVersion, kLayoutVersion, path.string());
  const auto norms = light.find("norms");
  if (norms == light.end() || *norms != "multiplier")
    throw_error<FormatError>("{}: the field \"lighten.norms\" must be \"multiplier\"; write the light model again",
                             path.string());
  const auto tensors = light.find("tensors");
  if (tensors == light.end() || !tensors->is_object())
    throw_error<FormatError>("{}: the field \"lighten.tensors\" is missing; write the light model again", path.string());
  method = light.value("method", Json::object());
  config = parse_hf_config(json, path.string());
}

PackedWeight LightModel::State::open_packed(const std::string& name, const LinearSpec& spec, const TensorView& view) const {
  const size_t size = packed_bytes(spec);
  if (view.dtype != DType::u8 || view.bytes.size() != size)
    throw_error<FormatError>(
        "{}: {} bytes of {}, but its description in config.json needs {} bytes of U8; write the light model again", where(name),
        view.bytes.size(), dtype_name(view.dtype), size);
  if (reinterpret_cast<uintptr_t>(view.bytes.data()) % 64 != 0)
    throw_error<FormatError>("{}: it does not start at a multiple of 64 bytes; write the light model again", where(name));
  const PackedWeight weight{spec, view.bytes.data()};
  check_values(weight, where(name));
  return weight;
}

RowBands LightModel::State::open_bands(const TensorShape& expected, const Json& descriptions,
                                       std::set<std::string>& known) const {
  RowBands rows;
  int64_t total = 0;
  for (; rows.bands.size() < kMostBands;) {
    const std::string name = runtime::band_name(expected.name, rows.bands.size());
    const auto found = weights->tensors().find(name);
    if (found == weights->tensors().end()) break;
    known.insert(name);
    const auto description = descriptions.find(name);
    if (description == descriptions.end())
      throw_error<FormatError>("{}: is missing; write the light model again", described(name));
    const LinearSpec spec = runtime::spec_from_json(*description, described(name));
    if (spec.columns != expected.shape[1] || spec.rows > expected.shape[0] - total)
      throw_error<FormatError>("{}: {} x {} is no part of the shape {} that the model needs; write the light model again",
                               described(name), spec.rows, spec.columns, shape_text(expected.shape));
    total += spec.rows;
    rows.bands.push_back(open_packed(name, spec, found->second));
  }
  if (rows.bands.empty())
    throw_error<FormatError>("{} is missing; the file is not complete: write the light model again", where(expected.name));
  if (total != expected.shape[0])
    throw_error<FormatError>("{}: its bands have {} rows, the model needs {}; write the light model again",
                             where(expected.name), total, expected.shape[0]);
  const std::string name = runtime::places_name(expected.name);
  known.insert(name);
  const auto found = weights->tensors().find(name);
  if (found == weights->tensors().end()) throw_error<FormatError>("{} is missing; write the light model again", where(name));
  if (found->second.dtype != DType::i32 || found->second.shape != std::vector<int64_t>{total})
    throw_error<FormatError>("{}: I32 of [{}] is needed; write the light model again", where(name), total);
  rows.places.resize(static_cast<size_t>(total));
  std::memcpy(rows.places.data(), found->second.bytes.data(), found->second.bytes.size());
  if (!runtime::is_permutation(rows.places))
    throw_error<FormatError>("{}: it does not name each of the {} rows of the bands once; write the light model again",
                             where(name), total);
  return rows;
}

void LightModel::State::open_tensors() {
  weights = std::make_unique<SafetensorsFile>(folder / "model.safetensors");
  const Json& descriptions = light.at("tensors");
  std::set<std::string> known;
  for (const TensorShape& expected : expected_tensors(config)) {
    const std::string& name = expected.name;
    known.insert(name);
    const auto found = weights->tensors().find(name);
    if (found == weights->tensors().end() && runtime::may_be_banded(name)) {
      banded.emplace(name, open_bands(expected, descriptions, known));
      continue;
    }
    if (found == weights->tensors().end())
      throw_error<FormatError>("{} is missing; the file is not complete: write the light model again", where(name));
    const TensorView& view = found->second;
    const auto description = descriptions.find(name);
    if (description != descriptions.end()) {
      const LinearSpec spec = runtime::spec_from_json(*description, described(name));
      if (expected.shape != std::vector<int64_t>{spec.rows, spec.columns})
        throw_error<FormatError>("{}: {} x {} is not the shape {} that the model needs; write the light model again",
                                 described(name), spec.rows, spec.columns, shape_text(expected.shape));
      packed.emplace(name, open_packed(name, spec, view));
    } else if (expected.shape.size() == 2) {
      throw_error<FormatError>("{}: lighten.tensors has no entry for {}; write the light model again",
                               (folder / "config.json").string(), name);
    } else if (view.shape != expected.shape || (view.dtype != DType::f32 && view.dtype != DType::f16)) {
      throw_error<FormatError>("{}: {} {}, but {} F32 (or F16) is needed; write the light model again", where(name),
                               shape_text(view.shape), dtype_name(view.dtype), shape_text(expected.shape));
    } else {
      to_float(view, where(name));  // refuses NaN and infinity
    }
  }
  for (const auto& [name, view] : weights->tensors())
    if (!known.contains(name))
      throw_error<FormatError>("{} does not belong to this model; write the light model again", where(name));
  for (const auto& [name, description] : descriptions.items())
    if (!known.contains(name))
      throw_error<FormatError>(
          "{}: lighten.tensors describes {}, which does not belong to this model; write the light model again",
          (folder / "config.json").string(), name);
}

LightModel::LightModel(const fs::path& folder) : state_(std::make_unique<State>()) {
  state_->folder = folder;
  state_->open_config();
  state_->open_tensors();
}
LightModel::~LightModel() = default;

const fs::path& LightModel::path() const { return state_->folder; }
const ModelConfig& LightModel::config() const { return state_->config; }
const Json& LightModel::method() const { return state_->method; }
const std::map<std::string, PackedWeight>& LightModel::packed() const { return state_->packed; }
const std::map<std::string, RowBands>& LightModel::banded() const { return state_->banded; }
bool LightModel::has(const std::string& name) const {
  return state_->weights->tensors().contains(name) || state_->banded.contains(name);
}

namespace {

void unpack_rows(const PackedWeight& weight, const std::function<float*(int64_t)>& place_of) {
  for (int64_t row = 0; row < weight.spec.rows; ++row) unpack_row(weight.spec, weight.data, row, place_of(row));
}

/// places turned round: which row of the matrix stands at each place.
std::vector<size_t> rows_at(const std::vector<int32_t>& places) {
  std::vector<size_t> rows(places.size());
  for (size_t row = 0; row < places.size(); ++row) rows[static_cast<size_t>(places[row])] = row;
  return rows;
}

}  // namespace

void check(const BandedTensor& tensor, const std::string& name) {
  if (tensor.bands.empty() || tensor.bands.size() > kMostBands)
    throw_error<ModelError>("tensor {} has {} bands of rows; 1 to {} can be written", name, tensor.bands.size(), kMostBands);
  int64_t rows = 0;
  for (const QuantTensor& band : tensor.bands) {
    rows += band.rows;
    if (band.rows < 1 || band.columns != tensor.bands[0].columns)
      throw_error<ModelError>("tensor {}: a band of {} x {} does not fit the others", name, band.rows, band.columns);
  }
  if (rows != static_cast<int64_t>(tensor.places.size()) || !runtime::is_permutation(tensor.places))
    throw_error<ModelError>("tensor {}: its {} places do not name every row of its bands once", name, tensor.places.size());
}

std::vector<float> dequantize(const BandedTensor& tensor) {
  const std::vector<size_t> rows = rows_at(tensor.places);
  const auto columns = static_cast<std::ptrdiff_t>(tensor.bands.at(0).columns);
  std::vector<float> values(rows.size() * static_cast<size_t>(columns));
  size_t place = 0;
  for (const QuantTensor& band : tensor.bands) {
    const std::vector<float> part = dequantize(band);
    for (auto row = part.begin(); row != part.end(); row += columns)
      std::copy_n(row, columns, values.begin() + static_cast<std::ptrdiff_t>(rows[place++]) * columns);
  }
  return values;
}

std::vector<float> LightModel::read(const std::string& name) const {
  if (const auto found = state_->banded.find(name); found != state_->banded.end()) {
    const std::vector<size_t> rows = rows_at(found->second.places);
    const auto columns = static_cast<size_t>(found->second.bands[0].spec.columns);
    std::vector<float> values(rows.size() * columns);
    size_t first = 0;
    for (const PackedWeight& band : found->second.bands) {
      unpack_rows(band, [&](int64_t row) { return values.data() + rows[first + static_cast<size_t>(row)] * columns; });
      first += static_cast<size_t>(band.spec.rows);
    }
    return values;
  }
  const auto found = state_->packed.find(name);
  if (found == state_->packed.end()) return to_float(state_->weights->at(name), state_->where(name));
  const LinearSpec& spec = found->second.spec;
  std::vector<float> values(static_cast<size_t>(spec.rows * spec.columns));
  unpack_rows(found->second, [&](int64_t row) { return values.data() + row * spec.columns; });
  return values;
}

std::shared_ptr<const Tokenizer> LightModel::tokenizer() const {
  const std::lock_guard lock(state_->tokenizer_mutex);
  if (!state_->tokenizer) state_->tokenizer = Tokenizer::from_file(state_->folder / "tokenizer.json");
  return state_->tokenizer;
}

std::string LightModel::chat_template() const { return read_chat_template(state_->folder); }

uint64_t LightModel::size_on_disk() const { return lighten::size_on_disk(state_->folder); }

uint64_t LightModel::tensor_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [name, view] : state_->weights->tensors()) bytes += view.bytes.size();
  return bytes;
}

}  // namespace lighten
