// 16-bit floats as bits: conversions that round to nearest even, exact for NaN and infinities.
#pragma once
#include <bit>
#include <cstdint>

namespace lighten {

using Half = uint16_t;      ///< IEEE binary16, as bits
using BFloat16 = uint16_t;  ///< bfloat16, as bits

inline float half_to_float(Half h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 0x1fu;
  const uint32_t mantissa = h & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float value = static_cast<float>(mantissa) * 0x1p-24f;  // zero and subnormals, exact
  return sign ? -value : value;
}

inline Half float_to_half(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<Half>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));  // NaN
  if (magnitude >= 0x477ff000u) return static_cast<Half>(sign | 0x7c00u);                                // rounds to infinity
  if (magnitude < 0x38800000u) {                                                                         // subnormal or zero
    // Adding 0.5 (whose last place is 2^-24) lets the FPU round to the subnormal grid.
    const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<Half>(sign | (std::bit_cast<uint32_t>(rounded) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<Half>(sign | ((rounded - 0x38000000u) >> 13));
}

inline float bfloat16_to_float(BFloat16 b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }

inline BFloat16 float_to_bfloat16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<BFloat16>((bits >> 16) | 0x40u);
  return static_cast<BFloat16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/// The value that a float has after being stored as binary16.
inline float round_to_half(float f) { return half_to_float(float_to_half(f)); }

}  // namespace lighten
