// The inner loops that exist once per instruction set, as a table of functions; and the one place that chooses a table.
#pragma once
#include <cstddef>
#include <cstdint>

#include "lighten/base/half.h"
#include "lighten/kernels/attention.h"
#include "lighten/kernels/layout.h"

namespace lighten::kernels {

/// Up to `lanes` tokens side by side, rounded per block: x = scale (q + fine / 256) with |q|, |fine| <= 127.
///
/// Eight bits carry most blocks. In some, a few inputs are so large that the others would drown in their steps (some channels
/// of language models are like that: SmolLM2-135M's logits move by 3 % and every twentieth token changes); a token's block
/// whose codes use on average less than 1 / kFineRatio of their range gets a second byte, and a second product.
struct CodePanel {
  const int8_t* q;          ///< [chunks][lanes][4]; all bytes xor `flip` of quantize()
  const int8_t* fine;       ///< the same
  const float* scale;       ///< [blocks][lanes]
  const float* sum;         ///< [blocks][lanes], sum of the block's x as rounded
  const int32_t* q_sum;     ///< [blocks][lanes], sum of the block's q
  const int32_t* fine_sum;  ///< [blocks][lanes]
  const uint8_t* has_fine;  ///< [blocks]: bit i for lane i
};
inline constexpr int kFineRatio = 8;
inline constexpr float kFineStep = 1.0f / 256;
inline constexpr int kMostCodeLanes = 8;
inline constexpr int kMostCodeTiles = 2;
/// Where the rounded form of one token goes: the lanes of a panel.
struct CodeLane {
  int8_t *q, *fine;  ///< fine is written where it is needed only
  float *scale, *sum;
  int32_t *q_sum, *fine_sum;
  uint8_t* has_fine;  ///< its bit is set, never cleared
  uint8_t bit;
};
/// Low-bit weights in a form that multiply_codes of the same table understands: w = scale (code - center) + offset with an
/// integer center, and offsets only where Layout::has_offset().
struct CodeTile {
  uint8_t* codes;    ///< [chunks][64]
  int32_t* centers;  ///< [blocks][16]: the centers, or what stands for them where they are in the codes already
  float* scale;      ///< [blocks][16]
  float* offset;     ///< [blocks][16]
};
/// Neighbouring tiles: those of the next one lie `code_stride` and `factor_stride` further on.
struct CodeTiles {
  CodeTile first;
  int64_t code_stride, factor_stride;
  bool has_offset;
};

/// Queries of neighbouring tokens and of heads that share one key/value head, against keys [key_begin, key_end).
/// Row (t - token_begin) * head_count + (h - head_begin) of the results belongs to token t and head h.
struct AttentionPart {
  const AttentionShape* shape;
  const float* q;  ///< [tokens, heads, head_dim]
  KvView cache;
  int64_t first;  ///< position of token 0
  int64_t token_begin, token_count;
  int64_t head_begin, head_count;
  int64_t key_begin, key_end;  ///< the first stands at the start of a page
  float* out;                  ///< [rows, head_dim]: sum of exp(s - max) v
  float* max;                  ///< [rows]: the largest score, -infinity if the row sees none of the keys
  float* sum;                  ///< [rows]: sum of exp(s - max)
  float* scratch;              ///< attention_scratch() floats, 64-byte aligned
};
inline constexpr int kAttentionRows = 64;  ///< a part has at most this many rows
inline constexpr int kAttentionKeys = 64;  ///< and walks over its keys in blocks of this many
/// Where the scales of a page's keys (or values) begin, in bytes after them.
inline size_t kv_scales(KvFormat format, int64_t kv_heads, int64_t head_dim) {
  return static_cast<size_t>(kPagePositions * kv_heads * head_dim) * kv_element_bytes(format);
}
/// One side (keys or values) of a block of positions.
struct KvBlock {
  const std::byte* data;
  const float* scales;  ///< [kv_heads, 64]
  KvFormat format;
};
inline KvBlock kv_block(const AttentionPart& part, int64_t position, size_t side) {
  const std::byte* data = part.cache.pages[position / kPagePositions] + side;
  const KvFormat format = part.cache.format;
  return {data, reinterpret_cast<const float*>(data + kv_scales(format, part.shape->kv_heads, part.shape->head_dim)), format};
}
/// q, out, k^T, v and scores of one block.
inline int64_t attention_scratch(int64_t head_dim) {
  const int64_t padded = round_up(head_dim, 16);
  return 2 * (kAttentionRows + kAttentionKeys) * padded + kAttentionRows * kAttentionKeys;
}

/// Blocks of activations whose largest magnitude is below this become zeros (127 / max would overflow).
inline constexpr float kSmallestActivation = 1e-30f;

struct KernelTable {
  int code_lanes;     ///< tokens of a full register tile in multiply_codes
  int code_tiles;     ///< tiles of rows in it
  uint8_t code_flip;  ///< 0x80 where it wants its activations unsigned, else 0
  int packed_lanes;   ///< tokens at most in multiply_packed
  int float_lanes;    ///< in multiply_floats and multiply_bfloat16

  /// Per block of 32 or 64: scale = max|x| / 127, q = round to nearest even(x / scale); where fine_ratio * sum |q| < 127 *
  /// block, fine = round(256 (x / scale - q)). Results at a stride of `lanes`, bytes xor `flip`.
  void (*quantize)(const float* x, int64_t blocks, int block, int lanes, int fine_ratio, uint8_t flip, const CodeLane& to);
  /// Blocks [first, first + blocks) of a tile.
  void (*expand)(const Layout& layout, const uint8_t* tile, int64_t first, int64_t blocks, const CodeTile& to);
  /// For every block in turn, per row and lane, with integer sums that are exact:
  ///   y += scale * (panel.scale * sum_i (code_i - center) q_i), then the same with fine_i and panel.scale / 256 where the lane
  ///   has it, then + offset * panel.sum where there are offsets.
  /// For `tiles` (1 or code_tiles) tiles, y [tiles][y_stride], of which [lanes][16] are used. The panel is flipped by
  /// code_flip.
  void (*multiply_codes)(int bits, const CodeTiles& w, int tiles, int block, int64_t blocks, const CodePanel& panel, int lanes,
                         float* y, int64_t y_stride);
  /// expand and multiply_codes in one pass over a whole tile, bit for bit the same sums. The panel is not flipped.
  void (*multiply_packed)(const Layout& layout, const uint8_t* tile, const CodePanel& panel, int lanes, float* y);
  /// Columns [first, first + columns) of a tile (first a multiple of 64) in float32, [columns][16].
  void (*dequantize)(const Layout& layout, const uint8_t* tile, int64_t first, int64_t columns, float* w);
  /// y [lanes][16] += x [columns][lanes]^T w [columns][16].
  void (*multiply_floats)(const float* w, const float* x, int64_t columns, int lanes, float* y);
  /// The same on pairs: x [pairs][lanes][2], w [pairs][16][2]. Null where the machine has no such product.
  void (*multiply_bfloat16)(const BFloat16* w, const BFloat16* x, int64_t pairs, int lanes, float* y);

  void (*attend)(const AttentionPart& part);
  void (*rms_norm)(const float* x, const float* weight, float epsilon, int64_t n, int64_t width, float* y);
  void (*rope)(float* heads, int64_t n_heads, int64_t head_dim, const float* cos, const float* sin);
  void (*silu_mul)(float* gate, const float* up, int64_t n);
  void (*gelu_tanh_mul)(float* gate, const float* up, int64_t n);
  void (*add)(float* out, const float* x, int64_t n);
  void (*to_half)(const float* x, Half* out, int64_t n);
  double (*log_sum_exp)(const float* x, int64_t n);
  int64_t (*argmax)(const float* x, int64_t n);
};

KernelTable scalar_table();
#if defined(__x86_64__)
KernelTable avx2_table();
KernelTable avx512_table(bool bfloat16);
#elif defined(__aarch64__)
KernelTable neon_table();
KernelTable neon_dotprod_table();
KernelTable neon_i8mm_table();
#endif

/// The table of current_isa().
const KernelTable& table();

}  // namespace lighten::kernels
