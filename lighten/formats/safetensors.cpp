#include "lighten/formats/safetensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lighten/base/error.h"
#include "lighten/base/half.h"
#include "lighten/formats/json_fields.h"

namespace lighten {
namespace {

using formats::printable;

constexpr uint64_t kLargestHeader = 100'000'000;  // the limit that the reference library sets
constexpr size_t kMostDimensions = 32;

struct Layout {
  std::string name;
  uint64_t begin = 0, end = 0;
};

uint64_t unsigned_number(const nlohmann::json& value, const std::string& where, const char* field) {
  if (!value.is_number_unsigned())
    throw_error<FormatError>("{}: {} must be a whole number that is not negative, found {}", where, field,
                             printable(value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)));
  return value.get<uint64_t>();
}

std::vector<int64_t> parse_shape(const nlohmann::json& shape, const std::string& where) {
  if (!shape.is_array() || shape.size() > kMostDimensions)
    throw_error<FormatError>("{}: shape must be a list of at most {} sizes", where, kMostDimensions);
  std::vector<int64_t> sizes;
  for (const auto& size : shape) {
    const uint64_t value = unsigned_number(size, where, "a size in shape");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      throw_error<FormatError>("{}: size {} in shape is too large", where, value);
    sizes.push_back(static_cast<int64_t>(value));
  }
  return sizes;
}

/// Bytes of a tensor, or FormatError if the product does not fit.
uint64_t byte_count(const std::vector<int64_t>& shape, DType dtype, const std::string& where) {
  uint64_t bytes = dtype_size(dtype);
  for (const int64_t size : shape)
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes))
      throw_error<FormatError>("{}: the sizes in shape multiply to more than any file can hold", where);
  return bytes;
}

const nlohmann::json& field(const nlohmann::json& entry, const char* name, const std::string& where) {
  const auto it = entry.find(name);
  if (it == entry.end()) throw_error<FormatError>("{}: field \"{}\" is missing", where, name);
  return *it;
}

TensorView parse_tensor(const nlohmann::json& entry, std::span<const std::byte> data, const std::string& where,
                        Layout& layout) {
  if (!entry.is_object()) throw_error<FormatError>("{}: the header's entry must be an object", where);
  const nlohmann::json& dtype = field(entry, "dtype", where);
  if (!dtype.is_string()) throw_error<FormatError>("{}: dtype must be a text", where);
  TensorView view;
  view.dtype = dtype_from_name(printable(dtype.get_ref<const std::string&>()), where);
  view.shape = parse_shape(field(entry, "shape", where), where);
  const nlohmann::json& offsets = field(entry, "data_offsets", where);
  if (!offsets.is_array() || offsets.size() != 2) throw_error<FormatError>("{}: data_offsets must hold two numbers", where);
  layout.begin = unsigned_number(offsets[0], where, "data_offsets");
  layout.end = unsigned_number(offsets[1], where, "data_offsets");
  if (layout.begin > layout.end || layout.end > data.size())
    throw_error<FormatError>("{}: data_offsets [{}, {}] lie outside the {} bytes of data; the file is truncated or damaged",
                             where, layout.begin, layout.end, data.size());
  const uint64_t bytes = byte_count(view.shape, view.dtype, where);
  if (bytes != layout.end - layout.begin)
    throw_error<FormatError>("{}: shape and dtype {} need {} bytes, but data_offsets give {}", where, dtype_name(view.dtype),
                             bytes, layout.end - layout.begin);
  view.bytes = data.subspan(layout.begin, bytes);
  return view;
}

/// Every byte of the data must belong to exactly one tensor.
void check_cover(std::vector<Layout> layouts, uint64_t data_size, const std::string& file) {
  std::sort(layouts.begin(), layouts.end(),
            [](const Layout& a, const Layout& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  uint64_t reached = 0;
  for (const Layout& layout : layouts) {
    const std::string name = printable(layout.name);
    if (layout.begin < reached) throw_error<FormatError>("{}: tensor {} overlaps the one before it", file, name);
    if (layout.begin > reached)
      throw_error<FormatError>("{}: {} unused bytes before tensor {}", file, layout.begin - reached, name);
    reached = layout.end;
  }
  if (reached != data_size)
    throw_error<FormatError>("{}: {} bytes after the last tensor belong to none; the file is damaged", file,
                             data_size - reached);
}

std::map<std::string, std::string> parse_metadata(const nlohmann::json& entry, const std::string& file) {
  if (!entry.is_object()) throw_error<FormatError>("{}: __metadata__ must be an object of texts", file);
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string()) throw_error<FormatError>("{}: __metadata__ field \"{}\" must be a text", file, printable(key));
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

/// The header's text; checks the length that stands before it.
std::string_view header_text(const MappedFile& file) {
  const std::string name = file.path().string();
  if (file.size() < 8) throw_error<FormatError>("{}: {} bytes are too few for a safetensors file", name, file.size());
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  if (length > kLargestHeader)
    throw_error<FormatError>(
        "{}: the header claims {} bytes (at most {} are allowed); this is no safetensors file, or it is damaged", name, length,
        kLargestHeader);
  if (length > file.size() - 8)
    throw_error<FormatError>("{}: the header claims {} bytes, but the file ends after {}; it is truncated, fetch it again",
                             name, length, file.size() - 8);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, length);
  if (text.empty() || text.front() != '{') throw_error<FormatError>("{}: the header does not begin with \"{{\"", name);
  return text;
}

float f8_e4m3_to_float(uint8_t bits) {
  const int exponent = (bits >> 3) & 15, mantissa = bits & 7;
  float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  if (exponent == 15 && mantissa == 7) value = std::numeric_limits<float>::quiet_NaN();  // this format has no infinity
  return bits & 0x80 ? -value : value;
}

float f8_e5m2_to_float(uint8_t bits) { return half_to_float(static_cast<Half>(bits << 8)); }

template <typename Stored, typename Convert>
void convert_all(const TensorView& tensor, std::vector<float>& out, Convert convert) {
  const std::byte* next = tensor.bytes.data();
  for (float& value : out) {
    Stored stored;
    std::memcpy(&stored, next, sizeof stored);
    next += sizeof stored;
    value = convert(stored);
  }
}

template <typename Stored>
void cast_all(const TensorView& tensor, std::vector<float>& out) {
  convert_all<Stored>(tensor, out, [](Stored value) { return static_cast<float>(value); });
}

void convert(const TensorView& tensor, std::vector<float>& out) {
  switch (tensor.dtype) {
    case DType::f64:
      return cast_all<double>(tensor, out);
    case DType::f32:
      return cast_all<float>(tensor, out);
    case DType::f16:
      return convert_all<Half>(tensor, out, half_to_float);
    case DType::bf16:
      return convert_all<BFloat16>(tensor, out, bfloat16_to_float);
    case DType::f8_e4m3:
      return convert_all<uint8_t>(tensor, out, f8_e4m3_to_float);
    case DType::f8_e5m2:
      return convert_all<uint8_t>(tensor, out, f8_e5m2_to_float);
    case DType::i64:
      return cast_all<int64_t>(tensor, out);
    case DType::i32:
      return cast_all<int32_t>(tensor, out);
    case DType::i16:
      return cast_all<int16_t>(tensor, out);
    case DType::i8:
      return cast_all<int8_t>(tensor, out);
    case DType::u64:
      return cast_all<uint64_t>(tensor, out);
    case DType::u32:
      return cast_all<uint32_t>(tensor, out);
    case DType::u16:
      return cast_all<uint16_t>(tensor, out);
    case DType::u8:
      return cast_all<uint8_t>(tensor, out);
    case DType::boolean:
      return convert_all<uint8_t>(tensor, out, [](uint8_t value) { return value != 0 ? 1.0f : 0.0f; });
  }
}

/// Shards by plain file name, in the order of first mention; checks that no name leaves the folder.
std::map<std::string, std::string> read_weight_map(const fs::path& index) {
  const Json json = formats::parse_json(read_file(index), index.string());
  const formats::Fields top(json, index.string());
  top.object("weight_map");
  std::map<std::string, std::string> map;
  for (const auto& [tensor, shard] : top.find("weight_map")->items()) {
    const std::string name = shard.is_string() ? shard.get<std::string>() : "";
    const bool plain = !name.empty() && name.front() != '.' && name.find_first_of("/\\:") == std::string::npos &&
                       name.find('\0') == std::string::npos && name.ends_with(".safetensors");
    if (!plain)
      throw_error<FormatError>(
          "{}: weight_map: tensor {} names the shard \"{}\"; only plain names of .safetensors files in the "
          "same folder are accepted",
          index.string(), printable(tensor), printable(name));
    map[tensor] = name;
  }
  if (map.empty()) throw_error<FormatError>("{}: weight_map is empty", index.string());
  return map;
}

std::string header_json(const std::vector<TensorToWrite>& tensors, const std::map<std::string, std::string>& metadata,
                        const std::string& file) {
  Json header = Json::object();
  auto& entries = header.get_ref<Json::object_t&>();
  std::map<std::string, bool> seen;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::string where = file + ": tensor " + printable(tensor.name);
    if (tensor.name == "__metadata__" || !seen.emplace(tensor.name, true).second)
      throw_error<FormatError>("{}: the name is taken", where);
    for (const int64_t size : tensor.shape)
      if (size < 0) throw_error<FormatError>("{}: size {} is negative", where, size);
    if (byte_count(tensor.shape, tensor.dtype, where) != tensor.bytes.size())
      throw_error<FormatError>("{}: shape and dtype {} do not fit {} bytes", where, dtype_name(tensor.dtype),
                               tensor.bytes.size());
    const uint64_t end = offset + tensor.bytes.size();
    entries.emplace_back(tensor.name, Json{{"dtype", dtype_name(tensor.dtype)},
                                           {"shape", tensor.shape},
                                           {"data_offsets", std::vector<uint64_t>{offset, end}}});
    offset = end;
  }
  return json_text(header);
}

}  // namespace

int64_t TensorView::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

SafetensorsFile::SafetensorsFile(const fs::path& path) : file_(path) {
  const std::string name = path.string();
  const std::string_view text = header_text(file_);
  const auto header = formats::parse_json<nlohmann::json>(text, name + ": header");
  const std::span<const std::byte> data = file_.bytes().subspan(8 + text.size());
  std::vector<Layout> layouts;
  for (const auto& [key, entry] : header.items()) {
    if (key == "__metadata__") {
      metadata_ = parse_metadata(entry, name);
      continue;
    }
    Layout& layout = layouts.emplace_back();
    layout.name = key;
    tensors_[key] = parse_tensor(entry, data, name + ": tensor " + printable(key), layout);
  }
  check_cover(std::move(layouts), data.size(), name);
}

const TensorView& SafetensorsFile::at(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) throw_error<FormatError>("{}: tensor {} is missing", file_.path().string(), name);
  return it->second;
}

SafetensorsModel::SafetensorsModel(const fs::path& folder) {
  const fs::path single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (fs::exists(single)) {
    shards_.emplace_back(single);
    for (const auto& [name, view] : shards_.front().tensors()) tensors_[name] = &view;
    return;
  }
  if (!fs::exists(index))
    throw_error<FileError>("{}: neither model.safetensors nor model.safetensors.index.json is there", folder.string());
  std::map<std::string, size_t> positions;
  const std::map<std::string, std::string> weight_map = read_weight_map(index);
  for (const auto& [tensor, shard] : weight_map) positions.emplace(shard, 0);
  shards_.reserve(positions.size());
  for (auto& [shard, position] : positions) {
    if (!fs::exists(folder / shard))
      throw_error<FileError>("{}: the shard {}, which {} names, is missing", folder.string(), printable(shard),
                             index.filename().string());
    position = shards_.size();
    shards_.emplace_back(folder / shard);
  }
  std::map<std::string, const fs::path*> homes;
  for (const SafetensorsFile& shard : shards_)
    for (const auto& [tensor, view] : shard.tensors())
      if (const auto [home, fresh] = homes.emplace(tensor, &shard.file().path()); !fresh)
        throw_error<FormatError>("{}: tensor {} is in {} too; fetch the shards again", shard.file().path().string(),
                                 printable(tensor), home->second->filename().string());
  for (const auto& [tensor, shard] : weight_map) tensors_[tensor] = &shards_[positions[shard]].at(tensor);
}

const TensorView* SafetensorsModel::find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : it->second;
}

std::vector<float> to_float(const TensorView& tensor, const std::string& where, bool finite) {
  std::vector<float> values(tensor.bytes.size() / dtype_size(tensor.dtype));
  convert(tensor, values);
  if (finite) check_finite(values, where);
  return values;
}

void check_finite(std::span<const float> values, const std::string& where) {
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      throw_error<FormatError>("{}: value {} is {}; the weights are damaged, fetch or train them again", where, i, values[i]);
}

void write_safetensors(const fs::path& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata, size_t alignment) {
  if (alignment == 0) alignment = 1;
  std::string header = header_json(tensors, metadata, path.string());
  header.append((alignment - (8 + header.size()) % alignment) % alignment, ' ');
  const uint64_t length = header.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(header);
  for (const TensorToWrite& tensor : tensors) file.write(tensor.bytes);
  file.commit();
}

}  // namespace lighten
