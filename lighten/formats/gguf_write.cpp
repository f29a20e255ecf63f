#include <set>

#include "lighten/base/error.h"
#include "lighten/formats/gguf.h"
#include "lighten/formats/json_fields.h"

namespace lighten {
namespace {

enum ValueType : uint32_t { u32 = 4, i32 = 5, f32 = 6, boolean = 7, text = 8, array = 9, u64 = 10 };

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& out, const std::string& text) {
  put<uint64_t>(out, text.size());
  out += text;
}

template <typename T>
void put_array(std::string& out, ValueType type, const std::vector<T>& values) {
  put<uint32_t>(out, type);
  put<uint64_t>(out, values.size());
  for (const T& value : values) {
    if constexpr (std::is_same_v<T, std::string>)
      put_text(out, value);
    else
      put(out, value);
  }
}

uint64_t padding(uint64_t size, uint64_t alignment) { return (alignment - size % alignment) % alignment; }

uint64_t checked_bytes(const GgufTensorToWrite& tensor, const std::string& file) {
  const std::string where = file + ": tensor " + formats::printable(tensor.name);
  if (tensor.shape.empty() || tensor.shape.size() > 4) throw_error<FormatError>("{}: GGUF holds 1 to 4 dimensions", where);
  int64_t elements = 1;
  for (const int64_t size : tensor.shape)
    if (size < 1 || __builtin_mul_overflow(elements, size, &elements))
      throw_error<FormatError>("{}: size {} cannot be", where, size);
  gguf_bytes(tensor.type, tensor.shape.back(), where + ": a row");
  const uint64_t bytes = gguf_bytes(tensor.type, elements, where);
  if (bytes != tensor.bytes.size())
    throw_error<FormatError>("{}: the shape needs {} bytes, {} were given", where, bytes, tensor.bytes.size());
  return bytes;
}

}  // namespace

void GgufMetadata::begin(const std::string& key, uint32_t type) {
  if (key.empty() || !keys_.emplace(key, bytes_.size()).second)
    throw_error<FormatError>("GGUF metadata field \"{}\" was set twice or has no name", formats::printable(key));
  put_text(bytes_, key);
  put<uint32_t>(bytes_, type);
}

void GgufMetadata::set(const std::string& key, bool value) {
  begin(key, boolean);
  put<uint8_t>(bytes_, value ? 1 : 0);
}
void GgufMetadata::set(const std::string& key, uint32_t value) {
  begin(key, u32);
  put(bytes_, value);
}
void GgufMetadata::set(const std::string& key, int32_t value) {
  begin(key, i32);
  put(bytes_, value);
}
void GgufMetadata::set(const std::string& key, uint64_t value) {
  begin(key, u64);
  put(bytes_, value);
}
void GgufMetadata::set(const std::string& key, float value) {
  begin(key, f32);
  put(bytes_, value);
}
void GgufMetadata::set(const std::string& key, const std::string& value) {
  begin(key, text);
  put_text(bytes_, value);
}
void GgufMetadata::set(const std::string& key, const std::vector<std::string>& values) {
  begin(key, array);
  put_array(bytes_, text, values);
}
void GgufMetadata::set(const std::string& key, const std::vector<int32_t>& values) {
  begin(key, array);
  put_array(bytes_, i32, values);
}
void GgufMetadata::set(const std::string& key, const std::vector<float>& values) {
  begin(key, array);
  put_array(bytes_, f32, values);
}

void write_gguf(const fs::path& path, const GgufMetadata& metadata, const std::vector<GgufTensorToWrite>& tensors,
                uint32_t alignment) {
  const std::string file = path.string();
  if (alignment < 8 || (alignment & (alignment - 1)) != 0)
    throw_error<FormatError>("{}: alignment {} must be a power of two, 8 or more", file, alignment);
  GgufMetadata all = metadata;
  if (alignment != 32) all.set("general.alignment", alignment);

  std::string head = "GGUF";
  put<uint32_t>(head, 3);
  put<uint64_t>(head, tensors.size());
  put<uint64_t>(head, all.keys().size());
  head += all.bytes();
  uint64_t offset = 0;
  std::set<std::string> names;
  for (const GgufTensorToWrite& tensor : tensors) {
    const uint64_t bytes = checked_bytes(tensor, file);
    if (!names.insert(tensor.name).second)
      throw_error<FormatError>("{}: two tensors are named {}", file, formats::printable(tensor.name));
    put_text(head, tensor.name);
    put<uint32_t>(head, static_cast<uint32_t>(tensor.shape.size()));
    for (size_t d = tensor.shape.size(); d-- > 0;) put<uint64_t>(head, static_cast<uint64_t>(tensor.shape[d]));
    put<uint32_t>(head, static_cast<uint32_t>(tensor.type));
    put<uint64_t>(head, offset);
    offset += bytes + padding(bytes, alignment);
  }
  head.append(padding(head.size(), alignment), '\0');

  AtomicFile out(path);
  out.write(head);
  for (const GgufTensorToWrite& tensor : tensors) {
    out.write(tensor.bytes);
    out.write(std::string(padding(tensor.bytes.size(), alignment), '\0'));
  }
  out.commit();
}

}  // namespace lighten
