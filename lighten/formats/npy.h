// .npy: numpy's file of one array; read by mmap, written atomically, also piece by piece.
#pragma once
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "lighten/base/error.h"
#include "lighten/base/file.h"
#include "lighten/formats/dtype.h"
#include "lighten/formats/safetensors.h"

namespace lighten {

/// The DType of a C++ type: float, double, int32_t, int64_t, uint8_t and the other whole numbers. (Half is stored as uint16_t:
/// name DType::f16 where it is meant.)
template <typename T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, int64_t>) return DType::i64;
  if constexpr (std::is_same_v<T, int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, int16_t>) return DType::i16;
  if constexpr (std::is_same_v<T, int8_t>) return DType::i8;
  if constexpr (std::is_same_v<T, uint64_t>) return DType::u64;
  if constexpr (std::is_same_v<T, uint32_t>) return DType::u32;
  if constexpr (std::is_same_v<T, uint16_t>) return DType::u16;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::u8;
  if constexpr (std::is_same_v<T, bool>) return DType::boolean;
}

/// One mapped .npy file (format versions 1 to 3; little-endian floats of 2, 4 and 8 bytes, whole numbers of 1 to 8 bytes,
/// booleans; C order). The constructor checks magic, header, type, shape and that the file holds exactly the data that they ask
/// for; throws FormatError that names the file and says how to save it otherwise. Source: NEP 1, numpy.lib.format.
class NpyFile {
 public:
  explicit NpyFile(const fs::path& path);
  const TensorView& tensor() const { return tensor_; }
  DType dtype() const { return tensor_.dtype; }
  const std::vector<int64_t>& shape() const { return tensor_.shape; }
  std::string name() const { return file_.path().string(); }
  /// Of a matrix [rows, columns]; throw FormatError if the array has not exactly two dimensions.
  int64_t rows() const;
  int64_t columns() const;
  /// The stored values, without a copy. Throws FormatError if the type is another one.
  template <typename T>
  std::span<const T> values() const {
    check_type(dtype_of<T>(), alignof(T));
    return {reinterpret_cast<const T*>(tensor_.bytes.data()), tensor_.bytes.size() / sizeof(T)};
  }
  /// All values in float32, from any type. Throws FormatError on NaN or infinity if `finite` (names row and column).
  std::vector<float> to_float(bool finite = true) const;
  /// The same of rows [first, first + count) of a matrix.
  std::vector<float> rows_to_float(int64_t first, int64_t count, bool finite = true) const;
  const MappedFile& file() const { return file_; }

 private:
  MappedFile file_;
  TensorView tensor_;
  void check_type(DType wanted, size_t alignment) const;
};

/// Throws FormatError that names file, row and column of the first NaN or infinity of a matrix with `columns` columns whose
/// first row is row `first_row` of the file.
void check_finite_rows(std::span<const float> values, int64_t columns, const std::string& file, int64_t first_row = 0);

/// Writes a .npy piece by piece; the shape is known before. The file appears at commit(), which throws FormatError if the
/// pieces did not fill the shape.
class NpyWriter {
 public:
  NpyWriter(const fs::path& path, DType dtype, const std::vector<int64_t>& shape);
  void write(std::span<const std::byte> bytes) { file_.write(bytes); }
  template <typename T>
  void write(std::span<const T> values) {
    write(std::as_bytes(values));
  }
  void commit();

 private:
  AtomicFile file_;
  std::string name_;
  uint64_t wanted_ = 0;  ///< bytes of the whole file
};

/// Writes atomically. Throws FormatError if shape and type do not fit the bytes.
void write_npy(const fs::path& path, DType dtype, const std::vector<int64_t>& shape, std::span<const std::byte> bytes);
template <typename T>
void write_npy(const fs::path& path, const std::vector<int64_t>& shape, const std::vector<T>& values) {
  write_npy(path, dtype_of<T>(), shape, std::as_bytes(std::span(values)));
}

}  // namespace lighten
