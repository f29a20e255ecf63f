// gcc 12 takes the deliberately undefined operands inside its own intrinsics for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "lighten/kernels/simd_avx512.h"
// The lanes come first: the shared kernels are written on them.
#include "lighten/kernels/decoder_simd.h"
#include "lighten/kernels/linear_simd.h"

namespace lighten::kernels {
namespace {

template <int lanes>
void multiply_bfloat16(const BFloat16* w, const BFloat16* x, int64_t pairs, float* y) {
  constexpr int chains = lanes <= 2 ? 4 : lanes <= 4 ? 2 : 1;
  __m512 sum[lanes * chains];
  repeat<lanes * chains>([&](auto i)
                             LIGHTEN_INLINE { sum[i] = i < lanes ? _mm512_loadu_ps(y + i * kTileRows) : _mm512_setzero_ps(); });
  const auto add_pair = [&](int64_t p, auto i) LIGHTEN_INLINE {
    const auto v = reinterpret_cast<__m512bh>(_mm512_loadu_si512(w + p * kTileRows * 2));
    repeat<lanes>([&](auto t) LIGHTEN_INLINE {
      int32_t two;
      std::memcpy(&two, x + (p * lanes + t) * 2, 4);
      sum[i * lanes + t] = _mm512_dpbf16_ps(sum[i * lanes + t], v, reinterpret_cast<__m512bh>(_mm512_set1_epi32(two)));
    });
  };
  int64_t p = 0;
  for (; p + chains <= pairs; p += chains) repeat<chains>([&](auto i) LIGHTEN_INLINE { add_pair(p + i, i); });
  for (; p < pairs; ++p) add_pair(p, std::integral_constant<int, 0>{});
  repeat<(chains - 1) * lanes>([&](auto i) LIGHTEN_INLINE { sum[i % lanes] = _mm512_add_ps(sum[i % lanes], sum[lanes + i]); });
  repeat<lanes>([&](auto t) LIGHTEN_INLINE { _mm512_storeu_ps(y + t * kTileRows, sum[t]); });
}

using MultiplyBFloat16 = void (*)(const BFloat16*, const BFloat16*, int64_t, float*);
template <int... n>
inline MultiplyBFloat16 multiply_bfloat16_for(int lanes, std::integer_sequence<int, n...>) {
  static constexpr MultiplyBFloat16 functions[] = {multiply_bfloat16<n + 1>...};
  return functions[lanes - 1];
}
void multiply_bfloat16_any(const BFloat16* w, const BFloat16* x, int64_t pairs, int lanes, float* y) {
  multiply_bfloat16_for(lanes, std::make_integer_sequence<int, kFloatLanes>{})(w, x, pairs, y);
}

}  // namespace

KernelTable avx512_table(bool bfloat16) {
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
          .multiply_bfloat16 = bfloat16 ? multiply_bfloat16_any : nullptr,
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

}  // namespace lighten::kernels
