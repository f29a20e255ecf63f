// How many bits a representation really takes: codes, scales, zeros, codebooks, masks, permutations, transforms.
#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "lighten/base/options.h"
#include "lighten/formats/quant_tensor.h"

namespace lighten {

/// Sums over tensors; effective bits compare methods only at matched values (within 0.05).
struct BitAccount {
  uint64_t weights = 0;  ///< parameters of the counted tensors
  uint64_t code_bits = 0, scale_bits = 0, zero_bits = 0, other_bits = 0;
  uint64_t total() const { return code_bits + scale_bits + zero_bits + other_bits; }
  double effective_bits() const;  ///< total / weights
  void add(const QuantTensor& tensor);
  void add_float(uint64_t elements, int bits);
  Json json() const;
};

}  // namespace lighten
