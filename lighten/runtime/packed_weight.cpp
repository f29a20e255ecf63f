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
  if (tensor.kind == CodeKind::scalar) return PackedCodes::plain;
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

}  // namespace

LinearSpec linear_spec(const QuantTensor& tensor) {
  if (tensor.kind != CodeKind::scalar && tensor.kind != CodeKind::levels)
    throw ModelError("the runtime has kernels for scalar codes and levels only (not planes or vector codebooks)");
  if (tensor.axis != GroupAxis::input) throw ModelError("the runtime has kernels for groups along the inputs only");
  if (!tensor.outlier_rows.empty()) throw ModelError("the runtime has no kernel for sparse outliers yet");
  if (!tensor.permutation.empty()) throw ModelError("the runtime has no kernel for permuted columns: use static groups");
  if (!tensor.pre_left.empty() || !tensor.pre_right.empty() || !tensor.input_scales.empty())
    throw ModelError("the runtime has no kernel for transforms of the input that could not be folded");
  const LinearSpec spec{.bits = tensor.bits,
                        .zero = packed_zero(tensor.zero),
                        .bfloat = false,
                        .rows = tensor.rows,
                        .columns = tensor.columns,
                        .group_size = tensor.group_size,
                        .codes = packed_codes(tensor)};
  if (tensor.bits > 8) throw_error<ModelError>("a quantized tensor of {} bits has no kernel; use 1, 2, 3, 4 or 8", tensor.bits);
  check(spec);
  return spec;
}

void pack(const QuantTensor& tensor, std::byte* out) {
  const LinearSpec spec = linear_spec(tensor);
  pack_linear(spec, tensor.codes.data(), tensor.scales.data(),
              spec.zero == PackedZero::integer ? tensor.zero_points.data() : nullptr,
              spec.zero == PackedZero::minimum ? tensor.minimums.data() : nullptr, out,
              spec.codes == PackedCodes::levels ? level_table(tensor).data() : nullptr);
}

QuantTensor unpack(const PackedWeight& weight) {
  const LinearSpec& spec = weight.spec;
  if (spec.bits > 8) throw_error<ModelError>("a weight of {} bits holds no codes to unpack", spec.bits);
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
