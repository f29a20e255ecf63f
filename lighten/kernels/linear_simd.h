// The linear kernels on the sixteen lanes of simd_*.h, one lane per row of a tile. Included after one of those, by one
// translation unit each.
#pragma once
#include <cstring>
#include <type_traits>
#include <utility>

#include "lighten/kernels/kernel_table.h"
#include "lighten/kernels/scalar.h"
#include "lighten/kernels/unroll.h"

namespace lighten::kernels {
namespace {

inline constexpr int kPrefetchBytes = 8192;  // ahead of the codes in use; from memory this is worth up to a half

/// Sixteen codes to their places among the lanes, from `to` on.
LIGHTEN_INLINE inline void scatter_codes(Ints codes, uint32_t flip, int lanes, int8_t* to) {
  int8_t bytes[16];
  store_bytes(bytes, codes);
  for (int c = 0; c < 4; ++c) {
    uint32_t four;
    std::memcpy(&four, bytes + c * kChunkInputs, kChunkInputs);
    four ^= flip;
    std::memcpy(to + c * lanes * kChunkInputs, &four, kChunkInputs);
  }
}

inline void quantize(const float* x, int64_t blocks, int block, int lanes, int fine_ratio, uint8_t flip, const CodeLane& to) {
  const uint32_t flip_four = flip * 0x01010101u;
  const Ints magnitude = set(0x7fffffff);
  for (int64_t b = 0; b < blocks; ++b, x += block) {
    Ints largest_bits = set(0);  // as integers, so that a NaN wins and poisons the scale
    for (int i = 0; i < block; i += 16) largest_bits = max(largest_bits, bits_of(load(x + i)) & magnitude);
    const int32_t bits = max_of(largest_bits);
    float largest;
    std::memcpy(&largest, &bits, sizeof(largest));
    const Floats inverse = set(largest > kSmallestActivation ? 127.0f / largest : 0.0f);
    int8_t *q = to.q + b * block * lanes, *fine = to.fine + b * block * lanes;
    Ints total = set(0), magnitudes = set(0);
    Ints rounded[4];
    for (int i = 0; i < block; i += 16) {
      const Ints codes = rounded[i / 16] = to_ints(load(x + i) * inverse);
      total = total + codes;
      magnitudes = magnitudes + max(codes, set(0) - codes);
      scatter_codes(codes, flip_four, lanes, q + i * lanes);
    }
    const bool needs_fine = fine_ratio * sum_of(magnitudes) < 127 * block && largest > kSmallestActivation;
    Ints fine_total = set(0);
    if (needs_fine) {
      for (int i = 0; i < block; i += 16) {
        const Floats rest = fma(load(x + i), inverse, to_floats(set(0) - rounded[i / 16])) * set(256.0f);
        const Ints codes = to_ints(max(min(rest, set(127.0f)), set(-127.0f)));
        fine_total = fine_total + codes;
        scatter_codes(codes, flip_four, lanes, fine + i * lanes);
      }
      to.has_fine[b] |= to.bit;
    }
    const int32_t q_sum = sum_of(total), fine_sum = sum_of(fine_total);
    to.scale[b * lanes] = largest / 127.0f;
    to.sum[b * lanes] = to.scale[b * lanes] * (static_cast<float>(256 * q_sum + fine_sum) * kFineStep);
    to.q_sum[b * lanes] = q_sum;
    to.fine_sum[b * lanes] = fine_sum;
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

/// The codes of a unit, one per byte.
template <int bits>
inline void unpack_unit(const uint8_t* unit, uint8_t* codes) {
  for_each_chunk<bits>(unit, [&](auto chunk, Bytes v) LIGHTEN_INLINE { store_bytes(codes + chunk * kChunkCodes, v); });
}
inline void unpack_unit_any(int bits, const uint8_t* unit, uint8_t* codes) {
  if (bits == 2) unpack_unit<2>(unit, codes);
  if (bits == 3) unpack_unit<3>(unit, codes);
  if (bits == 4) unpack_unit<4>(unit, codes);
  if (bits == 8) unpack_unit<8>(unit, codes);
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

/// What integer products see: w = scale (code - center) + offset.
template <int bits>
LIGHTEN_INLINE inline void group_terms(const Layout& l, const uint8_t* tile, int64_t g, Floats& scale, Ints& center,
                                       Floats& offset) {
  scale = load_half(reinterpret_cast<const Half*>(tile) + g * kTileRows);
  offset = zeros();
  const uint8_t* at = tile + l.zero_offset;
  if constexpr (bits == 8) {
    center = set(128);
    if (l.zero == PackedZero::integer) offset = scale * to_floats(set(128) - widen_bytes(at + g * kTileRows));
    if (l.zero == PackedZero::minimum)
      offset = fma(scale, set(128.0f), load_half(reinterpret_cast<const Half*>(at) + g * kTileRows));
  } else {
    center = set(l.zero == PackedZero::symmetric ? 1 << (bits - 1) : 0);
    if (l.zero == PackedZero::integer) center = bit_fields<bits>(at + g * 2 * bits);
    if (l.zero == PackedZero::minimum) offset = load_half(reinterpret_cast<const Half*>(at) + g * kTileRows);
  }
}

/// The expanded form of blocks, from codes that codes_of(block, chunk, use) hands to use(codes) one after the other.
template <int bits, class Codes>
LIGHTEN_INLINE inline void expand_with(const Layout& l, const uint8_t* tile, int64_t first, int64_t blocks, const CodeTile& to,
                                       const Codes& codes_of) {
  Floats scale = zeros(), offset = zeros();
  Ints center = set(0);
  int64_t known = -1;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t g = (first + b) * l.block / l.group_columns;
    if (g != known) {
      group_terms<bits>(l, tile, g, scale, center, offset);
      if (l.codes != PackedCodes::plain) center = set(l.center());
    }
    known = g;
    Expander expander(center);
    codes_of(b, expander);
    store(to.scale + b * kTileRows, scale);
    store(to.offset + b * kTileRows, offset);
    store(to.centers + b * kTileRows, expander.centers(center));
  }
}

/// From units; `levels`: codes stand for the entries of the tile's table.
template <int bits, bool levels>
void expand_blocks(const Layout& l, const uint8_t* tile, int64_t first, int64_t blocks, const CodeTile& to) {
  const uint8_t* unit = tile + l.unit_offset + static_cast<size_t>(first * l.block / kUnitInputs) * l.unit_bytes();
  const Bytes table = levels ? load_table(tile + l.zero_offset) : no_bytes();
  uint8_t* codes = to.codes;
  expand_with<bits>(l, tile, first, blocks, to, [&](int64_t, Expander& expander) LIGHTEN_INLINE {
    for (int u = 0; u < l.block / kUnitInputs; ++u, unit += 64 * bits, codes += kUnitChunks * kChunkCodes) {
      repeat<bits>([&](auto line) LIGHTEN_INLINE { __builtin_prefetch(unit + kPrefetchBytes + 64 * line); });
      for_each_chunk<bits>(unit, [&](auto chunk, Bytes v) LIGHTEN_INLINE {
        store_bytes(codes + chunk * kChunkCodes, expander.expand(levels ? lookup(table, v) : v));
      });
    }
  });
}

/// From planes of trits, which do not end where blocks do: first all codes, then their expanded form in their place.
inline void expand_trits(const Layout& l, const uint8_t* tile, int64_t first, int64_t blocks, const CodeTile& to) {
  const int64_t begin = first * l.block / kChunkInputs, end = begin + blocks * l.block / kChunkInputs;
  for (int64_t plane = begin / kPlaneTrits; plane * kPlaneTrits < end; ++plane) {
    const uint8_t* from = tile + l.unit_offset + plane * kChunkCodes;
    __builtin_prefetch(from + kPrefetchBytes);
    Bytes x = load_bytes(from);
    repeat<kPlaneTrits>([&](auto i) LIGHTEN_INLINE {
      const int64_t chunk = plane * kPlaneTrits + i;
      // 3 x / 256 is 1 from 86 on, 2 from 171 on.
      if (chunk >= begin && chunk < end)
        store_bytes(to.codes + (chunk - begin) * kChunkCodes, no_bytes() - at_least(x, 86) - at_least(x, 171));
      x = x + x + x;
    });
  }
  uint8_t* codes = to.codes;
  expand_with<2>(l, tile, first, blocks, to, [&](int64_t, Expander& expander) LIGHTEN_INLINE {
    for (int c = 0; c < l.block / kChunkInputs; ++c, codes += kChunkCodes)
      store_bytes(codes, expander.expand(load_bytes(codes)));
  });
}

inline void expand(const Layout& l, const uint8_t* tile, int64_t first, int64_t blocks, const CodeTile& to) {
  const bool levels = l.codes == PackedCodes::levels;
  const auto function = l.codes == PackedCodes::trits ? expand_trits
                        : l.bits == 8                 ? expand_blocks<8, false>
                        : l.bits == 4                 ? (levels ? expand_blocks<4, true> : expand_blocks<4, false>)
                        : l.bits == 3                 ? (levels ? expand_blocks<3, true> : expand_blocks<3, false>)
                        : l.bits == 2                 ? (levels ? expand_blocks<2, true> : expand_blocks<2, false>)
                                                      : expand_blocks<1, false>;
  function(l, tile, first, blocks, to);
}

/// Products of the codes of a block at `codes` with those of `lanes` tokens at q, of which every `stride`-th is one of these.
template <int bits, int lanes, int tiles>
LIGHTEN_INLINE inline void batch_products(const uint8_t* codes, int64_t code_stride, int units, const int8_t* q, int stride,
                                          const Ints* centers, BatchDot<bits>* dot) {
  repeat<tiles * lanes>([&](auto i) LIGHTEN_INLINE { dot[i].start(centers[i / lanes]); });
  for (int u = 0; u < units; ++u, codes += kUnitChunks * kChunkCodes, q += kUnitInputs * stride) {
    repeat<kUnitChunks>([&](auto chunk) LIGHTEN_INLINE {
      typename BatchDot<bits>::Weights w[tiles];
      repeat<tiles>([&](auto i) LIGHTEN_INLINE {
        w[i] = BatchDot<bits>::weights(load_bytes(codes + i * code_stride + chunk * kChunkCodes));
      });
      repeat<lanes>([&](auto t) LIGHTEN_INLINE {
        const auto x = four_codes(q + (chunk * stride + t) * kChunkInputs);
        repeat<tiles>([&](auto i) LIGHTEN_INLINE { dot[i * lanes + t].add(w[i], x); });
      });
    });
    repeat<tiles * lanes>([&](auto i) LIGHTEN_INLINE { dot[i].end_unit(); });
  }
}

/// `tiles` tiles at once, so that every activation that is loaded meets the rows of all.
template <int bits, int lanes, int tiles>
void multiply_codes(const CodeTiles& w, int block, int64_t blocks, const CodePanel& panel, float* y, int64_t y_stride) {
  const int units = block / kUnitInputs;
  const uint8_t* codes = w.first.codes;
  Floats sum[tiles * lanes];
  repeat<tiles * lanes>([&](auto i) LIGHTEN_INLINE { sum[i] = load(y + i / lanes * y_stride + i % lanes * kTileRows); });
  for (int64_t b = 0; b < blocks; ++b, codes += block * kTileRows) {
    const auto factor = [&](const auto* factors, auto tile)
                            LIGHTEN_INLINE { return load(factors + tile * w.factor_stride + b * kTileRows); };
    Ints centers[tiles];
    repeat<tiles>([&](auto i) LIGHTEN_INLINE { centers[i] = factor(w.first.centers, i); });
    const auto add_all = [&](const int8_t* q, const int32_t* q_sum, auto second) LIGHTEN_INLINE {
      BatchDot<bits> dot[tiles * lanes];
      batch_products<bits, lanes, tiles>(codes, w.code_stride, units, q + b * block * lanes, lanes, centers, dot);
      repeat<tiles * lanes>([&](auto i) LIGHTEN_INLINE {
        constexpr int tile = i / lanes, t = i % lanes;
        const Floats product = to_floats(dot[i].result(centers[tile], q_sum + b * lanes + t));
        Floats step = spread(panel.scale + b * lanes + t);
        if constexpr (second) step = step * set(kFineStep);
        sum[i] = fma(factor(w.first.scale, constant<tile>), product * step, sum[i]);
      });
    };
    add_all(panel.q, panel.q_sum, std::false_type{});
    const unsigned fine = panel.has_fine[b];
    if (fine == (1u << lanes) - 1) {
      add_all(panel.fine, panel.fine_sum, std::true_type{});
    } else if (__builtin_expect(fine != 0, 0)) {
      repeat<lanes>([&](auto t) LIGHTEN_INLINE {
        if ((fine >> t & 1) == 0) return;
        BatchDot<bits> dot[tiles];
        batch_products<bits, 1, tiles>(codes, w.code_stride, units, panel.fine + b * block * lanes + t * kChunkInputs, lanes,
                                       centers, dot);
        const Floats step = spread(panel.scale + b * lanes + t) * set(kFineStep);
        repeat<tiles>([&](auto i) LIGHTEN_INLINE {
          const Floats product = to_floats(dot[i].result(centers[i], panel.fine_sum + b * lanes + t));
          sum[i * lanes + t] = fma(factor(w.first.scale, i), product * step, sum[i * lanes + t]);
        });
      });
    }
    if (w.has_offset) {
      repeat<tiles * lanes>([&](auto i) LIGHTEN_INLINE {
        sum[i] = fma(factor(w.first.offset, constant<i / lanes>), spread(panel.sum + b * lanes + i % lanes), sum[i]);
      });
    }
  }
  repeat<tiles * lanes>([&](auto i) LIGHTEN_INLINE { store(y + i / lanes * y_stride + i % lanes * kTileRows, sum[i]); });
}

/// The same sums in the same order for a whole tile, straight from its packed units: for a few tokens, where each code is used
/// a few times only.
template <int bits, int lanes, bool levels>
void multiply_packed(const Layout& l, const uint8_t* tile, const CodePanel& panel, float* y) {
  using Product = Dot<levels ? 8 : bits>;
  const Bytes table = levels ? load_table(tile + l.zero_offset) : no_bytes();
  const uint8_t* units = tile + l.unit_offset;
  const int block_units = l.block / kUnitInputs;
  const int64_t blocks_per_group = l.group_columns / l.block;
  const bool has_offset = l.has_offset();
  // Every block fetches its share of what lies ahead, scales of later tiles included.
  const auto share = static_cast<int64_t>(l.tile_bytes) / (l.padded_columns / l.block);
  const uint8_t* ahead = tile + kPrefetchBytes;
  Floats sum[lanes];
  repeat<lanes>([&](auto t) LIGHTEN_INLINE { sum[t] = load(y + t * kTileRows); });
  int64_t block = 0;
  for (int64_t g = 0; g < l.groups; ++g) {
    Floats scale, offset;
    Ints center;
    group_terms<bits>(l, tile, g, scale, center, offset);
    if constexpr (levels) center = set(128);
    for (int64_t b = 0; b < blocks_per_group; ++b, ++block, units += block_units * 64 * bits, ahead += share) {
      for (int64_t at = 0; at < share; at += 64) __builtin_prefetch(ahead + at);
      // n dots: codes(i) and code_sum(i) are those of dot i; finish(i, product) receives them in turn.
      const auto products = [&](auto n, const auto& codes, [[maybe_unused]] const auto& code_sum, const auto& finish)
                                LIGHTEN_INLINE {
                                  Product dot[n];
                                  const uint8_t* unit = units;
                                  for (int u = 0; u < block_units; ++u, unit += 64 * bits) {
                                    for_each_chunk<bits>(unit, [&](auto chunk, Bytes v) LIGHTEN_INLINE {
                                      const typename Product::Weights w = Product::weights(levels ? lookup(table, v) : v);
                                      repeat<n>([&](auto i) LIGHTEN_INLINE {
                                        dot[i].add(w, four_codes(codes(i) + (u * kUnitChunks + chunk) * lanes * kChunkInputs));
                                      });
                                    });
                                    repeat<n>([&](auto i) LIGHTEN_INLINE { dot[i].end_unit(); });
                                  }
                                  repeat<n>([&](auto i) LIGHTEN_INLINE {
                                    Ints result = dot[i].result();
                                    if constexpr (!Product::kCentered) result = result - times_small(center, code_sum(i));
                                    finish(i, to_floats(result));
                                  });
                                };
      const auto codes_of = [&](const int8_t* q, auto t)
                                LIGHTEN_INLINE { return q + block * l.block * lanes + t * kChunkInputs; };
      const auto add_first = [&](auto t, Floats product) LIGHTEN_INLINE {
        sum[t] = fma(scale, product * spread(panel.scale + block * lanes + t), sum[t]);
      };
      const auto add_second = [&](auto t, Floats product) LIGHTEN_INLINE {
        sum[t] = fma(scale, product * (spread(panel.scale + block * lanes + t) * set(kFineStep)), sum[t]);
      };
      const unsigned fine = panel.has_fine[block];
      if (lanes <= kPackedLanes / 2 && fine == (1u << lanes) - 1) {
        constexpr int half = lanes <= kPackedLanes / 2 ? lanes : 1;
        products(
            constant<2 * half>,
            [&](auto i) LIGHTEN_INLINE { return codes_of(i < half ? panel.q : panel.fine, constant<i % half>); },
            [&](auto i) LIGHTEN_INLINE { return (i < half ? panel.q_sum : panel.fine_sum) + block * lanes + i % half; },
            [&](auto i, Floats product) LIGHTEN_INLINE {
              if constexpr (i < half)
                add_first(i, product);
              else
                add_second(constant<i - half>, product);
            });
      } else {
        products(
            constant<lanes>, [&](auto t) LIGHTEN_INLINE { return codes_of(panel.q, t); },
            [&](auto t) LIGHTEN_INLINE { return panel.q_sum + block * lanes + t; }, add_first);
        if (fine != 0) {
          repeat<lanes>([&](auto t) LIGHTEN_INLINE {
            if ((fine >> t & 1) == 0) return;
            products(
                constant<1>, [&](auto) LIGHTEN_INLINE { return codes_of(panel.fine, t); },
                [&](auto) LIGHTEN_INLINE { return panel.fine_sum + block * lanes + t; },
                [&](auto, Floats product) LIGHTEN_INLINE { add_second(t, product); });
          });
        }
      }
      if (has_offset)
        repeat<lanes>([&](auto t) LIGHTEN_INLINE { sum[t] = fma(offset, spread(panel.sum + block * lanes + t), sum[t]); });
    }
  }
  repeat<lanes>([&](auto t) LIGHTEN_INLINE { store(y + t * kTileRows, sum[t]); });
}

using MultiplyPacked = void (*)(const Layout&, const uint8_t*, const CodePanel&, float*);
template <int bits, bool levels, int... n>
inline MultiplyPacked multiply_packed_for(int lanes, std::integer_sequence<int, n...>) {
  static constexpr MultiplyPacked functions[] = {multiply_packed<bits, n + 1, levels>...};
  return functions[lanes - 1];
}
inline void multiply_packed_any(const Layout& l, const uint8_t* tile, const CodePanel& panel, int lanes, float* y) {
  constexpr std::make_integer_sequence<int, kPackedLanes> all;
  const MultiplyPacked function = l.codes == PackedCodes::levels ? multiply_packed_for<4, true>(lanes, all)
                                  : l.bits == 8                  ? multiply_packed_for<8, false>(lanes, all)
                                  : l.bits == 4                  ? multiply_packed_for<4, false>(lanes, all)
                                  : l.bits == 3                  ? multiply_packed_for<3, false>(lanes, all)
                                                                 : multiply_packed_for<2, false>(lanes, all);
  function(l, tile, panel, y);
}

using MultiplyCodes = void (*)(const CodeTiles&, int, int64_t, const CodePanel&, float*, int64_t);
template <int bits, int tiles, int... n>
inline MultiplyCodes multiply_codes_for(int lanes, std::integer_sequence<int, n...>) {
  static constexpr MultiplyCodes functions[] = {multiply_codes<bits, n + 1, tiles>...};
  return functions[lanes - 1];
}
template <int tiles>
inline MultiplyCodes multiply_codes_of(int bits, int lanes) {
  constexpr std::make_integer_sequence<int, kCodeLanes> all;
  return bits == 8   ? multiply_codes_for<8, tiles>(lanes, all)
         : bits == 4 ? multiply_codes_for<4, tiles>(lanes, all)
                     : multiply_codes_for<3, tiles>(lanes, all);  // codes of 1 and 2 bits and trits are 3-bit codes
}
inline void multiply_codes_any(int bits, const CodeTiles& w, int tiles, int block, int64_t blocks, const CodePanel& panel,
                               int lanes, float* y, int64_t y_stride) {
  const MultiplyCodes function = tiles == 1 ? multiply_codes_of<1>(bits, lanes) : multiply_codes_of<kCodeTiles>(bits, lanes);
  function(w, block, blocks, panel, y, y_stride);
}

inline void dequantize_codes(const Layout& l, const uint8_t* tile, int64_t first, int64_t columns, float* w) {
  alignas(64) uint8_t codes[kUnitChunks * kChunkCodes];
  Floats scale = zeros(), offset = zeros();
  for (int64_t c = 0; c < columns; c += kUnitInputs) {
    const int64_t unit = (first + c) / kUnitInputs;
    unpack_unit_any(l.bits, tile + l.unit_offset + static_cast<size_t>(unit) * l.unit_bytes(), codes);
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
  if (l.low_bit() && (l.codes != PackedCodes::plain || l.bits == 1)) {
    scalar::dequantize(l, tile, first, columns, w);
  } else if (l.low_bit()) {
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
