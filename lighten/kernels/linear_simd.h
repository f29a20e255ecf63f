// The linear kernels on the sixteen lanes of simd_*.h, one lane per row of a tile. Included after one of those, by one
// translation unit each.
#pragma once
#include <cstring>
#include <utility>

#include "lighten/kernels/kernel_table.h"

namespace lighten::kernels {
namespace {

inline void quantize(const float* x, int64_t blocks, int block, int lanes, int8_t* q, float* scale, float* sum,
                     int32_t* code_sum) {
  const Ints magnitude = set(0x7fffffff);
  for (int64_t b = 0; b < blocks; ++b, x += block) {
    Ints largest_bits = set(0);  // as integers, so that a NaN wins and poisons the scale
    for (int i = 0; i < block; i += 16) largest_bits = max(largest_bits, bits_of(load(x + i)) & magnitude);
    const int32_t bits = max_of(largest_bits);
    float largest;
    std::memcpy(&largest, &bits, sizeof(largest));
    const Floats inverse = set(largest > kSmallestActivation ? 127.0f / largest : 0.0f);
    Ints total = set(0);
    for (int i = 0; i < block; i += 16) {
      const Ints rounded = to_ints(load(x + i) * inverse);
      total = total + rounded;
      int8_t bytes[16];
      store_bytes(bytes, rounded);
      for (int c = 0; c < 4; ++c) {
        std::memcpy(q, bytes + c * kChunkInputs, kChunkInputs);
        q += lanes * kChunkInputs;
      }
    }
    scale[b * lanes] = largest / 127.0f;
    code_sum[b * lanes] = sum_of(total);
    sum[b * lanes] = scale[b * lanes] * static_cast<float>(code_sum[b * lanes]);
  }
}

template <int bits>
inline void expand_unit(const uint8_t* unit, uint8_t* codes) {
  constexpr uint8_t mask = (1 << bits) - 1;
  const auto put = [&](int chunk, Bytes v) { store_bytes(codes + chunk * kChunkCodes, v); };
  if constexpr (bits == 8) {
    for (int p = 0; p < 8; ++p) put(p, load_bytes(unit + 64 * p));
  } else if constexpr (bits == 4) {
    for (int p = 0; p < 4; ++p) {
      const Bytes v = load_bytes(unit + 64 * p);
      put(2 * p, field<0>(v, mask));
      put(2 * p + 1, field<4>(v, mask));
    }
  } else if constexpr (bits == 3) {
    const Bytes v[3] = {load_bytes(unit), load_bytes(unit + 64), load_bytes(unit + 128)};
    for (int p = 0; p < 3; ++p) {
      put(2 * p, field<0>(v[p], mask));
      put(2 * p + 1, field<3>(v[p], mask));
    }
    put(6, field<6>(v[0], 3) | field<4>(v[2], 4));
    put(7, field<6>(v[1], 3) | field<5>(v[2], 4));
  } else {
    for (int p = 0; p < 2; ++p) {
      const Bytes v = load_bytes(unit + 64 * p);
      put(4 * p, field<0>(v, mask));
      put(4 * p + 1, field<2>(v, mask));
      put(4 * p + 2, field<4>(v, mask));
      put(4 * p + 3, field<6>(v, mask));
    }
  }
}

template <int bits>
inline void expand_units(const uint8_t* units, int64_t n, uint8_t* codes) {
  for (int64_t u = 0; u < n; ++u) expand_unit<bits>(units + u * 64 * bits, codes + u * kUnitChunks * kChunkCodes);
}

inline void expand_codes(int bits, const uint8_t* units, int64_t n, uint8_t* codes) {
  if (bits == 2) expand_units<2>(units, n, codes);
  if (bits == 3) expand_units<3>(units, n, codes);
  if (bits == 4) expand_units<4>(units, n, codes);
  if (bits == 8) expand_units<8>(units, n, codes);
}

/// scale and offset of group g: w = scale * q + offset.
inline void group_factors(const Layout& l, const uint8_t* tile, int64_t g, Floats& scale, Floats& offset) {
  const uint8_t* zeros_at = tile + l.zero_offset + static_cast<size_t>(g) * l.zero_group_bytes();
  scale = load_half(reinterpret_cast<const Half*>(tile) + g * kTileRows);
  if (l.zero == PackedZero::minimum) {
    offset = load_half(reinterpret_cast<const Half*>(zeros_at));
  } else if (l.zero == PackedZero::symmetric) {
    offset = scale * set(-static_cast<float>(1 << (l.bits - 1)));
  } else {
    const Ints zero = l.bits == 8 ? widen_bytes(zeros_at) : bit_fields(zeros_at, l.bits);
    offset = zeros() - scale * to_floats(zero);
  }
}

inline void block_factors(const Layout& l, const uint8_t* tile, int64_t first, int64_t blocks, float* scale, float* offset) {
  Floats s = zeros(), o = zeros();
  int64_t known = -1;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t g = (first + b) * l.block / l.group_columns;
    if (g != known) group_factors(l, tile, g, s, o);
    known = g;
    store(scale + b * kTileRows, s);
    store(offset + b * kTileRows, o);
  }
}

template <int bits, int lanes>
void multiply_codes(const uint8_t* codes, const float* scale, const float* offset, int block, int64_t blocks,
                    const CodePanel& panel, float* y) {
  const int8_t* q = panel.q;
  const int units = block / kUnitInputs;
  for (int64_t b = 0; b < blocks; ++b) {
    Dot<bits> dot[lanes];
    for (int u = 0; u < units; ++u) {
#pragma GCC unroll 8
      for (int chunk = 0; chunk < kUnitChunks; ++chunk) {
        const typename Dot<bits>::Weights w = Dot<bits>::weights(codes + chunk * kChunkCodes);
#pragma GCC unroll 16
        for (int t = 0; t < lanes; ++t) dot[t].add(w, q + (chunk * lanes + t) * kChunkInputs);
      }
      codes += kUnitChunks * kChunkCodes;
      q += kUnitInputs * lanes;
#pragma GCC unroll 16
      for (int t = 0; t < lanes; ++t) dot[t].end_unit();
    }
    const Floats s = load(scale + b * kTileRows), o = load(offset + b * kTileRows);
#pragma GCC unroll 16
    for (int t = 0; t < lanes; ++t) {
      const Floats d = dot[t].result(panel.code_sum + b * lanes + t) * spread(panel.scale + b * lanes + t);
      const Floats product = fma(s, d, load(y + t * kTileRows));
      store(y + t * kTileRows, fma(o, spread(panel.sum + b * lanes + t), product));
    }
  }
}

using MultiplyCodes = void (*)(const uint8_t*, const float*, const float*, int, int64_t, const CodePanel&, float*);
template <int bits, int... n>
inline MultiplyCodes multiply_codes_for(int lanes, std::integer_sequence<int, n...>) {
  static constexpr MultiplyCodes functions[] = {multiply_codes<bits, n + 1>...};
  return functions[lanes - 1];
}
inline void multiply_codes_any(int bits, const uint8_t* codes, const float* scale, const float* offset, int block,
                               int64_t blocks, const CodePanel& panel, int lanes, float* y) {
  constexpr std::make_integer_sequence<int, kCodeLanes> all;
  const MultiplyCodes function = bits == 8   ? multiply_codes_for<8>(lanes, all)
                                 : bits == 4 ? multiply_codes_for<4>(lanes, all)
                                             : multiply_codes_for<3>(lanes, all);  // 2-bit codes are 3-bit codes
  function(codes, scale, offset, block, blocks, panel, y);
}

inline void dequantize_codes(const Layout& l, const uint8_t* tile, int64_t first, int64_t columns, float* w) {
  alignas(64) uint8_t codes[kUnitChunks * kChunkCodes];
  Floats scale = zeros(), offset = zeros();
  for (int64_t c = 0; c < columns; c += kUnitInputs) {
    const int64_t unit = (first + c) / kUnitInputs;
    expand_codes(l.bits, tile + l.unit_offset + static_cast<size_t>(unit) * l.unit_bytes(), 1, codes);
    if (c == 0 || (first + c) % l.group_columns == 0) group_factors(l, tile, (first + c) / l.group_columns, scale, offset);
    const int64_t left = columns - c;
    for (int chunk = 0; chunk < kUnitChunks && chunk * kChunkInputs < left; ++chunk) {
      const Ints four = as_ints(load_bytes(codes + chunk * kChunkCodes)), byte = set(0xff);
      float* to = w + (c + chunk * kChunkInputs) * kTileRows;
      store(to, fma(scale, to_floats(four & byte), offset));
      store(to + 16, fma(scale, to_floats(shift_right<8>(four) & byte), offset));
      store(to + 32, fma(scale, to_floats(shift_right<16>(four) & byte), offset));
      store(to + 48, fma(scale, to_floats(shift_right<24>(four)), offset));
    }
  }
}

/// May write up to a multiple of four columns.
inline void dequantize(const Layout& l, const uint8_t* tile, int64_t first, int64_t columns, float* w) {
  if (l.low_bit()) {
    dequantize_codes(l, tile, first, columns, w);
  } else if (l.bfloat) {
    const uint8_t* from = tile + first * kTileRows * 2;
    const Ints high = set(static_cast<int32_t>(0xffff0000u));
    for (int64_t c = 0; c < columns; c += 2) {
      const Ints pair = as_ints(load_bytes(from + c * kTileRows * 2));
      store(w + c * kTileRows, from_bits(shift_left<16>(pair)));
      store(w + (c + 1) * kTileRows, from_bits(pair & high));
    }
  } else {
    const Half* from = reinterpret_cast<const Half*>(tile) + first * kTileRows;
    for (int64_t c = 0; c < columns; ++c) store(w + c * kTileRows, load_half(from + c * kTileRows));
  }
}

template <int lanes>
void multiply_floats(const float* w, const float* x, int64_t columns, float* y) {
  constexpr int chains = lanes <= 2   ? 4
                         : lanes <= 4 ? 2
                                      : 1;  // independent sums, so that few tokens do not wait for the latency
  Floats sum[lanes][chains];
  for (int t = 0; t < lanes; ++t) {
    sum[t][0] = load(y + t * kTileRows);
    for (int i = 1; i < chains; ++i) sum[t][i] = zeros();
  }
  int64_t c = 0;
  for (; c + chains <= columns; c += chains) {
#pragma GCC unroll 4
    for (int i = 0; i < chains; ++i) {
      const Floats v = load(w + (c + i) * kTileRows);
#pragma GCC unroll 16
      for (int t = 0; t < lanes; ++t) sum[t][i] = fma(v, spread(x + (c + i) * lanes + t), sum[t][i]);
    }
  }
  for (; c < columns; ++c) {
    const Floats v = load(w + c * kTileRows);
    for (int t = 0; t < lanes; ++t) sum[t][0] = fma(v, spread(x + c * lanes + t), sum[t][0]);
  }
  for (int t = 0; t < lanes; ++t) {
    Floats total = sum[t][0];
    for (int i = 1; i < chains; ++i) total = total + sum[t][i];
    store(y + t * kTileRows, total);
  }
}

using MultiplyFloats = void (*)(const float*, const float*, int64_t, float*);
template <int... n>
inline MultiplyFloats multiply_floats_for(int lanes, std::integer_sequence<int, n...>) {
  static constexpr MultiplyFloats functions[] = {multiply_floats<n + 1>...};
  return functions[lanes - 1];
}
inline void multiply_floats_any(const float* w, const float* x, int64_t columns, int lanes, float* y) {
  multiply_floats_for(lanes, std::make_integer_sequence<int, kFloatLanes>{})(w, x, columns, y);
}

}  // namespace
}  // namespace lighten::kernels
