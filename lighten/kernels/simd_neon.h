// Sixteen lanes on AArch64's NEON: four 128-bit registers behind the names of simd_avx2.h. Integer products by dotprod (SDOT)
// where the translation unit is compiled for it, else by widening products.
#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "lighten/base/half.h"

namespace lighten::kernels {
namespace {

struct Floats {
  float32x4_t a, b, c, d;
};
struct Ints {
  int32x4_t a, b, c, d;
};
struct Bytes {
  uint8x16_t a, b, c, d;
};
struct Mask {
  uint32x4_t a, b, c, d;
};

// Thirty-two registers: the sums of a tile of tokens, four each, the weights and one activation.
#if defined(__ARM_FEATURE_DOTPROD)
inline constexpr int kCodeLanes = 6;    // tokens in a register tile of integer products
inline constexpr int kPackedLanes = 4;  // tokens that are multiplied straight from packed codes, at most
#else
inline constexpr int kCodeLanes = 2;  // sums of 16 and of 32 bits
inline constexpr int kPackedLanes = 2;
#endif
inline constexpr int kCodeTiles = 1;
inline constexpr int kFloatLanes = 6;    // rows or tokens in a register tile of float products
inline constexpr int kValueVectors = 1;  // vectors of a value that meet the weights together

inline Floats load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
inline void store(float* p, Floats v) {
  vst1q_f32(p, v.a);
  vst1q_f32(p + 4, v.b);
  vst1q_f32(p + 8, v.c);
  vst1q_f32(p + 12, v.d);
}
inline Floats set(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {v, v, v, v};
}
inline Floats spread(const float* p) { return set(*p); }
inline Floats zeros() { return set(0.0f); }
inline Floats operator+(Floats x, Floats y) {
  return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
}
inline Floats operator-(Floats x, Floats y) {
  return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)};
}
inline Floats operator*(Floats x, Floats y) {
  return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
}
inline Floats operator/(Floats x, Floats y) {
  return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
}
/// x * y + z, rounded once.
inline Floats fma(Floats x, Floats y, Floats z) {
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
}

inline Mask operator<(Floats x, Floats y) {
  return {vcltq_f32(x.a, y.a), vcltq_f32(x.b, y.b), vcltq_f32(x.c, y.c), vcltq_f32(x.d, y.d)};
}
inline Mask operator==(Floats x, Floats y) {
  return {vceqq_f32(x.a, y.a), vceqq_f32(x.b, y.b), vceqq_f32(x.c, y.c), vceqq_f32(x.d, y.d)};
}
inline Floats select(Mask m, Floats yes, Floats no) {
  return {vbslq_f32(m.a, yes.a, no.a), vbslq_f32(m.b, yes.b, no.b), vbslq_f32(m.c, yes.c, no.c), vbslq_f32(m.d, yes.d, no.d)};
}
/// If a lane is NaN, the result is y's lane (FMIN would give NaN, FMINNM the other number).
inline Floats min(Floats x, Floats y) { return select(x < y, x, y); }
inline Floats max(Floats x, Floats y) { return select(y < x, x, y); }
inline Floats round(Floats x) { return {vrndnq_f32(x.a), vrndnq_f32(x.b), vrndnq_f32(x.c), vrndnq_f32(x.d)}; }
/// Bit i: lane i.
inline uint32_t bits_of(Mask m) {
  const uint8x16_t bytes = vcombine_u8(vmovn_u16(vcombine_u16(vmovn_u32(m.a), vmovn_u32(m.b))),
                                       vmovn_u16(vcombine_u16(vmovn_u32(m.c), vmovn_u32(m.d))));
  const uint8x8_t places = vcreate_u8(0x8040201008040201);
  return vaddv_u8(vand_u8(vget_low_u8(bytes), places)) | static_cast<uint32_t>(vaddv_u8(vand_u8(vget_high_u8(bytes), places)))
                                                             << 8;
}
/// Lanes i with begin <= i < end.
inline Mask lanes_between(int begin, int end) {
  const int32x4_t first = vcombine_s32(vcreate_s32(0x0000000100000000), vcreate_s32(0x0000000300000002));
  const auto inside = [&](int from) {
    const int32x4_t i = vaddq_s32(first, vdupq_n_s32(from));
    return vandq_u32(vcgeq_s32(i, vdupq_n_s32(begin)), vcltq_s32(i, vdupq_n_s32(end)));
  };
  return {inside(0), inside(4), inside(8), inside(12)};
}
inline Floats absolute(Floats x) { return {vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d)}; }
/// |x| with the sign of y.
inline Floats with_sign(Floats x, Floats y) {
  const uint32x4_t sign = vdupq_n_u32(0x80000000);
  return select({sign, sign, sign, sign}, y, x);
}

inline float sum_of(Floats x) { return vaddvq_f32(vaddq_f32(vaddq_f32(x.a, x.b), vaddq_f32(x.c, x.d))); }
/// Lane i of the result is the sum of v[i]'s lanes.
inline Floats sums_of(const Floats v[16]) {
  const auto four = [&](const Floats* w) {
    const auto quarter = [](Floats x) { return vaddq_f32(vaddq_f32(x.a, x.b), vaddq_f32(x.c, x.d)); };
    return vpaddq_f32(vpaddq_f32(quarter(w[0]), quarter(w[1])), vpaddq_f32(quarter(w[2]), quarter(w[3])));
  };
  return {four(v), four(v + 4), four(v + 8), four(v + 12)};
}
inline double double_sum_of(Floats x) {
  const auto two = [](float32x4_t v) { return vaddq_f64(vcvt_f64_f32(vget_low_f32(v)), vcvt_high_f64_f32(v)); };
  return vaddvq_f64(vaddq_f64(vaddq_f64(two(x.a), two(x.b)), vaddq_f64(two(x.c), two(x.d))));
}
inline float max_of(Floats x) {
  const float32x4_t ab = vmaxnmq_f32(x.a, x.b), cd = vmaxnmq_f32(x.c, x.d);
  return vmaxnmvq_f32(vmaxnmq_f32(ab, cd));
}

inline Floats load_half(const Half* p) {
  const auto four = [](const Half* at) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(at))); };
  return {four(p), four(p + 4), four(p + 8), four(p + 12)};
}
inline void store_half(Half* p, Floats v) {
  const auto four = [](Half* at, float32x4_t x) { vst1_u16(at, vreinterpret_u16_f16(vcvt_f16_f32(x))); };
  four(p, v.a);
  four(p + 4, v.b);
  four(p + 8, v.c);
  four(p + 12, v.d);
}

inline void store(int32_t* p, Ints x) {
  vst1q_s32(p, x.a);
  vst1q_s32(p + 4, x.b);
  vst1q_s32(p + 8, x.c);
  vst1q_s32(p + 12, x.d);
}
inline Ints load(const int32_t* p) { return {vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)}; }
inline Ints set(int32_t x) {
  const int32x4_t v = vdupq_n_s32(x);
  return {v, v, v, v};
}
inline Ints operator+(Ints x, Ints y) {
  return {vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b), vaddq_s32(x.c, y.c), vaddq_s32(x.d, y.d)};
}
inline Ints operator-(Ints x, Ints y) {
  return {vsubq_s32(x.a, y.a), vsubq_s32(x.b, y.b), vsubq_s32(x.c, y.c), vsubq_s32(x.d, y.d)};
}
inline Ints operator&(Ints x, Ints y) {
  return {vandq_s32(x.a, y.a), vandq_s32(x.b, y.b), vandq_s32(x.c, y.c), vandq_s32(x.d, y.d)};
}
inline Ints max(Ints x, Ints y) { return {vmaxq_s32(x.a, y.a), vmaxq_s32(x.b, y.b), vmaxq_s32(x.c, y.c), vmaxq_s32(x.d, y.d)}; }
template <int n>
inline Ints shift_left(Ints x) {
  return {vshlq_n_s32(x.a, n), vshlq_n_s32(x.b, n), vshlq_n_s32(x.c, n), vshlq_n_s32(x.d, n)};
}
template <int n>
inline Ints shift_right(Ints x) {
  const auto shift = [](int32x4_t v) { return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(v), n)); };
  return {shift(x.a), shift(x.b), shift(x.c), shift(x.d)};
}
template <int n>
inline Ints shift_right_signed(Ints x) {
  return {vshrq_n_s32(x.a, n), vshrq_n_s32(x.b, n), vshrq_n_s32(x.c, n), vshrq_n_s32(x.d, n)};
}
inline Floats to_floats(Ints x) { return {vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c), vcvtq_f32_s32(x.d)}; }
/// To nearest even; NaN becomes 0.
inline Ints to_ints(Floats x) { return {vcvtnq_s32_f32(x.a), vcvtnq_s32_f32(x.b), vcvtnq_s32_f32(x.c), vcvtnq_s32_f32(x.d)}; }
inline Ints bits_of(Floats x) {
  return {vreinterpretq_s32_f32(x.a), vreinterpretq_s32_f32(x.b), vreinterpretq_s32_f32(x.c), vreinterpretq_s32_f32(x.d)};
}
inline Floats from_bits(Ints x) {
  return {vreinterpretq_f32_s32(x.a), vreinterpretq_f32_s32(x.b), vreinterpretq_f32_s32(x.c), vreinterpretq_f32_s32(x.d)};
}
/// Lanes 0-7 are the 8 fields of `bits` bits at p, lanes 8-15 those at p + bits. Reads up to p + bits + 4.
template <int bits>
inline Ints bit_fields(const uint8_t* p) {
  uint32_t low, high;
  std::memcpy(&low, p, 4);
  std::memcpy(&high, p + bits, 4);
  static constexpr int32_t shifts[8] = {0, -bits, -2 * bits, -3 * bits, -4 * bits, -5 * bits, -6 * bits, -7 * bits};
  const int32x4_t first = vld1q_s32(shifts), second = vld1q_s32(shifts + 4);
  const auto four = [](uint32_t from, int32x4_t shift) {
    return vreinterpretq_s32_u32(vandq_u32(vshlq_u32(vdupq_n_u32(from), shift), vdupq_n_u32((1u << bits) - 1)));
  };
  return {four(low, first), four(low, second), four(high, first), four(high, second)};
}
inline Ints widen_bytes(const uint8_t* p) {
  const uint8x16_t v = vld1q_u8(p);
  const uint16x8_t low = vmovl_u8(vget_low_u8(v)), high = vmovl_high_u8(v);
  return {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_high_u16(low)),
          vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_high_u16(high))};
}
inline Ints widen_signed_bytes(const int8_t* p) {
  const int8x16_t v = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(v)), high = vmovl_high_s8(v);
  return {vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)};
}
/// Lanes in [-128, 127] as 16 bytes, in order.
inline void store_bytes(int8_t* p, Ints x) {
  const int16x8_t low = vcombine_s16(vqmovn_s32(x.a), vqmovn_s32(x.b)), high = vcombine_s16(vqmovn_s32(x.c), vqmovn_s32(x.d));
  vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}
inline int32_t sum_of(Ints x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d))); }
inline int32_t max_of(Ints x) { return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.a, x.b), vmaxq_s32(x.c, x.d))); }
/// x * 2^n for n in [-250, 250], in two exact-enough steps, so that results may be subnormal.
inline Floats scale_by_power(Floats x, Floats n) {
  const Ints whole = to_ints(n), half = shift_right_signed<1>(whole), rest = whole - half;
  return x * from_bits(shift_left<23>(half + set(127))) * from_bits(shift_left<23>(rest + set(127)));
}

inline Bytes load_bytes(const uint8_t* p) { return {vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}; }
inline void store_bytes(uint8_t* p, Bytes v) {
  vst1q_u8(p, v.a);
  vst1q_u8(p + 16, v.b);
  vst1q_u8(p + 32, v.c);
  vst1q_u8(p + 48, v.d);
}
/// (byte >> n) & mask; mask has at most 8 - n bits.
template <int n>
inline Bytes field(Bytes v, uint8_t mask) {
  if constexpr (n > 0) {
    v = {vshrq_n_u8(v.a, n), vshrq_n_u8(v.b, n), vshrq_n_u8(v.c, n), vshrq_n_u8(v.d, n)};
    if (mask == 0xff >> n) return v;
  }
  const uint8x16_t m = vdupq_n_u8(mask);
  return {vandq_u8(v.a, m), vandq_u8(v.b, m), vandq_u8(v.c, m), vandq_u8(v.d, m)};
}
inline Bytes operator|(Bytes x, Bytes y) {
  return {vorrq_u8(x.a, y.a), vorrq_u8(x.b, y.b), vorrq_u8(x.c, y.c), vorrq_u8(x.d, y.d)};
}
inline Bytes operator+(Bytes x, Bytes y) {
  return {vaddq_u8(x.a, y.a), vaddq_u8(x.b, y.b), vaddq_u8(x.c, y.c), vaddq_u8(x.d, y.d)};
}
inline Bytes operator-(Bytes x, Bytes y) {
  return {vsubq_u8(x.a, y.a), vsubq_u8(x.b, y.b), vsubq_u8(x.c, y.c), vsubq_u8(x.d, y.d)};
}
inline Bytes all_bytes(uint8_t x) {
  const uint8x16_t v = vdupq_n_u8(x);
  return {v, v, v, v};
}
inline Bytes no_bytes() { return all_bytes(0); }
/// 0xff where a byte is at least `low`, else 0.
inline Bytes at_least(Bytes x, uint8_t low) {
  const uint8x16_t least = vdupq_n_u8(low);
  return {vcgeq_u8(x.a, least), vcgeq_u8(x.b, least), vcgeq_u8(x.c, least), vcgeq_u8(x.d, least)};
}
/// table[code] for codes below 16.
inline Bytes load_table(const uint8_t* sixteen) {
  const uint8x16_t table = vld1q_u8(sixteen);
  return {table, table, table, table};
}
inline Bytes lookup(Bytes table, Bytes codes) {
  return {vqtbl1q_u8(table.a, codes.a), vqtbl1q_u8(table.b, codes.b), vqtbl1q_u8(table.c, codes.c),
          vqtbl1q_u8(table.d, codes.d)};
}
inline Ints as_ints(Bytes v) {
  return {vreinterpretq_s32_u8(v.a), vreinterpretq_s32_u8(v.b), vreinterpretq_s32_u8(v.c), vreinterpretq_s32_u8(v.d)};
}

/// c * sum in every lane.
inline Ints times_small(Ints c, const int32_t* sum) {
  const int32x4_t s = vdupq_n_s32(*sum);
  return {vmulq_s32(c.a, s), vmulq_s32(c.b, s), vmulq_s32(c.c, s), vmulq_s32(c.d, s)};
}

/// Four activation codes: in the first lane where SDOT takes them from there, else in every lane.
#if defined(__ARM_FEATURE_DOTPROD)
using FourCodes = int8x8_t;
inline FourCodes four_codes(const int8_t* q) {
  uint32_t bytes;
  std::memcpy(&bytes, q, 4);
  return vcreate_s8(bytes);
}
#else
using FourCodes = int8x16_t;
inline FourCodes four_codes(const int8_t* q) {
  uint32_t bytes;
  std::memcpy(&bytes, q, 4);
  return vreinterpretq_s8_u32(vdupq_n_u32(bytes));
}
#endif

struct SignedBytes {
  int8x16_t a, b, c, d;
};
inline SignedBytes as_signed(Bytes v) {
  return {vreinterpretq_s8_u8(v.a), vreinterpretq_s8_u8(v.b), vreinterpretq_s8_u8(v.c), vreinterpretq_s8_u8(v.d)};
}

/// Sixteen sums of four s8 weights x s8 activations each, exact. Weights of `bits` bits have magnitudes below 2^bits (8 bits:
/// up to 128).
#if defined(__ARM_FEATURE_DOTPROD)
template <int bits>
struct SignedDot {
  int32x4_t a = vdupq_n_s32(0), b = a, c = a, d = a;

  void add(const SignedBytes& w, FourCodes x) {
    a = vdotq_lane_s32(a, w.a, x, 0);
    b = vdotq_lane_s32(b, w.b, x, 0);
    c = vdotq_lane_s32(c, w.c, x, 0);
    d = vdotq_lane_s32(d, w.d, x, 0);
    asm("" : "+w"(a), "+w"(b), "+w"(c), "+w"(d));  // left alone, gcc loads the weights of a whole unit first and spills sums
  }
  void end_unit() {}
  Ints result() const { return {a, b, c, d}; }
};
#else
/// Eight products of up to 4 bits fit 16 bits (8 * 15 * 127 < 2^15): they are added up over a unit.
template <int bits>
struct SignedDot {
  struct Quarter {
    int16x8_t low = vdupq_n_s16(0), high = low;
    int32x4_t sum = vdupq_n_s32(0);

    void add(int8x16_t w, int8x16_t x) {
      low = vmlal_s8(low, vget_low_s8(w), vget_low_s8(x));
      high = vmlal_high_s8(high, w, x);
    }
    void end_unit() {
      sum = vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
      low = high = vdupq_n_s16(0);
    }
  };
  Quarter a, b, c, d;

  void add(const SignedBytes& w, FourCodes x) {
    a.add(w.a, x);
    b.add(w.b, x);
    c.add(w.c, x);
    d.add(w.d, x);
  }
  void end_unit() {
    a.end_unit();
    b.end_unit();
    c.end_unit();
    d.end_unit();
  }
  Ints result() const { return {a.sum, b.sum, c.sum, d.sum}; }
};
/// 8 bits: two products fit 16 bits (2 * 128 * 127 < 2^15).
template <>
struct SignedDot<8> {
  int32x4_t a = vdupq_n_s32(0), b = a, c = a, d = a;

  static int32x4_t add(int32x4_t sum, int8x16_t w, int8x16_t x) {
    return vpadalq_s16(sum, vpaddq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x)));
  }
  void add(const SignedBytes& w, FourCodes x) {
    a = add(a, w.a, x);
    b = add(b, w.b, x);
    c = add(c, w.c, x);
    d = add(d, w.d, x);
  }
  void end_unit() {}
  Ints result() const { return {a, b, c, d}; }
};
#endif

/// Codes of up to 4 bits as they are, of 8 bits less 128.
template <int bits>
struct Dot : SignedDot<bits> {
  static constexpr bool kCentered = bits == 8;
  using Weights = SignedBytes;
  static Weights weights(Bytes codes) {
    if constexpr (!kCentered) return as_signed(codes);
    return as_signed(codes - all_bytes(0x80));
  }
};

/// For batches codes are expanded as code - center, so that nothing has to be taken from their sums.
inline constexpr uint8_t kCodeFlip = 0;
template <int bits>
struct BatchDot : SignedDot<bits> {
  using Weights = SignedBytes;
  static Weights weights(Bytes codes) { return as_signed(codes); }
  void start(Ints) { static_cast<SignedDot<bits>&>(*this) = {}; }
  Ints result(Ints, const int32_t*) { return SignedDot<bits>::result(); }
};
/// Expands the codes of a block.
struct Expander {
  Bytes center;
  explicit Expander(Ints centers) {
    const auto spread = [](int32x4_t c) { return vreinterpretq_u8_s32(vmulq_s32(c, vdupq_n_s32(0x01010101))); };
    center = {spread(centers.a), spread(centers.b), spread(centers.c), spread(centers.d)};
  }
  Bytes expand(Bytes codes) const { return codes - center; }
  Ints centers(Ints centers) const { return centers; }  // they are in the codes already
};

/// Lane j of row i <-> lane i of row j.
inline void transpose4(float32x4_t& r0, float32x4_t& r1, float32x4_t& r2, float32x4_t& r3) {
  const auto pairs = [](float32x4_t x, float32x4_t y) {
    return float64x2x2_t{{vreinterpretq_f64_f32(vtrn1q_f32(x, y)), vreinterpretq_f64_f32(vtrn2q_f32(x, y))}};
  };
  const float64x2x2_t upper = pairs(r0, r1), lower = pairs(r2, r3);
  r0 = vreinterpretq_f32_f64(vtrn1q_f64(upper.val[0], lower.val[0]));
  r1 = vreinterpretq_f32_f64(vtrn1q_f64(upper.val[1], lower.val[1]));
  r2 = vreinterpretq_f32_f64(vtrn2q_f64(upper.val[0], lower.val[0]));
  r3 = vreinterpretq_f32_f64(vtrn2q_f64(upper.val[1], lower.val[1]));
}
inline void transpose(Floats rows[16]) {
  using Quarter = float32x4_t Floats::*;
  constexpr Quarter quarters[4] = {&Floats::a, &Floats::b, &Floats::c, &Floats::d};
  for (int i = 0; i < 4; ++i) {
    for (const Quarter q : quarters) transpose4(rows[4 * i].*q, rows[4 * i + 1].*q, rows[4 * i + 2].*q, rows[4 * i + 3].*q);
  }
  for (int i = 0; i < 4; ++i) {
    for (int j = i + 1; j < 4; ++j) {
      for (int k = 0; k < 4; ++k) {
        const float32x4_t above = rows[4 * i + k].*quarters[j];
        rows[4 * i + k].*quarters[j] = rows[4 * j + k].*quarters[i];
        rows[4 * j + k].*quarters[i] = above;
      }
    }
  }
}

}  // namespace
}  // namespace lighten::kernels
