// Sixteen lanes on AVX-512 (F, BW, VL, DQ, VNNI; BF16 where it is asked for): the same names as simd_avx2.h.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "lighten/base/half.h"

namespace lighten::kernels {
namespace {

struct Floats {
  __m512 v;
};
struct Ints {
  __m512i v;
};
struct Bytes {
  __m512i v;
};
struct Mask {
  __mmask16 v;
};

inline constexpr int kCodeLanes = 6;     // tokens in a register tile of integer products
inline constexpr int kCodeTiles = 2;     // tiles of rows in it
inline constexpr int kPackedLanes = 8;   // tokens that are multiplied straight from packed codes, at most
inline constexpr int kFloatLanes = 12;   // rows or tokens in a register tile of float products
inline constexpr int kValueVectors = 4;  // vectors of a value that meet the weights together

inline Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Floats v) { _mm512_storeu_ps(p, v.v); }
inline Floats set(float x) { return {_mm512_set1_ps(x)}; }
inline Floats spread(const float* p) { return {_mm512_set1_ps(*p)}; }
inline Floats zeros() { return {_mm512_setzero_ps()}; }
inline Floats operator+(Floats x, Floats y) { return {_mm512_add_ps(x.v, y.v)}; }
inline Floats operator-(Floats x, Floats y) { return {_mm512_sub_ps(x.v, y.v)}; }
inline Floats operator*(Floats x, Floats y) { return {_mm512_mul_ps(x.v, y.v)}; }
inline Floats operator/(Floats x, Floats y) { return {_mm512_div_ps(x.v, y.v)}; }
/// x * y + z, rounded once.
inline Floats fma(Floats x, Floats y, Floats z) { return {_mm512_fmadd_ps(x.v, y.v, z.v)}; }
/// If a lane is NaN, the result is y's lane.
inline Floats min(Floats x, Floats y) { return {_mm512_min_ps(x.v, y.v)}; }
inline Floats max(Floats x, Floats y) { return {_mm512_max_ps(x.v, y.v)}; }
inline Floats round(Floats x) { return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

inline Mask operator<(Floats x, Floats y) { return {_mm512_cmp_ps_mask(x.v, y.v, _CMP_LT_OQ)}; }
inline Mask operator==(Floats x, Floats y) { return {_mm512_cmp_ps_mask(x.v, y.v, _CMP_EQ_OQ)}; }
inline Floats select(Mask m, Floats yes, Floats no) { return {_mm512_mask_blend_ps(m.v, no.v, yes.v)}; }
/// Bit i: lane i.
inline uint32_t bits_of(Mask m) { return static_cast<uint32_t>(m.v); }
/// Lanes i with begin <= i < end.
inline Mask lanes_between(int begin, int end) {
  const uint32_t below_end = end <= 0 ? 0u : end >= 16 ? 0xffffu : (1u << end) - 1;
  const uint32_t below_begin = begin <= 0 ? 0u : begin >= 16 ? 0xffffu : (1u << begin) - 1;
  return {static_cast<__mmask16>(below_end & ~below_begin)};
}
inline Floats absolute(Floats x) { return {_mm512_abs_ps(x.v)}; }
/// |x| with the sign of y.
inline Floats with_sign(Floats x, Floats y) {
  const __m512 m = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fffffff));
  return {_mm512_or_ps(_mm512_and_ps(x.v, m), _mm512_andnot_ps(m, y.v))};
}

inline float sum_of(Floats x) { return _mm512_reduce_add_ps(x.v); }
inline double double_sum_of(Floats x) {
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(x.v)), high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, 1));
  return _mm512_reduce_add_pd(_mm512_add_pd(low, high));
}
inline float max_of(Floats x) { return _mm512_reduce_max_ps(x.v); }

inline Floats load_half(const Half* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline void store_half(Half* p, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

inline void store(int32_t* p, Ints x) { _mm512_storeu_si512(p, x.v); }
inline Ints load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline Ints set(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline Ints operator+(Ints x, Ints y) { return {_mm512_add_epi32(x.v, y.v)}; }
inline Ints operator-(Ints x, Ints y) { return {_mm512_sub_epi32(x.v, y.v)}; }
inline Ints operator&(Ints x, Ints y) { return {_mm512_and_si512(x.v, y.v)}; }
inline Ints max(Ints x, Ints y) { return {_mm512_max_epi32(x.v, y.v)}; }
template <int n>
inline Ints shift_left(Ints x) {
  return {_mm512_slli_epi32(x.v, n)};
}
template <int n>
inline Ints shift_right(Ints x) {
  return {_mm512_srli_epi32(x.v, n)};
}
inline Floats to_floats(Ints x) { return {_mm512_cvtepi32_ps(x.v)}; }
inline Ints to_ints(Floats x) { return {_mm512_cvtps_epi32(x.v)}; }  // to nearest even
inline Ints bits_of(Floats x) { return {_mm512_castps_si512(x.v)}; }
inline Floats from_bits(Ints x) { return {_mm512_castsi512_ps(x.v)}; }
/// Lanes 0-7 are the 8 fields of `bits` bits at p, lanes 8-15 those at p + bits. Reads up to p + bits + 4.
template <int bits>
inline Ints bit_fields(const uint8_t* p) {
  int32_t low, high;
  std::memcpy(&low, p, 4);
  std::memcpy(&high, p + bits, 4);
  const __m512i shift = _mm512_setr_epi32(0, bits, 2 * bits, 3 * bits, 4 * bits, 5 * bits, 6 * bits, 7 * bits, 0, bits,
                                          2 * bits, 3 * bits, 4 * bits, 5 * bits, 6 * bits, 7 * bits);
  const __m512i both = _mm512_mask_set1_epi32(_mm512_set1_epi32(low), 0xff00, high);
  return {_mm512_and_si512(_mm512_srlv_epi32(both, shift), _mm512_set1_epi32((1 << bits) - 1))};
}
inline Ints widen_bytes(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline Ints widen_signed_bytes(const int8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
/// Lanes in [-128, 127] as 16 bytes, in order.
inline void store_bytes(int8_t* p, Ints x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(x.v)); }
inline int32_t sum_of(Ints x) { return _mm512_reduce_add_epi32(x.v); }
inline int32_t max_of(Ints x) { return _mm512_reduce_max_epi32(x.v); }
/// x * 2^n for whole n; results may be subnormal.
inline Floats scale_by_power(Floats x, Floats n) { return {_mm512_scalef_ps(x.v, n.v)}; }

inline Bytes load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline void store_bytes(uint8_t* p, Bytes v) { _mm512_storeu_si512(p, v.v); }
/// (byte >> n) & mask; mask has at most 8 - n bits.
template <int n>
inline Bytes field(Bytes v, uint8_t mask) {
  const __m512i m = _mm512_set1_epi8(static_cast<char>(mask));
  if constexpr (n == 0) return {_mm512_and_si512(v.v, m)};
  return {_mm512_and_si512(_mm512_srli_epi16(v.v, n), m)};
}
inline Bytes operator|(Bytes x, Bytes y) { return {_mm512_or_si512(x.v, y.v)}; }
inline Ints as_ints(Bytes v) { return {v.v}; }
inline Bytes operator+(Bytes x, Bytes y) { return {_mm512_add_epi8(x.v, y.v)}; }
inline Bytes operator-(Bytes x, Bytes y) { return {_mm512_sub_epi8(x.v, y.v)}; }
inline Bytes no_bytes() { return {_mm512_setzero_si512()}; }
/// 0xff where a byte is at least `low`, else 0; low > 0.
inline Bytes at_least(Bytes x, uint8_t low) {
  return {_mm512_movm_epi8(_mm512_cmpge_epu8_mask(x.v, _mm512_set1_epi8(static_cast<char>(low))))};
}
/// table[code] for codes below 16.
inline Bytes load_table(const uint8_t* sixteen) {
  return {_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)))};
}
inline Bytes lookup(Bytes table, Bytes codes) { return {_mm512_shuffle_epi8(table.v, codes.v)}; }

/// c * sum in every lane, for 0 <= c < 2^15 and |sum| < 2^15.
inline Ints times_small(Ints c, const int32_t* sum) { return {_mm512_madd_epi16(c.v, _mm512_set1_epi32(*sum))}; }

/// Four activation codes in every lane.
inline __m512i four_codes(const int8_t* q) {
  int32_t bytes;
  std::memcpy(&bytes, q, 4);
  return _mm512_set1_epi32(bytes);
}

/// Sixteen sums of u8 codes x s8 activations, exact (VNNI adds four products to 32 bits without saturation).
template <int bits>
struct Dot {
  static constexpr bool kCentered = false;  // 8-bit codes are taken as they are, not less 128
  using Weights = __m512i;
  __m512i sum = _mm512_setzero_si512();

  static Weights weights(Bytes codes) { return codes.v; }
  void add(const Weights& w, __m512i x) { sum = _mm512_dpbusd_epi32(sum, w, x); }
  void end_unit() {}
  Ints result() { return {sum}; }
};

/// The same for batches: codes are expanded as code - center, so that nothing has to be taken from their sums, and activations
/// come as q + 128, of which the start of a sum takes account.
inline constexpr uint8_t kCodeFlip = 0x80;
template <int bits>
struct BatchDot {
  using Weights = __m512i;
  __m512i sum;

  static Weights weights(Bytes codes) { return codes.v; }
  void start(Ints centers) { sum = centers.v; }
  void add(const Weights& w, __m512i x) { sum = _mm512_dpbusd_epi32(sum, x, w); }
  void end_unit() {}
  Ints result(Ints, const int32_t*) { return {sum}; }
};
/// Expands the codes of a block.
struct Expander {
  __m512i center, sum = _mm512_setzero_si512();
  explicit Expander(Ints centers)
      : center(_mm512_shuffle_epi8(centers.v, _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0))) {}
  Bytes expand(Bytes codes) {
    const __m512i w = _mm512_sub_epi8(codes.v, center);
    sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), w);
    return {w};
  }
  /// -128 times the sum of the codes.
  Ints centers(Ints) const { return {_mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), sum), 7)}; }
};

/// Lane j of row i <-> lane i of row j.
inline void transpose(Floats rows[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  __m512 u[16];
  for (int i = 0; i < 16; i += 4) {
    u[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  // u[4g + j] holds, in 128-bit lane l, column 4l + j of rows 4g .. 4g + 3.
  for (int j = 0; j < 4; ++j) {
    const __m512 a = _mm512_shuffle_f32x4(u[j], u[4 + j], 0x88), b = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0x88);
    const __m512 c = _mm512_shuffle_f32x4(u[j], u[4 + j], 0xdd), d = _mm512_shuffle_f32x4(u[8 + j], u[12 + j], 0xdd);
    rows[j].v = _mm512_shuffle_f32x4(a, b, 0x88);
    rows[4 + j].v = _mm512_shuffle_f32x4(c, d, 0x88);
    rows[8 + j].v = _mm512_shuffle_f32x4(a, b, 0xdd);
    rows[12 + j].v = _mm512_shuffle_f32x4(c, d, 0xdd);
  }
}

/// Lane i of the result is the sum of v[i]'s lanes. Leaves v transposed.
inline Floats sums_of(Floats v[16]) {
  transpose(v);
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) v[i] = v[i] + v[i + step];
  }
  return v[0];
}

}  // namespace
}  // namespace lighten::kernels
