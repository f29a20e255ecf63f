// GGUF: the container of llama.cpp (versions 2 and 3, little-endian), read by mmap and written atomically, and the block
// formats inside it.
#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/options.h"

namespace lighten {

/// How a tensor's numbers are stored. The values are the file format's own.
enum class GgufType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
  f64 = 28,
  bf16 = 30,
};

/// What the codes of IQ4_NL mean, in units of a block's scale.
inline constexpr std::array<int8_t, 16> kIq4Levels = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// A type is a block of `block_length` numbers in `block_bytes` bytes; rows are whole blocks.
struct GgufTypeInfo {
  std::string_view name;  ///< "Q4_1"
  int64_t block_length;
  uint64_t block_bytes;
};
/// Nothing for a type that is not known at all. Known is not the same as readable: see gguf_can_read.
std::optional<GgufTypeInfo> gguf_type_info(GgufType type);
bool gguf_can_read(GgufType type);
bool gguf_can_write(GgufType type);
/// Bytes of `count` numbers. Throws FormatError if the block length does not divide `count`, or the type is unknown.
uint64_t gguf_bytes(GgufType type, int64_t count, const std::string& where);

/// A tensor inside a mapped file; valid while the file object lives.
struct GgufTensor {
  std::string name;            ///< "blk.0.attn_q.weight"
  std::vector<int64_t> shape;  ///< outermost first, as in torch: [out, in] (the file stores it reversed)
  GgufType type = GgufType::f32;
  std::span<const std::byte> bytes;
  int64_t elements() const;
};

/// One mapped GGUF file. The constructor checks every count, length, type, dimension, offset and the alignment, and throws
/// FormatError that names the file and the field or tensor.
class GgufFile {
 public:
  explicit GgufFile(const fs::path& path);
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }
  /// All metadata: {"general.architecture": "llama", ...}. A 32-bit float comes as the shortest decimal that means it: 1e-05.
  const Json& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  /// nullptr if missing.
  const GgufTensor* find(const std::string& name) const;
  const MappedFile& file() const { return file_; }

 private:
  MappedFile file_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  Json metadata_ = Json::object();
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

/// `count` numbers of stored form -> float32, rounded as the reference implementation rounds (bit for bit).
/// Throws FormatError for a type that gguf_can_read does not name.
void gguf_dequantize(GgufType type, const std::byte* blocks, int64_t count, float* out);
/// All values of a tensor. Throws FormatError on NaN or infinity if `finite` (names `where`).
std::vector<float> to_float(const GgufTensor& tensor, const std::string& where, bool finite = true);

/// Float32 -> stored form, `values.size()` a multiple of the block length. Same codes and scales as the reference:
///   Q4_0, Q5_0: d = (value of largest magnitude) / -8 (-16), q = trunc(x/d + 8.5) (+16.5)
///   Q4_1, Q5_1: d = (max - min) / 15 (31), q = trunc((x - min)/d + 0.5);   Q8_0: d = max|x| / 127, q = round(x/d)
/// Throws FormatError for a type that gguf_can_write does not name, and for values that are not finite.
std::vector<std::byte> gguf_quantize(GgufType type, std::span<const float> values);

/// Metadata to be written, in the order of the calls. Throws FormatError on a repeated key.
class GgufMetadata {
 public:
  void set(const std::string& key, bool value);
  void set(const std::string& key, uint32_t value);
  void set(const std::string& key, int32_t value);
  void set(const std::string& key, uint64_t value);
  void set(const std::string& key, float value);
  void set(const std::string& key, const std::string& value);
  void set(const std::string& key, const char* value) { set(key, std::string(value)); }
  void set(const std::string& key, const std::vector<std::string>& values);
  void set(const std::string& key, const std::vector<int32_t>& values);
  void set(const std::string& key, const std::vector<float>& values);
  const std::map<std::string, size_t>& keys() const { return keys_; }
  const std::string& bytes() const { return bytes_; }  ///< as in the file

 private:
  void begin(const std::string& key, uint32_t type);
  std::map<std::string, size_t> keys_;
  std::string bytes_;
};

struct GgufTensorToWrite {
  std::string name;
  std::vector<int64_t> shape;  ///< outermost first
  GgufType type;
  std::span<const std::byte> bytes;
};
/// Writes version 3 atomically. Throws FormatError if a shape does not fit its bytes or a name repeats, FileError if writing
/// fails.
void write_gguf(const fs::path& path, const GgufMetadata& metadata, const std::vector<GgufTensorToWrite>& tensors,
                uint32_t alignment = 32);

}  // namespace lighten
