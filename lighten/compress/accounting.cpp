#include "lighten/compress/accounting.h"

namespace lighten {

double BitAccount::effective_bits() const {
  return weights == 0 ? 0.0 : static_cast<double>(total()) / static_cast<double>(weights);
}

void BitAccount::add(const QuantTensor& tensor) {
  const auto bits = static_cast<uint64_t>(tensor.bits);
  const uint64_t codes = (tensor.codes.size() + tensor.wide_codes.size()) * bits;
  const uint64_t scales = (tensor.scales.size() + tensor.plane_scales.size()) * 16;
  const uint64_t zeros = tensor.zero_points.size() * bits + tensor.minimums.size() * 16;
  weights += static_cast<uint64_t>(tensor.rows * tensor.columns);
  code_bits += codes;
  scale_bits += scales;
  zero_bits += zeros;
  other_bits += packed_bits(tensor) - codes - scales - zeros;
}

void BitAccount::add_float(uint64_t elements, int bits) {
  weights += elements;
  code_bits += elements * static_cast<uint64_t>(bits);
}

Json BitAccount::json() const {
  return {{"weights", weights},     {"code_bits", code_bits},   {"scale_bits", scale_bits},
          {"zero_bits", zero_bits}, {"other_bits", other_bits}, {"effective_bits", effective_bits()}};
}

}  // namespace lighten
