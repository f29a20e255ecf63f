// As table_neondotprod.cpp, with batches on SMMLA: two rows meet two tokens in eight inputs at once.
#include <type_traits>

#include "lighten/kernels/table_neon.h"

namespace lighten::kernels {
namespace {

constexpr int kPairBytes = 2 * kChunkCodes;    // of two chunks
constexpr int kPairVectors = kPairBytes / 16;  // each has eight inputs of one row, then of the next

/// As expand, with the chunks in pairs: their four inputs side by side, row by row.
void expand_pairs(const Layout& l, const uint8_t* tile, int64_t first, int64_t blocks, const CodeTile& to) {
  expand(l, tile, first, blocks, to);
  uint8_t* codes = to.codes;
  for (int64_t pair = 0; pair < blocks * l.block * kTileRows / kPairBytes; ++pair, codes += kPairBytes) {
    const Ints even = as_ints(load_bytes(codes)), odd = as_ints(load_bytes(codes + kChunkCodes));
    const auto store_rows = [&](int at, int32x4_t x, int32x4_t y) {
      vst1q_u8(codes + at, vreinterpretq_u8_s32(vzip1q_s32(x, y)));
      vst1q_u8(codes + at + 16, vreinterpretq_u8_s32(vzip2q_s32(x, y)));
    };
    store_rows(0, even.a, odd.a);
    store_rows(32, even.b, odd.b);
    store_rows(64, even.c, odd.c);
    store_rows(96, even.d, odd.d);
  }
}

/// The sums of sixteen rows for two tokens.
struct PairDot {
  int32x4_t sum[kPairVectors];  // row 0 for both tokens, row 1 for both tokens

  template <int token>
  Ints result() const {
    const auto four = [&](int i) { return token == 0 ? vuzp1q_s32(sum[i], sum[i + 1]) : vuzp2q_s32(sum[i], sum[i + 1]); };
    return {four(0), four(2), four(4), four(6)};
  }
};

/// Eight inputs of a token, then of its neighbour; without one, the token's again. q is the token's first chunk, the second
/// lies `stride` bytes on.
template <bool both>
LIGHTEN_INLINE inline int8x16_t eight_codes(const int8_t* q, int64_t stride) {
  const auto chunk = [](const int8_t* at) LIGHTEN_INLINE {
    if constexpr (both) {
      return vreinterpretq_s32_s8(vcombine_s8(vld1_s8(at), vdup_n_s8(0)));
    }
    int32_t bytes;
    std::memcpy(&bytes, at, 4);
    return vdupq_n_s32(bytes);
  };
  return vreinterpretq_s8_s32(vzip1q_s32(chunk(q), chunk(q + stride)));
}

/// Products of the codes of a block with those of `lanes` tokens at q, of which every `stride`-th is one of these.
template <int lanes>
LIGHTEN_INLINE inline void pair_products(const uint8_t* codes, int block, const int8_t* q, int stride, PairDot* dot) {
  constexpr int pairs = (lanes + 1) / 2;
  repeat<pairs * kPairVectors>([&](auto i) LIGHTEN_INLINE { dot[i / kPairVectors].sum[i % kPairVectors] = vdupq_n_s32(0); });
  for (int input = 0; input < block; input += 2 * kChunkInputs, codes += kPairBytes, q += 2 * kChunkInputs * stride) {
    int8x16_t x[pairs];
    repeat<pairs>([&](auto p) LIGHTEN_INLINE {
      x[p] = eight_codes<2 * p + 1 < lanes>(q + 2 * p * kChunkInputs, static_cast<int64_t>(stride) * kChunkInputs);
    });
    repeat<kPairVectors>([&](auto i) LIGHTEN_INLINE {
      const int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(codes + 16 * i));
      repeat<pairs>([&](auto p) LIGHTEN_INLINE {
        int32x4_t& sum = dot[p].sum[i];
        sum = vmmlaq_s32(sum, w, x[p]);
        asm("" : "+w"(sum));  // left alone, gcc loads all weights first and spills sums
      });
    });
  }
}

template <int lanes>
void multiply_pairs(const CodeTiles& w, int block, int64_t blocks, const CodePanel& panel, float* y) {
  const uint8_t* codes = w.first.codes;
  Floats sum[lanes];
  repeat<lanes>([&](auto t) LIGHTEN_INLINE { sum[t] = load(y + t * kTileRows); });
  for (int64_t b = 0; b < blocks; ++b, codes += block * kTileRows) {
    const Floats scale = load(w.first.scale + b * kTileRows);
    const auto add_all = [&](const int8_t* q, auto second) LIGHTEN_INLINE {
      PairDot dot[(lanes + 1) / 2];
      pair_products<lanes>(codes, block, q + b * block * lanes, lanes, dot);
      repeat<lanes>([&](auto t) LIGHTEN_INLINE {
        Floats step = spread(panel.scale + b * lanes + t);
        if constexpr (second) step = step * set(kFineStep);
        sum[t] = fma(scale, to_floats(dot[t / 2].template result<t % 2>()) * step, sum[t]);
      });
    };
    add_all(panel.q, std::false_type{});
    const unsigned fine = panel.has_fine[b];
    if (fine == (1u << lanes) - 1) {
      add_all(panel.fine, std::true_type{});
    } else if (__builtin_expect(fine != 0, 0)) {
      repeat<lanes>([&](auto t) LIGHTEN_INLINE {
        if ((fine >> t & 1) == 0) return;
        PairDot dot;
        pair_products<1>(codes, block, panel.fine + b * block * lanes + t * kChunkInputs, lanes, &dot);
        const Floats step = spread(panel.scale + b * lanes + t) * set(kFineStep);
        sum[t] = fma(scale, to_floats(dot.template result<0>()) * step, sum[t]);
      });
    }
    if (w.has_offset) {
      const Floats offset = load(w.first.offset + b * kTileRows);
      repeat<lanes>([&](auto t) LIGHTEN_INLINE { sum[t] = fma(offset, spread(panel.sum + b * lanes + t), sum[t]); });
    }
  }
  repeat<lanes>([&](auto t) LIGHTEN_INLINE { store(y + t * kTileRows, sum[t]); });
}

using MultiplyPairs = void (*)(const CodeTiles&, int, int64_t, const CodePanel&, float*);
template <int... n>
MultiplyPairs multiply_pairs_for(int lanes, std::integer_sequence<int, n...>) {
  static constexpr MultiplyPairs functions[] = {multiply_pairs<n + 1>...};
  return functions[lanes - 1];
}
void multiply_pairs_any(int, const CodeTiles& w, int, int block, int64_t blocks, const CodePanel& panel, int lanes, float* y,
                        int64_t) {
  multiply_pairs_for(lanes, std::make_integer_sequence<int, kCodeLanes>{})(w, block, blocks, panel, y);
}

}  // namespace

KernelTable neon_i8mm_table() {
  KernelTable table = table_of_lanes();
  table.expand = expand_pairs;
  table.multiply_codes = multiply_pairs_any;
  return table;
}

}  // namespace lighten::kernels
