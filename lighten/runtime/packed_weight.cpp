#include <algorithm>
#include <array>
#include <cmath>

#include "lighten/base/error.h"
#include "lighten/runtime/light_model.h"

namespace lighten {
namespace {

PackedZero packed_zero(ZeroKind zero) {
  switch (zero) {
    case ZeroKind::symmetric:
      return PackedZero::symmetric;
    case ZeroKind::integer:
      return PackedZero::integer;
    case ZeroKind::minimum:
      return PackedZero::minimum;
  }
  throw ModelError("a quantized tensor has an unknown kind of zero point");
}

ZeroKind zero_kind(PackedZero zero) {
  switch (zero) {
    case PackedZero::symmetric:
      return ZeroKind::symmetric;
    case PackedZero::integer:
      return ZeroKind::integer;
    case PackedZero::minimum:
      return ZeroKind::minimum;
  }
  throw ModelError("a packed weight has an unknown kind of zero point");
}

constexpr float kTrits[] = {-1, 0, 1};

PackedCodes packed_codes(const QuantTensor& tensor) {
  if (tensor.kind != CodeKind::levels) return PackedCodes::plain;
  for (const float level : tensor.codebook)
    if (level != std::round(level) || std::fabs(level) > 127)
      throw_error<ModelError>(
          "the runtime has kernels for whole levels of -127 to 127 only, not {}: move a factor into the scales", level);
  return tensor.bits == 2 && std::ranges::equal(tensor.codebook, kTrits) ? PackedCodes::trits : PackedCodes::levels;
}

/// The table of 2^bits levels; those that no code names are 0.
std::array<int8_t, 16> level_table(const QuantTensor& tensor) {
  std::array<int8_t, 16> table{};
  for (size_t i = 0; i < tensor.codebook.size(); ++i) table[i] = static_cast<int8_t>(tensor.codebook[i]);
  return table;
}

/// Planes without a minimum have the zero point 0; of those with one the first bears it.
void pack_planes(const QuantTensor& tensor, const LinearSpec& spec, std::byte* out) {
  const auto planes = static_cast<size_t>(spec.planes), cells = static_cast<size_t>(tensor.rows * tensor.columns),
             factors = tensor.plane_scales.size() / planes, words = static_cast<size_t>((tensor.columns + 63) / 64);
  std::vector<uint8_t> codes(planes * cells), zeros(planes * factors);
  std::vector<Half> minimums(tensor.minimums);
  minimums.resize(planes * factors);
  for (size_t p = 0; p < planes; ++p)
    for (size_t i = 0; i < cells; ++i) {
      const size_t row = i / static_cast<size_t>(tensor.columns), column = i % static_cast<size_t>(tensor.columns);
      codes[p * cells + i] = tensor.planes[p][row * words + column / 64] >> (column % 64) & 1;
    }
  pack_linear(spec, codes.data(), tensor.plane_scales.data(), zeros.data(), minimums.data(), out);
}

/// A weight of several planes. (One plane alone is a matrix of 1-bit codes.)
QuantTensor unpack_planes(const PackedWeight& weight) {
  const LinearSpec& spec = weight.spec;
  QuantTensor tensor;
  tensor.kind = CodeKind::planes;
  tensor.zero = spec.zero == PackedZero::minimum ? ZeroKind::minimum : ZeroKind::symmetric;
  tensor.bits = 1;
  tensor.rows = spec.rows;
  tensor.columns = spec.columns;
  tensor.group_size = spec.group_size;
  tensor.books = spec.planes;
  const auto planes = static_cast<size_t>(spec.planes), cells = static_cast<size_t>(spec.rows * spec.columns),
             factors = static_cast<size_t>(spec.rows * tensor.groups_per_row()),
             words = static_cast<size_t>((spec.columns + 63) / 64);
  std::vector<uint8_t> codes(planes * cells);
  tensor.plane_scales.resize(planes * factors);
  std::vector<Half> minimums(planes * factors);
  unpack_linear(spec, weight.data, codes.data(), tensor.plane_scales.data(), nullptr, minimums.data());
  if (tensor.zero == ZeroKind::minimum)
    tensor.minimums.assign(minimums.begin(), minimums.begin() + static_cast<int64_t>(factors));
  tensor.planes.assign(planes, std::vector<uint64_t>(static_cast<size_t>(spec.rows) * words));
  for (size_t p = 0; p < planes; ++p)
    for (size_t i = 0; i < cells; ++i) {
      const size_t row = i / static_cast<size_t>(spec.columns), column = i % static_cast<size_t>(spec.columns);
      tensor.planes[p][row * words + column / 64] |= static_cast<uint64_t>(codes[p * cells + i]) << (column % 64);
    }
  return tensor;
}

}  // namespace

LinearSpec linear_spec(const QuantTensor& tensor) {
  if (tensor.kind == CodeKind::vectors)
    throw ModelError("the runtime has kernels for scalar codes, levels and planes only (not for vector codebooks)");
  const bool planes = tensor.kind == CodeKind::planes;
  if (tensor.axis != GroupAxis::input) throw ModelError("the runtime has kernels for groups along the inputs only");
  if (!tensor.outlier_rows.empty()) throw ModelError("the runtime has no kernel for sparse outliers yet");
  if (!tensor.permutation.empty()) throw ModelError("the runtime has no kernel for permuted columns: use static groups");
  if (!tensor.pre_left.empty() || !tensor.pre_right.empty() || !tensor.input_scales.empty())
    throw ModelError("the runtime has no kernel for transforms of the input that could not be folded");
  const LinearSpec spec{.bits = tensor.bits,
                        .zero = planes && tensor.zero == ZeroKind::symmetric ? PackedZero::integer : packed_zero(tensor.zero),
                        .bfloat = false,
                        .rows = tensor.rows,
                        .columns = tensor.columns,
                        .group_size = tensor.group_size,
                        .codes = packed_codes(tensor),
                        .planes = planes ? tensor.books : 1};
  if (tensor.bits > 8) throw_error<ModelError>("a quantized tensor of {} bits has no kernel; use 1, 2, 3, 4 or 8", tensor.bits);
  check(spec);
  return spec;
}

void pack(const QuantTensor& tensor, std::byte* out) {
  const LinearSpec spec = linear_spec(tensor);
  if (tensor.kind == CodeKind::planes) return pack_planes(tensor, spec, out);
  pack_linear(spec, tensor.codes.data(), tensor.scales.data(),
              spec.zero == PackedZero::integer ? tensor.zero_points.data() : nullptr,
              spec.zero == PackedZero::minimum ? tensor.minimums.data() : nullptr, out,
              spec.codes == PackedCodes::levels ? level_table(tensor).data() : nullptr);
}

QuantTensor unpack(const PackedWeight& weight) {
  const LinearSpec& spec = weight.spec;
  if (spec.bits > 8) throw_error<ModelError>("a weight of {} bits holds no codes to unpack", spec.bits);
  if (spec.planes > 1) return unpack_planes(weight);
  QuantTensor tensor;
  tensor.zero = zero_kind(spec.zero);
  tensor.bits = spec.bits;
  tensor.rows = spec.rows;
  tensor.columns = spec.columns;
  tensor.group_size = spec.group_size;
  const auto groups = static_cast<size_t>(spec.rows * tensor.groups_per_row());
  tensor.codes.resize(static_cast<size_t>(spec.rows * spec.columns));
  tensor.scales.resize(groups);
  if (tensor.zero == ZeroKind::integer) tensor.zero_points.resize(groups);
  if (tensor.zero == ZeroKind::minimum) tensor.minimums.resize(groups);
  std::array<int8_t, 16> table{};
  unpack_linear(spec, weight.data, tensor.codes.data(), tensor.scales.data(),
                tensor.zero == ZeroKind::integer ? tensor.zero_points.data() : nullptr,
                tensor.zero == ZeroKind::minimum ? tensor.minimums.data() : nullptr, table.data());
  if (spec.codes != PackedCodes::plain) tensor.kind = CodeKind::levels;
  if (spec.codes == PackedCodes::trits) tensor.codebook.assign(std::begin(kTrits), std::end(kTrits));
  if (spec.codes == PackedCodes::levels) tensor.codebook.assign(table.begin(), table.begin() + (1 << spec.bits));
  return tensor;
}

}  // namespace lighten
