// The linear kernels on the sixteen lanes of simd_*.h, one lane per row of a tile. Included after one of those, by one
// translation unit each.
#pragma once
#include <cstring>
#include <utility>

#include "lighten/kernels/kernel_table.h"
#include "lighten/kernels/unroll.h"

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

/// Calls use(chunk, codes) for the eight chunks of a unit, chunk being a constant.
template <int bits, class F>
LIGHTEN_INLINE inline void for_each_chunk(const uint8_t* unit, F use) {
  constexpr uint8_t mask = (1 << bits) - 1;
  if constexpr (bits == 8) {
    repeat<8>([&](auto p) LIGHTEN_INLINE { use(p, load_bytes(unit + 64 * p)); });
  } else if constexpr (bits == 3) {
    const Bytes v[3] = {load_bytes(unit), load_bytes(unit + 64), load_bytes(unit + 128)};
    repeat<3>([&](auto p) LIGHTEN_INLINE {
      use(constant<2 * p>, field<0>(v[p], mask));
      use(constant<2 * p + 1>, field<3>(v[p], mask));
    });
    use(constant<6>, field<6>(v[0], 3) | field<4>(v[2], 4));
    use(constant<7>, field<6>(v[1], 3) | field<5>(v[2], 4));
  } else {
    constexpr int per_byte = 8 / bits;
    repeat<bits>([&](auto p) LIGHTEN_INLINE {
      const Bytes v = load_bytes(unit + 64 * p);
      repeat<per_byte>([&](auto i) LIGHTEN_INLINE { use(constant<p * per_byte + i>, field<i * bits>(v, mask)); });
    });
  }
}

template <int bits>
inline void expand_units(const uint8_t* units, int64_t n, uint8_t* codes) {
  for (int64_t u = 0; u < n; ++u, codes += kUnitChunks * kChunkCodes) {
    for_each_chunk<bits>(units + u * 64 * bits,
                         [&](auto chunk, Bytes v) LIGHTEN_INLINE { store_bytes(codes + chunk * kChunkCodes, v); });
  }
}

inline void expand_codes(int bits, const uint8_t* units, int64_t n, uint8_t* codes) {
  if (bits == 2) expand_units<2>(units, n, codes);
  if (bits == 3) expand_units<3>(units, n, codes);
  if (bits == 4) expand_units<4>(units, n, codes);
  if (bits == 8) expand_units<8>(units, n, codes);
}

/// scale and offset of group g: w = scale * q + offset.
template <int bits>
LIGHTEN_INLINE inline void group_factors(const Layout& l, const uint8_t* tile, int64_t g, Floats& scale, Floats& offset) {
  scale = load_half(reinterpret_cast<const Half*>(tile) + g * kTileRows);
  const uint8_t* at = tile + l.zero_offset;
  if (l.zero == PackedZero::minimum) {
    offset = load_half(reinterpret_cast<const Half*>(at) + g * kTileRows);
  } else if (l.zero == PackedZero::symmetric) {
    offset = scale * set(-static_cast<float>(1 << (bits - 1)));
  } else if constexpr (bits == 8) {
    offset = zeros() - scale * to_floats(widen_bytes(at + g * kTileRows));
  } else {
    offset = zeros() - scale * to_floats(bit_fields<bits>(at + g * 2 * bits));
  }
}
inline void group_factors_any(const Layout& l, const uint8_t* tile, int64_t g, Floats& scale, Floats& offset) {
  if (l.bits == 2) group_factors<2>(l, tile, g, scale, offset);
  if (l.bits == 3) group_factors<3>(l, tile, g, scale, offset);
  if (l.bits == 4) group_factors<4>(l, tile, g, scale, offset);
  if (l.bits == 8) group_factors<8>(l, tile, g, scale, offset);
}

inline void block_factors(const Layout& l, const uint8_t* tile, int64_t first, int64_t blocks, float* scale, float* offset) {
  Floats s = zeros(), o = zeros();
  int64_t known = -1;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t g = (first + b) * l.block / l.group_columns;
    if (g != known) group_factors_any(l, tile, g, s, o);
    known = g;
    store(scale + b * kTileRows, s);
    store(offset + b * kTileRows, o);
  }
}

/// sum += scale * (panel scale * dot) + offset * panel sum, for block b of lane t.
template <int bits>
LIGHTEN_INLINE inline Floats add_block(Floats sum, Dot<bits>& dot, Floats scale, Floats offset, const CodePanel& panel,
                                       int64_t at) {
  const Floats d = dot.result(panel.code_sum + at) * spread(panel.scale + at);
  return fma(offset, spread(panel.sum + at), fma(scale, d, sum));
}

template <int bits, int lanes>
void multiply_codes(const uint8_t* codes, const float* scale, const float* offset, int block, int64_t blocks,
                    const CodePanel& panel, float* y) {
  const int8_t* q = panel.q;
  const int units = block / kUnitInputs;
  for (int64_t b = 0; b < blocks; ++b) {
    Dot<bits> dot[lanes];
    for (int u = 0; u < units; ++u) {
      repeat<kUnitChunks>([&](auto chunk) LIGHTEN_INLINE {
        const typename Dot<bits>::Weights w = Dot<bits>::weights(load_bytes(codes + chunk * kChunkCodes));
        repeat<lanes>([&](auto t) LIGHTEN_INLINE { dot[t].add(w, q + (chunk * lanes + t) * kChunkInputs); });
      });
      codes += kUnitChunks * kChunkCodes;
      q += kUnitInputs * lanes;
      repeat<lanes>([&](auto t) LIGHTEN_INLINE { dot[t].end_unit(); });
    }
    const Floats s = load(scale + b * kTileRows), o = load(offset + b * kTileRows);
    repeat<lanes>([&](auto t) LIGHTEN_INLINE {
      float* to = y + t * kTileRows;
      store(to, add_block<bits>(load(to), dot[t], s, o, panel, b * lanes + t));
    });
  }
}

inline constexpr int kPrefetchBytes = 2048;  // ahead of the codes in use; measured: 10 % on weights that come from memory

/// The same sums in the same order for a whole tile, straight from its packed units: for a few tokens, where each code is used
/// a few times only.
template <int bits, int lanes>
void multiply_packed(const Layout& l, const uint8_t* tile, const CodePanel& panel, float* y) {
  const int8_t* q = panel.q;
  const uint8_t* unit = tile + l.unit_offset;
  const int units = l.block / kUnitInputs;
  const int64_t blocks_per_group = l.group_columns / l.block;
  Floats sum[lanes];
  repeat<lanes>([&](auto t) LIGHTEN_INLINE { sum[t] = load(y + t * kTileRows); });
  int64_t at = 0;
  for (int64_t g = 0; g < l.groups; ++g) {
    Floats scale, offset;
    group_factors<bits>(l, tile, g, scale, offset);
    for (int64_t b = 0; b < blocks_per_group; ++b, at += lanes) {
      Dot<bits> dot[lanes];
      for (int u = 0; u < units; ++u) {
        repeat<bits>([&](auto line) LIGHTEN_INLINE { __builtin_prefetch(unit + kPrefetchBytes + 64 * line); });
        for_each_chunk<bits>(unit, [&](auto chunk, Bytes v) LIGHTEN_INLINE {
          const typename Dot<bits>::Weights w = Dot<bits>::weights(v);
          repeat<lanes>([&](auto t) LIGHTEN_INLINE { dot[t].add(w, q + (chunk * lanes + t) * kChunkInputs); });
        });
        unit += 64 * bits;
        q += kUnitInputs * lanes;
        repeat<lanes>([&](auto t) LIGHTEN_INLINE { dot[t].end_unit(); });
      }
      repeat<lanes>([&](auto t) LIGHTEN_INLINE { sum[t] = add_block<bits>(sum[t], dot[t], scale, offset, panel, at + t); });
    }
  }
  repeat<lanes>([&](auto t) LIGHTEN_INLINE { store(y + t * kTileRows, sum[t]); });
}

using MultiplyPacked = void (*)(const Layout&, const uint8_t*, const CodePanel&, float*);
template <int bits, int... n>
inline MultiplyPacked multiply_packed_for(int lanes, std::integer_sequence<int, n...>) {
  static constexpr MultiplyPacked functions[] = {multiply_packed<bits, n + 1>...};
  return functions[lanes - 1];
}
inline void multiply_packed_any(const Layout& l, const uint8_t* tile, const CodePanel& panel, int lanes, float* y) {
  constexpr std::make_integer_sequence<int, kPackedLanes> all;
  const MultiplyPacked function = l.bits == 8   ? multiply_packed_for<8>(lanes, all)
                                  : l.bits == 4 ? multiply_packed_for<4>(lanes, all)
                                  : l.bits == 3 ? multiply_packed_for<3>(lanes, all)
                                                : multiply_packed_for<2>(lanes, all);
  function(l, tile, panel, y);
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
    if (c == 0 || (first + c) % l.group_columns == 0) group_factors_any(l, tile, (first + c) / l.group_columns, scale, offset);
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
  Floats sum[lanes * chains];
  repeat<lanes * chains>([&](auto i) LIGHTEN_INLINE { sum[i] = i < lanes ? load(y + i * kTileRows) : zeros(); });
  int64_t c = 0;
  for (; c + chains <= columns; c += chains) {
    repeat<chains>([&](auto i) LIGHTEN_INLINE {
      const Floats v = load(w + (c + i) * kTileRows);
      repeat<lanes>([&](auto t)
                        LIGHTEN_INLINE { sum[i * lanes + t] = fma(v, spread(x + (c + i) * lanes + t), sum[i * lanes + t]); });
    });
  }
  for (; c < columns; ++c) {
    const Floats v = load(w + c * kTileRows);
    repeat<lanes>([&](auto t) LIGHTEN_INLINE { sum[t] = fma(v, spread(x + c * lanes + t), sum[t]); });
  }
  repeat<(chains - 1) * lanes>([&](auto i) LIGHTEN_INLINE { sum[i % lanes] = sum[i % lanes] + sum[lanes + i]; });
  repeat<lanes>([&](auto t) LIGHTEN_INLINE { store(y + t * kTileRows, sum[t]); });
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
