// safetensors: read by mmap (sharded too), written atomically.
#pragma once
#include <map>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/options.h"
#include "lighten/formats/dtype.h"

namespace lighten {

/// A tensor's bytes inside a mapped file; valid while the file object lives.
struct TensorView {
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
  int64_t elements() const;
};

/// One mapped .safetensors file. The constructor checks header size, JSON, duplicate keys, dtypes, shapes, offsets (inside the
/// file, in order, neither overlapping nor with holes) and throws FormatError that names the file and the tensor.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const fs::path& path);
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const MappedFile& file() const { return file_; }
  /// Throws FormatError if missing.
  const TensorView& at(const std::string& name) const;

 private:
  MappedFile file_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// A model's shards: `model.safetensors`, or those that `model.safetensors.index.json` lists (plain names only: a shard path
/// that leaves the folder is refused).
class SafetensorsModel {
 public:
  explicit SafetensorsModel(const fs::path& folder);
  const std::vector<SafetensorsFile>& shards() const { return shards_; }
  /// nullptr if missing.
  const TensorView* find(const std::string& name) const;
  const std::map<std::string, const TensorView*>& tensors() const { return tensors_; }

 private:
  std::vector<SafetensorsFile> shards_;
  std::map<std::string, const TensorView*> tensors_;  ///< point into shards_, whose maps keep their nodes when the model moves
};

/// Values in float32. Supports every floating type and integers. Throws FormatError on NaN or infinity if `finite` (names
/// `where`).
std::vector<float> to_float(const TensorView& tensor, const std::string& where, bool finite = true);

/// Throws FormatError that names `where`, the place and the value, if one is NaN or infinite.
void check_finite(std::span<const float> values, const std::string& where);

/// A tensor to be written. `bytes` must hold elements * dtype size.
struct TensorToWrite {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};
/// Writes atomically. The header is padded so that data starts at a multiple of `alignment` bytes of the file; tensors keep the
/// given order, so a tensor starts aligned if all before it have sizes that are multiples of the alignment.
void write_safetensors(const fs::path& path, const std::vector<TensorToWrite>& tensors,
                       const std::map<std::string, std::string>& metadata = {}, size_t alignment = 64);

}  // namespace lighten
