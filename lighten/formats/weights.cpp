#include "lighten/formats/weights.h"

#include <cstring>
#include <fstream>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/weight_sources.h"

namespace lighten {
namespace formats {

void check_shape(const std::vector<int64_t>& found, const std::vector<int64_t>& expected, const std::string& where) {
  const auto text = [](const std::vector<int64_t>& shape) {
    std::string result;
    for (const int64_t size : shape) result += (result.empty() ? "" : ", ") + std::to_string(size);
    return "[" + result + "]";
  };
  if (found != expected)
    throw_error<FormatError>("{}: has the shape {}, but the configuration needs {}", where, text(found), text(expected));
}

int64_t interleaved_row(int64_t row, int64_t head_dim) {
  const int64_t head = row / head_dim, inside = row % head_dim, half = head_dim / 2;
  return head * head_dim + inside % half * 2 + inside / half;
}

}  // namespace formats

namespace {

bool is_gguf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[4] = {};
  return file.read(magic, 4) && std::memcmp(magic, "GGUF", 4) == 0;
}

}  // namespace

const StoredTensor* WeightSource::find(const std::string& name) const {
  for (const StoredTensor& tensor : tensors())
    if (tensor.name == name) return &tensor;
  return nullptr;
}

ModelKind model_kind(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) throw_error<FileError>("{}: there is no such file or folder", path.string());
  if (fs::is_regular_file(status)) {
    if (is_gguf(path)) return ModelKind::gguf;
    throw_error<FileError>("{}: this is no GGUF file; a model is a folder with config.json, or a .gguf file", path.string());
  }
  const fs::path config = path / "config.json";
  if (!fs::is_regular_file(config, error))
    throw_error<FileError>("{}: no config.json in it; a model is a folder with config.json and *.safetensors, or a .gguf file",
                           path.string());
  const Json json = formats::parse_json(read_file(config), config.string());
  if (json.is_object() && json.contains("lighten") && !json["lighten"].is_object())
    throw_error<FormatError>("{}: the entry \"lighten\" must be an object; write the light model again, or remove the entry",
                             config.string());
  return formats::Fields(json, config.string()).has("lighten") ? ModelKind::light : ModelKind::hugging_face;
}

std::unique_ptr<WeightSource> open_weights(const fs::path& path) {
  switch (model_kind(path)) {
    case ModelKind::gguf:
      return formats::open_gguf(path);
    case ModelKind::hugging_face:
      return formats::open_hugging_face(path);
    case ModelKind::light:
      break;
  }
  throw_error<FormatError>("{}: this is a light model, which is quantized already; give the float model it was made from",
                           path.string());
}

}  // namespace lighten
