#include <algorithm>
#include <charconv>
#include <cstring>
#include <unordered_set>

#include "lighten/base/error.h"
#include "lighten/formats/gguf.h"
#include "lighten/formats/json_fields.h"

namespace lighten {
namespace {

using formats::printable;

constexpr uint64_t kMostKeys = 1 << 16;
constexpr uint64_t kLongestName = 1 << 16;
constexpr uint32_t kMostDimensions = 4;
constexpr int kDeepestArray = 4;
constexpr uint64_t kSmallestTensorInfo = 8 + 4 + 8 + 4 + 8;  // an empty name, one dimension, type, offset
constexpr uint64_t kSmallestKeyValue = 8 + 4 + 1;

enum ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64, value_types };

/// Bytes that one value takes at least; 0: no such type.
uint64_t least_bytes(uint32_t type) {
  constexpr uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return type < value_types ? kBytes[type] : 0;
}

/// Walks the mapped bytes and never past their end.
class Cursor {
 public:
  explicit Cursor(const MappedFile& file) : data_(file.data()), size_(file.size()), file_(file.path().string()) {}

  const std::string& file() const { return file_; }
  uint64_t position() const { return position_; }
  uint64_t left() const { return size_ - position_; }

  const std::byte* take(uint64_t bytes, const std::string& what) {
    if (bytes > left())
      throw_error<FormatError>("{}: the file ends inside {} ({} bytes needed, {} left); it is truncated, fetch it again", file_,
                               what, bytes, left());
    const std::byte* start = data_ + position_;
    position_ += bytes;
    return start;
  }

  template <typename T>
  T number(const std::string& what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what), sizeof(T));
    return value;
  }

  std::string string(uint64_t longest, const std::string& what) {
    const uint64_t length = number<uint64_t>(what);
    if (length > longest || length > left())
      throw_error<FormatError>("{}: {} claims a text of {} bytes, which cannot be; the file is damaged", file_, what, length);
    const std::byte* start = take(length, what);
    return std::string(reinterpret_cast<const char*>(start), length);
  }

  /// A count of things that take at least `bytes` each.
  uint64_t count(uint64_t value, uint64_t bytes, const std::string& what) const {
    if (value > left() / bytes)
      throw_error<FormatError>("{}: {} claims {} entries, more than the file can hold; it is truncated or damaged", file_, what,
                               value);
    return value;
  }

 private:
  const std::byte* data_;
  uint64_t size_, position_ = 0;
  std::string file_;
};

/// The double whose shortest decimal is that of the float: 1e-5f -> 1e-05, not 9.99999974737875e-06.
double shortest(float value) {
  char text[64];
  const auto written = std::to_chars(text, text + sizeof text, value);
  double result = value;
  std::from_chars(text, written.ptr, result);
  return result;
}

Json read_value(Cursor& cursor, uint32_t type, const std::string& what, int depth);

Json read_array(Cursor& cursor, const std::string& what, int depth) {
  const uint32_t type = cursor.number<uint32_t>(what);
  const uint64_t length = cursor.number<uint64_t>(what);
  if (least_bytes(type) == 0) throw_error<FormatError>("{}: {} is an array of unknown type {}", cursor.file(), what, type);
  if (depth >= kDeepestArray) throw_error<FormatError>("{}: {} nests arrays too deeply", cursor.file(), what);
  cursor.count(length, least_bytes(type), what);
  Json values = Json::array();
  auto& items = values.get_ref<Json::array_t&>();
  items.reserve(length);
  for (uint64_t i = 0; i < length; ++i) items.push_back(read_value(cursor, type, what, depth + 1));
  return values;
}

Json read_value(Cursor& cursor, uint32_t type, const std::string& what, int depth) {
  switch (type) {
    case u8:
      return cursor.number<uint8_t>(what);
    case i8:
      return cursor.number<int8_t>(what);
    case u16:
      return cursor.number<uint16_t>(what);
    case i16:
      return cursor.number<int16_t>(what);
    case u32:
      return cursor.number<uint32_t>(what);
    case i32:
      return cursor.number<int32_t>(what);
    case u64:
      return cursor.number<uint64_t>(what);
    case i64:
      return cursor.number<int64_t>(what);
    case f32:
      return shortest(cursor.number<float>(what));
    case f64:
      return cursor.number<double>(what);
    case boolean:
      return cursor.number<uint8_t>(what) != 0;
    case text:
      return cursor.string(cursor.left(), what);
    case array:
      return read_array(cursor, what, depth);
    default:
      throw_error<FormatError>("{}: {} has the unknown type {}", cursor.file(), what, type);
  }
}

uint32_t read_version(Cursor& cursor) {
  const std::byte* magic = cursor.take(4, "the magic number");
  if (std::memcmp(magic, "GGUF", 4) != 0)
    throw_error<FormatError>("{}: this is no GGUF file (it does not begin with \"GGUF\")", cursor.file());
  const uint32_t version = cursor.number<uint32_t>("the version");
  if (version == 2 || version == 3) return version;
  if (__builtin_bswap32(version) <= 3)
    throw_error<FormatError>("{}: the file is big-endian GGUF, which is not supported; convert it to little-endian",
                             cursor.file());
  throw_error<FormatError>("{}: GGUF version {} is not supported; versions 2 and 3 are", cursor.file(), version);
}

Json read_metadata(Cursor& cursor, uint64_t count) {
  if (count > kMostKeys) throw_error<FormatError>("{}: {} metadata fields are more than {}", cursor.file(), count, kMostKeys);
  Json metadata = Json::object();
  auto& entries = metadata.get_ref<Json::object_t&>();
  std::unordered_set<std::string> seen;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key = cursor.string(kLongestName, fmt::format("the name of metadata field {}", i));
    const std::string what = "metadata field \"" + printable(key) + "\"";
    if (key.empty() || !seen.insert(key).second)
      throw_error<FormatError>("{}: {} {}; the file is damaged", cursor.file(), what,
                               key.empty() ? "has no name" : "stands twice");
    const uint32_t type = cursor.number<uint32_t>(what);
    entries.emplace_back(key, read_value(cursor, type, what, 0));
  }
  return metadata;
}

uint64_t read_alignment(const Json& metadata, const std::string& file) {
  const int64_t alignment = formats::Fields(metadata, file).integer("general.alignment", 32);
  if (alignment < 1 || alignment > (1 << 20) || (alignment & (alignment - 1)) != 0)
    throw_error<FormatError>("{}: general.alignment is {}, but must be a power of two up to 1048576", file, alignment);
  return static_cast<uint64_t>(alignment);
}

/// A tensor's entry before its data is found: `offset` counts from the start of the data.
struct Placed {
  GgufTensor tensor;
  uint64_t offset = 0, bytes = 0;
};

Placed read_tensor_info(Cursor& cursor, uint64_t number) {
  Placed placed;
  GgufTensor& tensor = placed.tensor;
  tensor.name = cursor.string(kLongestName, fmt::format("the name of tensor {}", number));
  const std::string what = "tensor " + printable(tensor.name);
  const std::string where = cursor.file() + ": " + what;
  const uint32_t dimensions = cursor.number<uint32_t>(what);
  if (dimensions < 1 || dimensions > kMostDimensions)
    throw_error<FormatError>("{}: {} dimensions, but 1 to {} can be", where, dimensions, kMostDimensions);
  int64_t elements = 1;
  for (uint32_t d = 0; d < dimensions; ++d) {
    const uint64_t size = cursor.number<uint64_t>(what);
    if (size == 0 || size > INT64_MAX || __builtin_mul_overflow(elements, static_cast<int64_t>(size), &elements))
      throw_error<FormatError>("{}: dimension {} of {} cannot be", where, d, size);
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  tensor.type = static_cast<GgufType>(cursor.number<uint32_t>(what));
  const auto info = gguf_type_info(tensor.type);
  if (info && tensor.shape.back() % info->block_length != 0)
    throw_error<FormatError>("{}: rows of {} are not whole blocks of {} ({})", where, tensor.shape.back(), info->block_length,
                             info->name);
  placed.bytes = gguf_bytes(tensor.type, elements, where);
  placed.offset = cursor.number<uint64_t>(what);
  return placed;
}

uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

/// Gives every tensor its bytes; checks alignment, the end of the file and overlaps.
void place_tensors(std::vector<Placed>& placed, std::span<const std::byte> data, uint64_t alignment, const std::string& file) {
  for (Placed& p : placed) {
    const std::string where = file + ": tensor " + printable(p.tensor.name);
    if (p.offset % alignment != 0)
      throw_error<FormatError>("{}: offset {} is not a multiple of the alignment {}", where, p.offset, alignment);
    if (p.offset > data.size() || p.bytes > data.size() - p.offset)
      throw_error<FormatError>(
          "{}: needs {} bytes at offset {}, but the file holds {} bytes of data; it is truncated, fetch it again", where,
          p.bytes, p.offset, data.size());
    p.tensor.bytes = data.subspan(p.offset, p.bytes);
  }
  std::vector<const Placed*> order;
  order.reserve(placed.size());
  for (const Placed& p : placed) order.push_back(&p);
  std::sort(order.begin(), order.end(), [](const Placed* a, const Placed* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i)
    if (order[i]->offset < order[i - 1]->offset + order[i - 1]->bytes)
      throw_error<FormatError>("{}: tensors {} and {} overlap; the file is damaged", file, printable(order[i - 1]->tensor.name),
                               printable(order[i]->tensor.name));
}

}  // namespace

int64_t GgufTensor::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

GgufFile::GgufFile(const fs::path& path) : file_(path) {
  Cursor cursor(file_);
  version_ = read_version(cursor);
  const uint64_t tensor_count = cursor.number<uint64_t>("the tensor count");
  const uint64_t key_count = cursor.number<uint64_t>("the metadata count");
  cursor.count(tensor_count, kSmallestTensorInfo, "the tensor count");
  cursor.count(key_count, kSmallestKeyValue, "the metadata count");
  metadata_ = read_metadata(cursor, key_count);
  alignment_ = read_alignment(metadata_, cursor.file());

  std::vector<Placed> placed;
  for (uint64_t i = 0; i < tensor_count; ++i) {
    placed.push_back(read_tensor_info(cursor, i));
    if (!index_.emplace(placed.back().tensor.name, i).second)
      throw_error<FormatError>("{}: tensor {} stands twice; the file is damaged", cursor.file(),
                               printable(placed.back().tensor.name));
  }
  const uint64_t start = std::min<uint64_t>(align_up(cursor.position(), alignment_), file_.size());
  place_tensors(placed, file_.bytes().subspan(start), alignment_, cursor.file());
  for (Placed& p : placed) tensors_.push_back(std::move(p.tensor));
}

const GgufTensor* GgufFile::find(const std::string& name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

}  // namespace lighten
