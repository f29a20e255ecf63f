// Sixteen lanes on AVX2 + FMA + F16C: pairs of 256-bit registers behind the names that the shared kernels use.
// Included by one translation unit alone, hence the unnamed namespace: nothing compiled for this instruction set may be linked
// into code for another.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "lighten/base/half.h"

namespace lighten::kernels {
namespace {

struct Floats {
  __m256 a, b;
};
struct Ints {
  __m256i a, b;
};
struct Bytes {
  __m256i a, b;
};
struct Mask {
  __m256 a, b;
};

inline constexpr int kCodeLanes = 4;  // tokens in a register tile of integer products
inline constexpr int kCodeTiles = 1;
inline constexpr int kPackedLanes = 4;   // tokens that are multiplied straight from packed codes, at most
inline constexpr int kFloatLanes = 6;    // rows or tokens in a register tile of float products
inline constexpr int kValueVectors = 1;  // vectors of a value that meet the weights together

inline Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, Floats v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
inline Floats set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Floats spread(const float* p) {
  const __m256 v = _mm256_broadcast_ss(p);
  return {v, v};
}
inline Floats zeros() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Floats operator+(Floats x, Floats y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Floats operator-(Floats x, Floats y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline Floats operator*(Floats x, Floats y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Floats operator/(Floats x, Floats y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
/// x * y + z, rounded once.
inline Floats fma(Floats x, Floats y, Floats z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
/// If a lane is NaN, the result is y's lane.
inline Floats min(Floats x, Floats y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline Floats max(Floats x, Floats y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline Floats round(Floats x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}

inline Mask operator<(Floats x, Floats y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)}; }
inline Mask operator==(Floats x, Floats y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ)};
}
inline Floats select(Mask m, Floats yes, Floats no) {
  return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
/// Bit i: lane i.
inline uint32_t bits_of(Mask m) {
  return static_cast<uint32_t>(_mm256_movemask_ps(m.a)) | static_cast<uint32_t>(_mm256_movemask_ps(m.b)) << 8;
}
/// Lanes i with begin <= i < end.
inline Mask lanes_between(int begin, int end) {
  const __m256i i = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), j = _mm256_add_epi32(i, _mm256_set1_epi32(8));
  const __m256i low = _mm256_set1_epi32(begin - 1), high = _mm256_set1_epi32(end);
  return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(i, low), _mm256_cmpgt_epi32(high, i))),
          _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(j, low), _mm256_cmpgt_epi32(high, j)))};
}
inline Floats absolute(Floats x) {
  const __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(x.a, m), _mm256_and_ps(x.b, m)};
}
/// |x| with the sign of y.
inline Floats with_sign(Floats x, Floats y) {
  const __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_or_ps(_mm256_and_ps(x.a, m), _mm256_andnot_ps(m, y.a)),
          _mm256_or_ps(_mm256_and_ps(x.b, m), _mm256_andnot_ps(m, y.b))};
}

inline float sum_of(Floats x) {
  const __m256 v = _mm256_add_ps(x.a, x.b);
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
/// Lane i of the result is the sum of v[i]'s lanes.
inline Floats sums_of(const Floats v[16]) {
  __m256 quarters[4];  // four sums each, the halves of the registers still apart
  for (int i = 0; i < 4; ++i) {
    const Floats* w = v + 4 * i;
    quarters[i] = _mm256_hadd_ps(_mm256_hadd_ps(_mm256_add_ps(w[0].a, w[0].b), _mm256_add_ps(w[1].a, w[1].b)),
                                 _mm256_hadd_ps(_mm256_add_ps(w[2].a, w[2].b), _mm256_add_ps(w[3].a, w[3].b)));
  }
  return {_mm256_add_ps(_mm256_permute2f128_ps(quarters[0], quarters[1], 0x20),
                        _mm256_permute2f128_ps(quarters[0], quarters[1], 0x31)),
          _mm256_add_ps(_mm256_permute2f128_ps(quarters[2], quarters[3], 0x20),
                        _mm256_permute2f128_ps(quarters[2], quarters[3], 0x31))};
}
inline double double_sum_of(Floats x) {
  const __m256d low =
      _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x.a)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.a, 1)));
  const __m256d high =
      _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(x.b)), _mm256_cvtps_pd(_mm256_extractf128_ps(x.b, 1)));
  const __m256d v = _mm256_add_pd(low, high);
  const __m128d s = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}
inline float max_of(Floats x) {
  const __m256 v = _mm256_max_ps(x.a, x.b);
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

inline Floats load_half(const Half* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline void store_half(Half* p, Floats v) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.a, mode));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(v.b, mode));
}

inline void store(int32_t* p, Ints x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), x.b);
}
inline Ints load(const int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
inline Ints set(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline Ints operator+(Ints x, Ints y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline Ints operator-(Ints x, Ints y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
inline Ints operator&(Ints x, Ints y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
inline Ints max(Ints x, Ints y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
template <int n>
inline Ints shift_left(Ints x) {
  return {_mm256_slli_epi32(x.a, n), _mm256_slli_epi32(x.b, n)};
}
template <int n>
inline Ints shift_right(Ints x) {
  return {_mm256_srli_epi32(x.a, n), _mm256_srli_epi32(x.b, n)};
}
template <int n>
inline Ints shift_right_signed(Ints x) {
  return {_mm256_srai_epi32(x.a, n), _mm256_srai_epi32(x.b, n)};
}
inline Floats to_floats(Ints x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline Ints to_ints(Floats x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }  // to nearest even
inline Ints bits_of(Floats x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
inline Floats from_bits(Ints x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
/// Lanes 0-7 are the 8 fields of `bits` bits at p, lanes 8-15 those at p + bits. Reads up to p + bits + 4.
template <int bits>
inline Ints bit_fields(const uint8_t* p) {
  int32_t low, high;
  std::memcpy(&low, p, 4);
  std::memcpy(&high, p + bits, 4);
  const __m256i shift = _mm256_setr_epi32(0, bits, 2 * bits, 3 * bits, 4 * bits, 5 * bits, 6 * bits, 7 * bits);
  const __m256i mask = _mm256_set1_epi32((1 << bits) - 1);
  return {_mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(low), shift), mask),
          _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(high), shift), mask)};
}
inline Ints widen_bytes(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline Ints widen_signed_bytes(const int8_t* p) {
  return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8)))};
}
/// Lanes in [-128, 127] as 16 bytes, in order.
inline void store_bytes(int8_t* p, Ints x) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
inline int32_t sum_of(Ints x) {
  const __m256i v = _mm256_add_epi32(x.a, x.b);
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
inline int32_t max_of(Ints x) {
  const __m256i v = _mm256_max_epi32(x.a, x.b);
  __m128i s = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
/// x * 2^n for n in [-250, 250], in two exact-enough steps, so that results may be subnormal.
inline Floats scale_by_power(Floats x, Floats n) {
  const Ints whole = to_ints(n), half = shift_right_signed<1>(whole), rest = whole - half;
  return x * from_bits(shift_left<23>(half + set(127))) * from_bits(shift_left<23>(rest + set(127)));
}

inline Bytes load_bytes(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
inline void store_bytes(uint8_t* p, Bytes v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), v.b);
}
/// (byte >> n) & mask; mask has at most 8 - n bits.
template <int n>
inline Bytes field(Bytes v, uint8_t mask) {
  const __m256i m = _mm256_set1_epi8(static_cast<char>(mask));
  if constexpr (n == 0) return {_mm256_and_si256(v.a, m), _mm256_and_si256(v.b, m)};
  return {_mm256_and_si256(_mm256_srli_epi16(v.a, n), m), _mm256_and_si256(_mm256_srli_epi16(v.b, n), m)};
}
inline Bytes operator|(Bytes x, Bytes y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
inline Ints as_ints(Bytes v) { return {v.a, v.b}; }
inline Bytes operator+(Bytes x, Bytes y) { return {_mm256_add_epi8(x.a, y.a), _mm256_add_epi8(x.b, y.b)}; }
inline Bytes operator-(Bytes x, Bytes y) { return {_mm256_sub_epi8(x.a, y.a), _mm256_sub_epi8(x.b, y.b)}; }
inline Bytes no_bytes() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
/// 0xff where a byte is at least `low`, else 0; low > 0.
inline Bytes at_least(Bytes x, uint8_t low) {
  const __m256i least = _mm256_set1_epi8(static_cast<char>(low));
  return {_mm256_cmpeq_epi8(_mm256_max_epu8(x.a, least), x.a), _mm256_cmpeq_epi8(_mm256_max_epu8(x.b, least), x.b)};
}
/// table[code] for codes below 16.
inline Bytes load_table(const uint8_t* sixteen) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(sixteen)));
  return {table, table};
}
inline Bytes lookup(Bytes table, Bytes codes) {
  return {_mm256_shuffle_epi8(table.a, codes.a), _mm256_shuffle_epi8(table.b, codes.b)};
}

/// Left alone, gcc takes the sums of a whole unit apart, computes all products first and spills them.
inline void keep_order(__m256i& a, __m256i& b) { asm("" : "+x"(a), "+x"(b)); }

/// c * sum in every lane, for 0 <= c < 2^15 and |sum| < 2^15.
inline Ints times_small(Ints c, const int32_t* sum) {
  const __m256i s = _mm256_set1_epi32(*sum);
  return {_mm256_madd_epi16(c.a, s), _mm256_madd_epi16(c.b, s)};
}

/// Four activation codes in every lane.
inline __m256i four_codes(const int8_t* q) {
  int32_t bytes;
  std::memcpy(&bytes, q, 4);
  return _mm256_set1_epi32(bytes);
}

/// Sixteen sums of u8 codes x s8 activations, exact. Codes of at most 4 bits: 8 chunks of pair sums fit 16 bits (8 * 2 * 15 *
/// 127 < 2^15), of 3 bits 16.
template <int bits>
struct Dot {
  static constexpr bool kCentered = false;
  static constexpr bool kLong = bits < 4;  // pair sums may run over two units
  struct Weights {
    __m256i a, b;
  };
  __m256i pairs_a = _mm256_setzero_si256(), pairs_b = _mm256_setzero_si256();
  __m256i sum_a = _mm256_setzero_si256(), sum_b = _mm256_setzero_si256();

  static Weights weights(Bytes codes) { return {codes.a, codes.b}; }
  void add(const Weights& w, __m256i x) {
    pairs_a = _mm256_add_epi16(pairs_a, _mm256_maddubs_epi16(w.a, x));
    pairs_b = _mm256_add_epi16(pairs_b, _mm256_maddubs_epi16(w.b, x));
    keep_order(pairs_a, pairs_b);
  }
  void end_unit() {
    if constexpr (!kLong) flush();
  }
  void flush() {
    const __m256i ones = _mm256_set1_epi16(1);
    sum_a = _mm256_add_epi32(sum_a, _mm256_madd_epi16(pairs_a, ones));
    sum_b = _mm256_add_epi32(sum_b, _mm256_madd_epi16(pairs_b, ones));
    pairs_a = pairs_b = _mm256_setzero_si256();
  }
  Ints result() {
    if constexpr (kLong) flush();
    return {sum_a, sum_b};
  }
};

/// 8 bits: with w = code - 128, |w| <= 128 times +-127 twice still fits 16 bits.
template <>
struct Dot<8> {
  static constexpr bool kCentered = true;
  struct Weights {
    __m256i magnitude_a, magnitude_b, a, b;
  };
  __m256i sum_a = _mm256_setzero_si256(), sum_b = _mm256_setzero_si256();

  static Weights weights(Bytes v) {
    const __m256i flip = _mm256_set1_epi8(static_cast<char>(0x80));
    const __m256i a = _mm256_xor_si256(v.a, flip), b = _mm256_xor_si256(v.b, flip);
    return {_mm256_abs_epi8(a), _mm256_abs_epi8(b), a, b};
  }
  void add(const Weights& w, __m256i x) {
    const __m256i ones = _mm256_set1_epi16(1);
    sum_a = _mm256_add_epi32(sum_a, _mm256_madd_epi16(_mm256_maddubs_epi16(w.magnitude_a, _mm256_sign_epi8(x, w.a)), ones));
    sum_b = _mm256_add_epi32(sum_b, _mm256_madd_epi16(_mm256_maddubs_epi16(w.magnitude_b, _mm256_sign_epi8(x, w.b)), ones));
    keep_order(sum_a, sum_b);
  }
  void end_unit() {}
  Ints result() { return {sum_a, sum_b}; }
};

inline constexpr uint8_t kCodeFlip = 0;
template <int bits>
struct BatchDot : Dot<bits> {
  void start(Ints) { static_cast<Dot<bits>&>(*this) = {}; }
  Ints result(Ints centers, const int32_t* q_sum) {
    const Ints sum = Dot<bits>::result();
    if constexpr (Dot<bits>::kCentered) return sum;
    return sum - times_small(centers, q_sum);
  }
};
/// Expands the codes of a block, as they are.
struct Expander {
  explicit Expander(Ints) {}
  Bytes expand(Bytes codes) { return codes; }
  Ints centers(Ints centers) const { return centers; }
};

inline void transpose8(__m256 r[8]) {
  __m256 t[8], u[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}
/// Lane j of row i <-> lane i of row j.
inline void transpose(Floats rows[16]) {
  __m256 block[2][2][8];  // [rows 0-7 or 8-15][lanes 0-7 or 8-15]
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 8; ++i) {
      block[h][0][i] = rows[8 * h + i].a;
      block[h][1][i] = rows[8 * h + i].b;
    }
    transpose8(block[h][0]);
    transpose8(block[h][1]);
  }
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 8; ++i) rows[8 * h + i] = {block[0][h][i], block[1][h][i]};
  }
}

}  // namespace
}  // namespace lighten::kernels
