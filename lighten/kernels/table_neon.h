// The shared kernels on NEON; included by one translation unit for each choice of processor features.
#pragma once
#include "lighten/kernels/simd_neon.h"
// The lanes come first: the shared kernels are written on them.
#include "lighten/kernels/decoder_simd.h"
#include "lighten/kernels/linear_simd.h"

namespace lighten::kernels {
namespace {

inline KernelTable table_of_lanes() {
  return {.code_lanes = kCodeLanes,
          .code_tiles = kCodeTiles,
          .code_flip = kCodeFlip,
          .packed_lanes = kPackedLanes,
          .float_lanes = kFloatLanes,
          .quantize = quantize,
          .expand = expand,
          .multiply_codes = multiply_codes_any,
          .multiply_packed = multiply_packed_any,
          .dequantize = dequantize,
          .multiply_floats = multiply_floats_any,
          .multiply_bfloat16 = nullptr,
          .attend = attend,
          .rms_norm = rms_norm,
          .rope = rope,
          .silu_mul = silu_mul,
          .gelu_tanh_mul = gelu_tanh_mul,
          .add = add,
          .to_half = to_half,
          .log_sum_exp = log_sum_exp,
          .argmax = argmax};
}

}  // namespace
}  // namespace lighten::kernels
