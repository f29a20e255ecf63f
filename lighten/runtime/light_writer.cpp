#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <system_error>

#include "lighten/base/error.h"
#include "lighten/formats/safetensors.h"
#include "lighten/runtime/aligned_bytes.h"
#include "lighten/runtime/light_format.h"
#include "lighten/runtime/light_model.h"

namespace lighten {
namespace {

constexpr const char* kSpecsKey = "lighten.tensors";

fs::path piece_path(const fs::path& folder, const std::string& piece) {
  if (piece.empty() || piece.front() == '.' || piece.find('/') != std::string::npos)
    throw_error<OptionError>("'{}' cannot name a piece of a light model", piece);
  return folder / "pieces" / (piece + ".safetensors");
}

std::map<std::string, std::vector<int64_t>> shapes(const ModelConfig& config) {
  std::map<std::string, std::vector<int64_t>> result;
  for (TensorShape& tensor : expected_tensors(config)) result.emplace(std::move(tensor.name), std::move(tensor.shape));
  return result;
}

const std::vector<int64_t>& shape_of(const std::map<std::string, std::vector<int64_t>>& shapes, const std::string& name) {
  const auto found = shapes.find(name);
  if (found == shapes.end()) throw_error<ModelError>("tensor {} does not belong to this model", name);
  return found->second;
}

void check_finite(const std::vector<float>& values, const std::string& name) {
  if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
    throw_error<ModelError>("tensor {} holds a value that is not finite; it cannot be written", name);
}

std::string first_special(const Tokenizer& tokenizer, int32_t id) { return id < 0 ? std::string() : tokenizer.token(id); }

Json tokenizer_config(const ModelConfig& config, const Tokenizer& tokenizer, const std::string& chat_template) {
  Json json = {{"tokenizer_class", "PreTrainedTokenizerFast"},
               {"model_max_length", config.context_length},
               {"clean_up_tokenization_spaces", false},
               {"add_bos_token", tokenizer.adds_bos()}};
  if (const std::string bos = first_special(tokenizer, tokenizer.bos()); !bos.empty()) json["bos_token"] = bos;
  if (const std::string eos = first_special(tokenizer, tokenizer.eos()); !eos.empty()) json["eos_token"] = eos;
  if (!chat_template.empty()) json["chat_template"] = chat_template;
  return json;
}

/// The pieces of a folder, opened, with the description of every packed tensor.
struct Pieces {
  std::vector<SafetensorsFile> files;
  std::map<std::string, const TensorView*> tensors;
  Json specs = Json::object();
};

Pieces open_pieces(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(folder / "pieces", missing))
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path());
  if (missing) throw_error<FileError>("cannot read {}: {}", (folder / "pieces").string(), missing.message());
  std::sort(paths.begin(), paths.end());
  Pieces pieces;
  for (const fs::path& path : paths) pieces.files.emplace_back(path);
  for (const SafetensorsFile& file : pieces.files) {
    const auto specs = file.metadata().find(kSpecsKey);
    if (specs == file.metadata().end())
      throw_error<FormatError>("{}: no description of its tensors; remove this piece and resume", file.file().path().string());
    pieces.specs.update(Json::parse(specs->second));
    for (const auto& [name, view] : file.tensors())
      if (!pieces.tensors.emplace(name, &view).second)
        throw_error<FormatError>("{}: tensor {} is in another piece too; remove the folder of pieces and start again",
                                 file.file().path().string(), name);
  }
  return pieces;
}

}  // namespace

LightWriter::LightWriter(fs::path folder, ModelConfig config) : folder_(std::move(folder)), config_(std::move(config)) {
  check(config_, folder_.string());
  std::error_code error;
  fs::create_directories(folder_ / "pieces", error);
  if (error) throw_error<FileError>("cannot create {}: {}", (folder_ / "pieces").string(), error.message());
}

bool LightWriter::has_piece(const std::string& piece) const {
  const fs::path path = piece_path(folder_, piece);
  if (!fs::exists(path)) return false;
  try {
    return SafetensorsFile(path).metadata().contains(kSpecsKey);
  } catch (const Error&) {
    return false;  // it will be made again
  }
}

void LightWriter::add_piece(const std::string& piece, const std::map<std::string, QuantTensor>& quantized,
                            const std::map<std::string, std::vector<float>>& floats,
                            const std::map<std::string, BandedTensor>& banded) {
  const auto expected = shapes(config_);
  Json specs = Json::object();
  std::vector<runtime::AlignedBytes> packed;
  std::vector<TensorToWrite> tensors;
  packed.reserve(quantized.size() + floats.size() + banded.size() * kMostBands);
  const auto place_packed = [&](const std::string& name, const LinearSpec& spec) {
    const auto size = packed_bytes(spec);
    packed.emplace_back(size);
    specs[name] = runtime::spec_to_json(spec);
    tensors.push_back({name, DType::u8, {static_cast<int64_t>(size)}, {packed.back().data(), size}});
    return packed.back().data();
  };
  const auto check_shape = [&](const std::string& name, int64_t rows, int64_t columns) {
    if (shape_of(expected, name) != std::vector<int64_t>{rows, columns})
      throw_error<ModelError>("tensor {} is {} x {}, which is not its shape in this model", name, rows, columns);
  };
  const auto add_packed = [&](const std::string& name, const LinearSpec& spec) {
    check_shape(name, spec.rows, spec.columns);
    return place_packed(name, spec);
  };
  for (const auto& [name, tensor] : banded) {
    check(tensor, name);
    if (!runtime::may_be_banded(name)) throw_error<ModelError>("tensor {} cannot be in bands; embedding and head can", name);
    check_shape(name, static_cast<int64_t>(tensor.places.size()), tensor.bands[0].columns);
    for (size_t i = 0; i < tensor.bands.size(); ++i) {
      check(tensor.bands[i], runtime::band_name(name, i));
      pack(tensor.bands[i], place_packed(runtime::band_name(name, i), linear_spec(tensor.bands[i])));
    }
    const auto places = std::as_bytes(std::span(tensor.places));
    tensors.push_back({runtime::places_name(name), DType::i32, {static_cast<int64_t>(tensor.places.size())}, places});
  }
  for (const auto& [name, tensor] : quantized) {
    check(tensor, name);
    pack(tensor, add_packed(name, linear_spec(tensor)));
  }
  for (const auto& [name, values] : floats) {
    const std::vector<int64_t>& shape = shape_of(expected, name);
    int64_t elements = 1;
    for (const int64_t n : shape) elements *= n;
    if (static_cast<int64_t>(values.size()) != elements)
      throw_error<ModelError>("tensor {} has {} values, but this model needs {}", name, values.size(), elements);
    check_finite(values, name);
    if (shape.size() == 2) {
      const LinearSpec spec = runtime::half_spec(values, shape);
      pack_float(spec, values.data(), add_packed(name, spec));
    } else {
      tensors.push_back({name, DType::f32, shape, std::as_bytes(std::span(values))});
    }
  }
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const auto& a, const auto& b) { return a.dtype == DType::u8 && b.dtype != DType::u8; });
  write_safetensors(piece_path(folder_, piece), tensors, {{kSpecsKey, json_text(specs)}});
}

void LightWriter::finish(const Json& method, const Tokenizer& tokenizer, const std::string& chat_template) {
  const Pieces pieces = open_pieces(folder_);
  Json specs = Json::object();
  std::vector<TensorToWrite> tensors;
  const auto take = [&](const std::string& name) {
    const auto found = pieces.tensors.find(name);
    if (found == pieces.tensors.end()) return false;
    if (const auto spec = pieces.specs.find(name); spec != pieces.specs.end()) specs[name] = *spec;
    tensors.push_back({name, found->second->dtype, found->second->shape, found->second->bytes});
    return true;
  };
  int version = 1;  // what older readers know, where it says all
  for (const TensorShape& expected : expected_tensors(config_)) {
    if (take(expected.name)) continue;
    size_t bands = 0;
    while (runtime::may_be_banded(expected.name) && take(runtime::band_name(expected.name, bands))) ++bands;
    if (bands == 0 || !take(runtime::places_name(expected.name)))
      throw_error<FormatError>("{}: tensor {} was never written; add its piece before finishing", folder_.string(),
                               expected.name);
    version = kLightFormatVersion;
  }
  // Packed tensors are multiples of 64 bytes: with them first, each one starts at a multiple of 64.
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const auto& a, const auto& b) { return a.dtype == DType::u8 && b.dtype != DType::u8; });
  write_safetensors(folder_ / "model.safetensors", tensors, {{"format", "lighten"}});

  Json config = to_hf_config(config_);
  config["lighten"] = {{"format_version", version},
                       {"layout_version", kLayoutVersion},
                       {"written_by", std::string("lighten ") + LIGHTEN_VERSION},
                       {"norms", "multiplier"},  // Gemma's 1 + w is already added
                       {"tensors", specs},
                       {"method", method}};
  write_file(folder_ / "tokenizer.json", json_text(tokenizer.to_json()) + "\n");
  write_file(folder_ / "tokenizer_config.json", json_text(tokenizer_config(config_, tokenizer, chat_template), 2) + "\n");
  write_file(folder_ / "config.json", json_text(config, 2) + "\n");
  fs::remove_all(folder_ / "pieces");
}

}  // namespace lighten
