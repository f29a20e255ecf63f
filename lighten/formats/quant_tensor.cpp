#include "lighten/formats/quant_tensor.h"

#include <algorithm>
#include <cmath>

#include "lighten/base/error.h"

namespace lighten {
namespace {

const char* kind_name(CodeKind kind) {
  switch (kind) {
    case CodeKind::scalar:
      return "scalar";
    case CodeKind::levels:
      return "levels";
    case CodeKind::planes:
      return "planes";
    case CodeKind::vectors:
      return "vectors";
  }
  return "unknown";
}

size_t product(int64_t a, int64_t b) { return static_cast<size_t>(a) * static_cast<size_t>(b); }

int64_t groups_along(int64_t length, int64_t group_size) {
  return group_size == 0 ? 1 : (length + group_size - 1) / group_size;
}

size_t group_count(const QuantTensor& t) {
  return t.axis == GroupAxis::input ? product(t.rows, groups_along(t.columns, t.group_size))
                                    : product(t.columns, groups_along(t.rows, t.group_size));
}

/// w = scale * (code - shift) + minimum.
struct GroupNumbers {
  float scale = 0, shift = 0, minimum = 0;
};

std::vector<GroupNumbers> group_numbers(const QuantTensor& t) {
  std::vector<GroupNumbers> groups(group_count(t));
  for (size_t g = 0; g < groups.size(); ++g) {
    groups[g].scale = half_to_float(t.scales[g]);
    if (t.zero == ZeroKind::symmetric) groups[g].shift = static_cast<float>(1 << (t.bits - 1));
    if (t.zero == ZeroKind::integer) groups[g].shift = t.zero_points[g];
    if (t.zero == ZeroKind::minimum) groups[g].minimum = half_to_float(t.minimums[g]);
  }
  return groups;
}

/// out[j] for code positions [begin, end) of one group. The minimum is added only where there is one: -0 + 0 would lose its
/// sign.
void dequantize_run(const QuantTensor& t, const GroupNumbers& g, const uint8_t* codes, int64_t begin, int64_t end, float* out) {
  if (t.kind == CodeKind::levels)
    for (int64_t j = begin; j < end; ++j) out[j] = g.scale * t.codebook[codes[j]];
  else if (t.zero == ZeroKind::minimum)
    for (int64_t j = begin; j < end; ++j) out[j] = g.scale * static_cast<float>(codes[j]) + g.minimum;
  else
    for (int64_t j = begin; j < end; ++j) out[j] = g.scale * (static_cast<float>(codes[j]) - g.shift);
}

/// One row in the order of its codes.
void dequantize_row(const QuantTensor& t, const std::vector<GroupNumbers>& groups, int64_t row, float* out) {
  const uint8_t* codes = t.codes.data() + product(row, t.columns);
  const int64_t length = t.axis == GroupAxis::input ? t.columns : t.rows;
  const int64_t size = t.group_size == 0 ? length : t.group_size;
  const int64_t per_line = groups_along(length, t.group_size);
  if (t.axis == GroupAxis::input) {
    const GroupNumbers* group = groups.data() + product(row, per_line);
    for (int64_t begin = 0; begin < t.columns; begin += size)
      dequantize_run(t, *group++, codes, begin, std::min(begin + size, t.columns), out);
  } else {
    const GroupNumbers* group = groups.data() + row / size;
    for (int64_t j = 0; j < t.columns; ++j) dequantize_run(t, group[product(j, per_line)], codes, j, j + 1, out);
  }
}

/// w = sum_p plane_scale[p] * bit_p, then the minimum of the group.
void dequantize_planes_row(const QuantTensor& t, int64_t row, float* out) {
  const int64_t groups = t.groups_per_row(), size = t.group_size == 0 ? t.columns : t.group_size;
  const size_t words = static_cast<size_t>((t.columns + 63) / 64), first = product(row, groups);
  std::fill(out, out + t.columns, 0.0f);
  for (size_t p = 0; p < t.planes.size(); ++p) {
    const uint64_t* bits = t.planes[p].data() + static_cast<size_t>(row) * words;
    for (int64_t j = 0; j < t.columns; ++j)
      if (bits[j / 64] >> (j % 64) & 1)
        out[j] += half_to_float(t.plane_scales[p * product(t.rows, groups) + first + static_cast<size_t>(j / size)]);
  }
  if (t.zero == ZeroKind::minimum)
    for (int64_t j = 0; j < t.columns; ++j) out[j] += half_to_float(t.minimums[first + static_cast<size_t>(j / size)]);
}

void add_outliers(const QuantTensor& t, std::vector<float>& weight) {
  for (int64_t row = 0; row + 1 < static_cast<int64_t>(t.outlier_rows.size()); ++row) {
    for (int64_t i = t.outlier_rows[static_cast<size_t>(row)]; i < t.outlier_rows[static_cast<size_t>(row) + 1]; ++i) {
      const size_t at = static_cast<size_t>(i);
      weight[product(row, t.columns) + static_cast<size_t>(t.outlier_columns[at])] += half_to_float(t.outlier_values[at]);
    }
  }
}

class Checker {
 public:
  explicit Checker(const std::string& where) : where_(where) {}

  template <typename T>
  void size(const char* what, const std::vector<T>& values, size_t expected) const {
    if (values.size() != expected)
      throw_error<FormatError>("{}: {} {} expected, found {}; the tensor is damaged", where_, expected, what, values.size());
  }
  void finite(const char* what, const std::vector<Half>& values) const {
    for (size_t i = 0; i < values.size(); ++i)
      if ((values[i] & 0x7c00u) == 0x7c00u) throw_error<FormatError>("{}: {} {} is not a finite number", where_, what, i);
  }
  void finite(const char* what, const std::vector<float>& values) const {
    for (size_t i = 0; i < values.size(); ++i)
      if (!std::isfinite(values[i])) throw_error<FormatError>("{}: {} {} is not a finite number", where_, what, i);
  }
  template <typename T>
  void below(const char* what, const std::vector<T>& values, unsigned limit) const {
    for (size_t i = 0; i < values.size(); ++i)
      if (values[i] >= limit)
        throw_error<FormatError>("{}: {} {} is {}, but must be below {}", where_, what, i, values[i], limit);
  }

 private:
  const std::string& where_;
};

void check_scalar(const QuantTensor& t, const Checker& checker) {
  const size_t groups = group_count(t);
  checker.size("codes", t.codes, product(t.rows, t.columns));
  checker.size("scales", t.scales, groups);
  checker.size("zero points", t.zero_points, t.zero == ZeroKind::integer ? groups : 0);
  checker.size("minimums", t.minimums, t.zero == ZeroKind::minimum ? groups : 0);
  if (t.bits < 8) {
    checker.below("code", t.codes, 1u << t.bits);
    checker.below("zero point", t.zero_points, 1u << t.bits);
  }
}

void check_levels(const QuantTensor& t, const Checker& checker, const std::string& where) {
  if (t.zero != ZeroKind::symmetric) throw_error<FormatError>("{}: levels have no zero points", where);
  if (t.codebook.empty() || t.codebook.size() > size_t{1} << t.bits)
    throw_error<FormatError>("{}: {} levels for codes of {} bits", where, t.codebook.size(), t.bits);
  checker.size("codes", t.codes, product(t.rows, t.columns));
  checker.size("scales", t.scales, group_count(t));
  checker.below("code", t.codes, static_cast<unsigned>(t.codebook.size()));
}

void check_planes(const QuantTensor& t, const Checker& checker, const std::string& where) {
  if (t.bits != 1 || t.books < 1 || t.books > 8)
    throw_error<FormatError>("{}: {} planes of {} bits; 1 to 8 planes of 1 bit are supported", where, t.books, t.bits);
  if (t.axis != GroupAxis::input || t.zero == ZeroKind::integer)
    throw_error<FormatError>("{}: planes have groups along the inputs and no integer zero points", where);
  checker.size("planes", t.planes, static_cast<size_t>(t.books));
  for (const auto& plane : t.planes) checker.size("words of a plane", plane, product(t.rows, (t.columns + 63) / 64));
  checker.size("plane scales", t.plane_scales, static_cast<size_t>(t.books) * group_count(t));
  checker.size("minimums", t.minimums, t.zero == ZeroKind::minimum ? group_count(t) : 0);
  checker.size("codes", t.codes, 0);
  checker.size("scales", t.scales, 0);
}

void check_permutation(const QuantTensor& t, const std::string& where) {
  if (t.permutation.empty()) return;
  std::vector<bool> seen(static_cast<size_t>(t.columns));
  bool right = t.permutation.size() == seen.size();
  for (size_t j = 0; right && j < seen.size(); ++j) {
    const int32_t column = t.permutation[j];
    right = column >= 0 && column < t.columns && !seen[static_cast<size_t>(column)];
    if (right) seen[static_cast<size_t>(column)] = true;
  }
  if (!right) throw_error<FormatError>("{}: permutation does not name each of the {} columns once", where, t.columns);
}

void check_outliers(const QuantTensor& t, const std::string& where) {
  const std::vector<int64_t>& rows = t.outlier_rows;
  const size_t count = t.outlier_values.size();
  bool right =
      t.outlier_columns.size() == count && (rows.empty() ? count == 0 : rows.size() == static_cast<size_t>(t.rows) + 1);
  if (right && !rows.empty()) {
    right = rows.front() == 0 && rows.back() == static_cast<int64_t>(count);
    for (size_t r = 0; right && r + 1 < rows.size(); ++r) right = rows[r] <= rows[r + 1];
  }
  for (size_t i = 0; right && i < count; ++i) right = t.outlier_columns[i] >= 0 && t.outlier_columns[i] < t.columns;
  if (!right) throw_error<FormatError>("{}: outliers do not lie inside the {} x {} weight", where, t.rows, t.columns);
}

void check_transform(const QuantTensor& t, const std::string& where, const Checker& checker) {
  if (!t.input_scales.empty()) checker.size("input scales", t.input_scales, static_cast<size_t>(t.columns));
  if (t.pre_left.empty() && t.pre_right.empty()) return;
  const auto side = [](const std::vector<float>& square) {
    return std::llround(std::sqrt(static_cast<double>(square.size())));
  };
  const int64_t a = side(t.pre_left), b = side(t.pre_right);
  if (product(a, a) != t.pre_left.size() || product(b, b) != t.pre_right.size() || a * b != t.columns)
    throw_error<FormatError>("{}: the transform's two square matrices do not multiply to {} inputs", where, t.columns);
}

}  // namespace

std::vector<float> dequantize(const QuantTensor& tensor) {
  if (tensor.kind == CodeKind::vectors)
    throw_error<ModelError>("dequantize: weights of kind \"{}\" are not implemented yet", kind_name(tensor.kind));
  const bool planes = tensor.kind == CodeKind::planes;
  const std::vector<GroupNumbers> groups = planes ? std::vector<GroupNumbers>() : group_numbers(tensor);
  std::vector<float> weight(product(tensor.rows, tensor.columns));
  std::vector<float> ordered(tensor.permutation.empty() ? 0 : static_cast<size_t>(tensor.columns));
  for (int64_t row = 0; row < tensor.rows; ++row) {
    float* out = weight.data() + product(row, tensor.columns);
    float* target = ordered.empty() ? out : ordered.data();
    planes ? dequantize_planes_row(tensor, row, target) : dequantize_row(tensor, groups, row, target);
    for (size_t j = 0; j < ordered.size(); ++j) out[tensor.permutation[j]] = ordered[j];
  }
  add_outliers(tensor, weight);
  return weight;
}

void check(const QuantTensor& tensor, const std::string& where) {
  constexpr int64_t kLargest = int64_t{1} << 31;
  if (tensor.rows <= 0 || tensor.columns <= 0 || tensor.rows > kLargest || tensor.columns > kLargest)
    throw_error<FormatError>("{}: a weight of {} x {} cannot be", where, tensor.rows, tensor.columns);
  if (tensor.group_size < 0) throw_error<FormatError>("{}: group size {} is negative", where, tensor.group_size);
  if (tensor.bits < 1 || tensor.bits > (tensor.kind == CodeKind::vectors ? 16 : 8))
    throw_error<FormatError>("{}: {} bits are not supported", where, tensor.bits);
  const Checker checker(where);
  if (tensor.kind == CodeKind::scalar) check_scalar(tensor, checker);
  if (tensor.kind == CodeKind::levels) check_levels(tensor, checker, where);
  if (tensor.kind == CodeKind::planes) check_planes(tensor, checker, where);
  checker.finite("scale", tensor.scales);
  checker.finite("minimum", tensor.minimums);
  checker.finite("outlier", tensor.outlier_values);
  checker.finite("plane scale", tensor.plane_scales);
  checker.finite("codebook entry", tensor.codebook);
  checker.finite("input scale", tensor.input_scales);
  checker.finite("transform entry", tensor.pre_left);
  checker.finite("transform entry", tensor.pre_right);
  check_permutation(tensor, where);
  check_outliers(tensor, where);
  check_transform(tensor, where, checker);
}

uint64_t packed_bits(const QuantTensor& t) {
  const uint64_t bits = static_cast<uint64_t>(t.bits);
  uint64_t total = (t.codes.size() + t.wide_codes.size() + t.zero_points.size()) * bits;
  total += 16 * (t.scales.size() + t.minimums.size() + t.plane_scales.size() + t.codebook.size());
  total += t.planes.size() * product(t.rows, t.columns);
  total += 32 * t.outlier_values.size() + 32 * t.outlier_rows.size() + 32 * t.permutation.size();
  total += 16 * (t.pre_left.size() + t.pre_right.size() + t.input_scales.size());
  return total;
}

}  // namespace lighten
