#include "lighten/formats/npy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>

#include "lighten/formats/json_fields.h"

namespace lighten {
namespace {

using formats::printable;

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr size_t kLongestHeader = 1 << 16;
constexpr size_t kMostDimensions = 32;
constexpr size_t kAlignment = 64;

struct TypeName {
  std::string_view name;
  DType dtype;
};
constexpr std::array<TypeName, 12> kTypes = {{{"<f8", DType::f64},
                                              {"<f4", DType::f32},
                                              {"<f2", DType::f16},
                                              {"<i8", DType::i64},
                                              {"<i4", DType::i32},
                                              {"<i2", DType::i16},
                                              {"|i1", DType::i8},
                                              {"<u8", DType::u64},
                                              {"<u4", DType::u32},
                                              {"<u2", DType::u16},
                                              {"|u1", DType::u8},
                                              {"|b1", DType::boolean}}};

std::string_view npy_name(DType dtype, const std::string& file) {
  for (const TypeName& type : kTypes)
    if (type.dtype == dtype) return type.name;
  throw_error<FormatError>("{}: .npy has no type for {}", file, dtype_name(dtype));
}

/// Reads the one Python dictionary that a header is: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  void parse() {
    expect('{');
    while (!accept('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (key == "descr")
        parse_type();
      else if (key == "fortran_order")
        parse_order();
      else if (key == "shape")
        parse_shape();
      else
        fail(fmt::format("unknown field \"{}\"", printable(std::string(key))));
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    if (at_ != text_.size()) fail("something follows the header's \"}\"");
    if (seen_ != 7) fail("the header must hold descr, fortran_order and shape");
  }

  DType dtype = DType::f32;
  bool fortran_order = false;
  std::vector<int64_t> shape;

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw_error<FormatError>("{}: {} (header, byte {}); this is no .npy file, or it is damaged", file_, what, at_);
  }
  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  bool accept(char c) {
    skip_spaces();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail(fmt::format("expected \"{}\"", c));
  }
  bool accept_word(std::string_view word) {
    skip_spaces();
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  std::string_view quoted() {
    skip_spaces();
    if (at_ >= text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) fail("expected a quoted text");
    const size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string_view::npos) fail("a quoted text does not end");
    const std::string_view inside = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return inside;
  }
  void once(unsigned bit) {
    if ((seen_ & bit) != 0) fail("a field stands twice");
    seen_ |= bit;
  }
  void parse_type() {
    once(1);
    skip_spaces();
    if (at_ < text_.size() && text_[at_] == '[')
      throw_error<FormatError>("{}: records with named fields are not supported; save one plain array a file", file_);
    const std::string_view name = quoted();
    const auto* const type = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeName& t) { return t.name == name; });
    if (type != kTypes.end()) {
      dtype = type->dtype;
      return;
    }
    if (name.starts_with('>'))
      throw_error<FormatError>("{}: big-endian type {}; save it with array.astype(array.dtype.newbyteorder('<'))", file_,
                               printable(std::string(name)));
    throw_error<FormatError>(
        "{}: type \"{}\" is not supported; save floats of 2, 4 or 8 bytes, whole numbers or booleans (array.astype)", file_,
        printable(std::string(name)));
  }
  void parse_order() {
    once(2);
    fortran_order = accept_word("True");
    if (!fortran_order && !accept_word("False")) fail("fortran_order must be True or False");
  }
  void parse_shape() {
    once(4);
    expect('(');
    while (!accept(')')) {
      skip_spaces();
      int64_t size = 0;
      const char* const begin = text_.data() + at_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), size);
      if (error != std::errc() || size < 0) fail("a size in shape must be a whole number that is not negative and below 2^63");
      at_ += static_cast<size_t>(end - begin);
      shape.push_back(size);
      if (shape.size() > kMostDimensions) fail(fmt::format("more than {} dimensions", kMostDimensions));
      if (!accept(',')) {
        expect(')');
        if (shape.size() == 1) fail("a shape of one size is written (n,)");
        break;
      }
    }
  }

  std::string_view text_;
  const std::string& file_;
  size_t at_ = 0;
  unsigned seen_ = 0;
};

/// Where the header's text lies in the file.
std::pair<size_t, size_t> header_place(std::span<const std::byte> bytes, const std::string& file) {
  if (bytes.size() < 10 || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
    throw_error<FormatError>("{}: this is no .npy file (it must begin with \\x93NUMPY); save it with numpy.save", file);
  const int version = std::to_integer<int>(bytes[6]);
  if (version < 1 || version > 3) throw_error<FormatError>("{}: .npy format version {} is unknown (1 to 3 are)", file, version);
  const size_t begin = version == 1 ? 10 : 12;
  if (bytes.size() < begin) throw_error<FormatError>("{}: the file ends inside its header; it is truncated", file);
  uint32_t length = 0;
  std::memcpy(&length, bytes.data() + 8, begin - 8);
  if (length > kLongestHeader || length > bytes.size() - begin)
    throw_error<FormatError>("{}: the header claims {} bytes; the file is truncated or damaged", file, length);
  return {begin, length};
}

uint64_t byte_count(const std::vector<int64_t>& shape, DType dtype, const std::string& file) {
  uint64_t bytes = dtype_size(dtype);
  for (const int64_t size : shape) {
    if (size < 0) throw_error<FormatError>("{}: size {} is negative", file, size);
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes))
      throw_error<FormatError>("{}: the sizes in shape multiply to more than any file can hold", file);
  }
  return bytes;
}

std::string header_bytes(DType dtype, const std::vector<int64_t>& shape, const std::string& file) {
  if (shape.size() > kMostDimensions) throw_error<FormatError>("{}: more than {} dimensions", file, kMostDimensions);
  std::string sizes;
  for (const int64_t size : shape) sizes += fmt::format("{},", size) + " ";
  if (!sizes.empty()) sizes.pop_back();
  if (shape.size() > 1) sizes.pop_back();
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", npy_name(dtype, file), sizes);
  text.append((kAlignment - (10 + text.size() + 1) % kAlignment) % kAlignment, ' ');
  text += '\n';
  const auto length = static_cast<uint16_t>(text.size());  // 32 sizes of 20 digits stay far below 65536
  std::string header(kMagic);
  header += std::string("\x01\x00", 2);
  header.append(reinterpret_cast<const char*>(&length), 2);
  return header + text;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

}  // namespace

NpyFile::NpyFile(const fs::path& path) : file_(path) {
  const std::string file = name();
  const auto [begin, length] = header_place(file_.bytes(), file);
  HeaderParser header({reinterpret_cast<const char*>(file_.data()) + begin, length}, file);
  header.parse();
  const auto long_sides = std::count_if(header.shape.begin(), header.shape.end(), [](int64_t size) { return size != 1; });
  if (header.fortran_order && long_sides > 1)
    throw_error<FormatError>("{}: the array is stored column by column; save numpy.ascontiguousarray(array)", file);
  const uint64_t wanted = byte_count(header.shape, header.dtype, file), there = file_.size() - begin - length;
  if (wanted != there)
    throw_error<FormatError>("{}: shape {} of type {} needs {} bytes of data, but {} are there; the file is {}", file,
                             shape_text(header.shape), dtype_name(header.dtype), wanted, there,
                             there < wanted ? "truncated" : "damaged");
  tensor_ = {header.dtype, std::move(header.shape), file_.bytes().subspan(begin + length)};
}

int64_t NpyFile::rows() const {
  if (shape().size() != 2)
    throw_error<FormatError>("{}: a matrix [rows, columns] is needed, but the array has shape {}", name(), shape_text(shape()));
  return shape()[0];
}

int64_t NpyFile::columns() const {
  (void)rows();
  return shape()[1];
}

std::vector<float> NpyFile::to_float(bool finite) const {
  std::vector<float> values = lighten::to_float(tensor_, name(), false);
  const int64_t columns = shape().empty() ? 1 : shape().back();
  if (finite) check_finite_rows(values, columns, name());
  return values;
}

std::vector<float> NpyFile::rows_to_float(int64_t first, int64_t count, bool finite) const {
  const size_t row_bytes = static_cast<size_t>(columns()) * dtype_size(dtype());
  const TensorView part{dtype(), {count, columns()}, tensor_.bytes.subspan(first * row_bytes, count * row_bytes)};
  std::vector<float> values = lighten::to_float(part, name(), false);
  if (finite) check_finite_rows(values, columns(), name(), first);
  return values;
}

void NpyFile::check_type(DType wanted, size_t alignment) const {
  if (dtype() != wanted)
    throw_error<FormatError>("{}: values of type {} are needed, but these are {}; convert them with array.astype", name(),
                             dtype_name(wanted), dtype_name(dtype()));
  if (reinterpret_cast<uintptr_t>(tensor_.bytes.data()) % alignment != 0)
    throw_error<FormatError>("{}: the data does not begin at a multiple of {} bytes; save the file again with numpy.save",
                             name(), alignment);
}

void check_finite_rows(std::span<const float> values, int64_t columns, const std::string& file, int64_t first_row) {
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i])) {
      const auto place = static_cast<int64_t>(i);
      throw_error<FormatError>("{}: row {}, column {} is {}; remove or repair the row", file, first_row + place / columns,
                               place % columns, values[i]);
    }
}

NpyWriter::NpyWriter(const fs::path& path, DType dtype, const std::vector<int64_t>& shape) : file_(path), name_(path.string()) {
  wanted_ = byte_count(shape, dtype, name_);
  const std::string header = header_bytes(dtype, shape, name_);
  wanted_ += header.size();
  file_.write(header);
}

void NpyWriter::commit() {
  if (file_.size() != wanted_)
    throw_error<FormatError>("{}: the shape needs {} bytes, but {} were written", name_, wanted_, file_.size());
  file_.commit();
}

void write_npy(const fs::path& path, DType dtype, const std::vector<int64_t>& shape, std::span<const std::byte> bytes) {
  NpyWriter writer(path, dtype, shape);
  writer.write(bytes);
  writer.commit();
}

}  // namespace lighten
