// What one warp does: codes out of words, 16 x 8 x 16 products. See kernels/device_layout.h for the order of the codes.
#pragma once
#include <cuda_fp16.h>

#include <cstdint>

namespace lighten::cuda {

template <int kBits>
struct Codes {
  uint32_t w[kBits];
};

/// A lane's words of a block, past the first-level cache: each is read once.
template <int kBits>
__device__ __forceinline__ Codes<kBits> load_codes(const uint32_t* tile, int block, int lane) {
  const uint32_t* at = tile + static_cast<size_t>(block) * 32 * kBits;
  Codes<kBits> c;
  if constexpr (kBits == 2 || kBits == 3) {
    const uint2 v = __ldcs(reinterpret_cast<const uint2*>(at) + lane);
    c.w[0] = v.x, c.w[1] = v.y;
    if constexpr (kBits == 3) c.w[2] = __ldcs(at + 64 + lane);
  } else {
#pragma unroll
    for (int i = 0; i < kBits / 4; ++i) {
      const uint4 v = __ldcs(reinterpret_cast<const uint4*>(at) + i * 32 + lane);
      c.w[4 * i] = v.x, c.w[4 * i + 1] = v.y, c.w[4 * i + 2] = v.z, c.w[4 * i + 3] = v.w;
    }
  }
  return c;
}

/// Places of a code in a word: the first ones are where a binary16 number has its fraction, the others after one shift.
template <int kBits>
inline constexpr int kFields = kBits == 8   ? 1
                               : kBits == 4 ? 2
                               : kBits == 3 ? 3
                                            : 4;

__device__ __forceinline__ __half2 half2_of(uint32_t bits) { return *reinterpret_cast<const __half2*>(&bits); }
__device__ __forceinline__ uint32_t bits_of(__half2 h) { return *reinterpret_cast<const uint32_t*>(&h); }

/// 1024 in both halves (8 bits: 0x64 in every byte). The kernels read it from their parameters: as a constant in the code it
/// would take an operation more for every pair, since one operation takes one constant.
template <int kBits>
inline constexpr uint32_t kMagic = kBits == 8 ? 0x64646464u : 0x64006400u;

/// Pair kPair as 1024 + code * 2^(kBits * field): the code put into the fraction of 1024.
template <int kBits, int kPair>
__device__ __forceinline__ __half2 raw_pair(const Codes<kBits>& c, uint32_t magic) {
  if constexpr (kBits == 8) {
    return half2_of(__byte_perm(c.w[kPair / 2], magic, kPair % 2 == 0 ? 0x4140 : 0x4342));
  } else if constexpr (kBits == 3 && kPair == 15) {
    const uint32_t code = (c.w[0] >> 15 & 0x00010001u) | (c.w[1] >> 14 & 0x00020002u) | (c.w[2] >> 13 & 0x00040004u);
    return half2_of(code | magic);
  } else {
    constexpr int per_word = kBits == 3 ? 5 : 16 / kBits, place = kPair % per_word, fields = kFields<kBits>;
    constexpr uint32_t one = ((1u << kBits) - 1) << (kBits * (place % fields)), mask = one | one << 16;
    const uint32_t word = place < fields ? c.w[kPair / per_word] : c.w[kPair / per_word] >> (kBits * fields);
    return half2_of((word & mask) | magic);
  }
}
template <int kBits, int kPair>
inline constexpr int kFieldOf = kBits == 8 || (kBits == 3 && kPair == 15)
                                    ? 0
                                    : kPair % (kBits == 3 ? 5 : 16 / kBits) % kFields<kBits>;

/// -(1024 2^(-kBits field) + zero) for every field: code - zero = raw 2^(-kBits field) + that, exact.
template <int kBits>
struct Adds {
  __half2 of[kFields<kBits>];
};
/// Of a zero that is the same everywhere.
template <int kBits>
__device__ __forceinline__ Adds<kBits> constant_adds(int zero) {
  Adds<kBits> a;
#pragma unroll
  for (int f = 0; f < kFields<kBits>; ++f)
    a.of[f] = __float2half2_rn(-1024.0f / static_cast<float>(1 << (kBits * f)) - static_cast<float>(zero));
  return a;
}
template <int kBits>
__device__ __forceinline__ Adds<kBits> adds_of(__half2 zero) {
  Adds<kBits> a;
#pragma unroll
  for (int f = 0; f < kFields<kBits>; ++f)
    a.of[f] = __hsub2(__float2half2_rn(-1024.0f / static_cast<float>(1 << (kBits * f))), zero);
  return a;
}

/// code - zero of pair kPair, whose row is the upper one where kPair is odd.
template <int kBits, int kPair>
__device__ __forceinline__ __half2 centered_pair(const Codes<kBits>& c, const Adds<kBits> (&adds)[2], uint32_t magic) {
  constexpr int field = kFieldOf<kBits, kPair>;
  const __half2 raw = raw_pair<kBits, kPair>(c, magic), add = adds[kPair % 2].of[field];
  if constexpr (field == 0) return __hadd2(raw, add);
  return __hfma2(raw, __float2half2_rn(1.0f / static_cast<float>(1 << (kBits * field))), add);
}

/// Registers of step kStep.
template <int kBits, int kStep>
__device__ __forceinline__ void centered_step(const Codes<kBits>& c, const Adds<kBits> (&adds)[2], uint32_t magic,
                                              uint32_t (&a)[4]) {
  a[0] = bits_of(centered_pair<kBits, 4 * kStep>(c, adds, magic));
  a[1] = bits_of(centered_pair<kBits, 4 * kStep + 1>(c, adds, magic));
  a[2] = bits_of(centered_pair<kBits, 4 * kStep + 2>(c, adds, magic));
  a[3] = bits_of(centered_pair<kBits, 4 * kStep + 3>(c, adds, magic));
}

/// d += a [16 x 16] b [16 x 8]. d: row g, columns 2 t and 2 t + 1, then row g + 8.
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// Scales and zeros of a group for a lane's two rows.
struct Factors {
  __half2 scale, zero;  ///< zero: the code that means 0, or the minimum
};
template <int kBits, bool kMinimum>
__device__ __forceinline__ Factors load_factors(const __half2* scales, const uint8_t* zeros, uint32_t group, int g,
                                                int center) {
  Factors f;
  f.scale = __ldg(scales + group * 8 + g);
  if constexpr (kMinimum) {
    f.zero = __ldg(reinterpret_cast<const __half2*>(zeros) + group * 8 + g);
  } else if (zeros == nullptr) {
    f.zero = __float2half2_rn(static_cast<float>(center));
  } else if constexpr (kBits == 8) {
    const uint32_t pair = __ldg(reinterpret_cast<const uint16_t*>(zeros) + group * 8 + g);
    f.zero = __hsub2(half2_of((pair & 255u) | (pair >> 8) << 16 | 0x64006400u), __float2half2_rn(1024.0f));
  } else {
    const uint32_t pair = __ldg(zeros + group * 8 + g);
    f.zero = __hsub2(half2_of((pair & 15u) | (pair >> 4) << 16 | 0x64006400u), __float2half2_rn(1024.0f));
  }
  return f;
}
/// Of both rows.
template <int kBits, bool kMinimum>
__device__ __forceinline__ void set_adds(const Factors& f, Adds<kBits> (&adds)[2]) {
  const __half2 zero = kMinimum ? __float2half2_rn(0.0f) : f.zero;
  adds[0] = adds_of<kBits>(__low2half2(zero));
  adds[1] = adds_of<kBits>(__high2half2(zero));
}

}  // namespace lighten::cuda
