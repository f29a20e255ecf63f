// One quantized weight as plain data: what every method yields, every exporter writes and every kernel packs.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lighten/base/half.h"

namespace lighten {

/// How the codes of a QuantTensor become numbers. `scalar` and `levels` are filled today; the others fix the frame for the
/// methods that follow.
enum class CodeKind : uint8_t {
  scalar,   ///< w = scale * (q - zero_point) or scale * q + minimum; q unsigned, `bits` wide
  levels,   ///< w = scale * level[q]; at most 2^bits free levels in `codebook` (FP4, NF4, ternary, IQ4-like);
            ///< ZeroKind::symmetric. The runtime wants whole levels of -127 .. 127; -1, 0, 1 at 2 bits take 1.6 there
  planes,   ///< w = sum_p plane_scale[p] * bit_p (+ minimum; symmetric: none): 0/1 bit planes (dual binarization, binary +
            ///< offset)
  vectors,  ///< w tile = scale * sum_k codebook[k][code_k]: vector codebooks (VPTQ, AQLM, PV-Tuning)
};

enum class ZeroKind : uint8_t {
  symmetric,  ///< zero point is 2^(bits-1), nothing stored
  integer,    ///< `zero_points` holds one unsigned integer in [0, 2^bits) per group: w = s (q - z)
  minimum,    ///< `minimums` holds one binary16 per group: w = s q + m
};

enum class GroupAxis : uint8_t {
  input,   ///< a group is `group_size` neighbouring inputs of one output row (the usual one)
  output,  ///< a group is `group_size` neighbouring output rows of one input column (AdaDim's per-IC)
};

/// A weight W [rows = outputs, columns = inputs] in codes. y = x W^T.
///
/// Groups along inputs: G = ceil(columns / group_size) per row, scales [rows, G]. Along outputs: scales [columns, ceil(rows /
/// group_size)]. group_size 0 means one group for the whole row (column). Scales and minimums are binary16 bits, and the codes
/// were chosen for the *rounded* scales, so every reader gets the same numbers.
struct QuantTensor {
  CodeKind kind = CodeKind::scalar;
  ZeroKind zero = ZeroKind::integer;
  GroupAxis axis = GroupAxis::input;
  int bits = 4;            ///< 1, 2, 3, 4 or 8 (5 and 6 appear when GGUF blocks are read)
  int64_t rows = 0;        ///< outputs
  int64_t columns = 0;     ///< inputs
  int64_t group_size = 0;  ///< 0: per channel

  std::vector<uint8_t>
      codes;  ///< one code per byte, [rows, columns] (vectors: [rows/out_tile, columns/in_tile, books], see below)
  std::vector<Half> scales;          ///< binary16 bits
  std::vector<uint8_t> zero_points;  ///< integer zero only
  std::vector<Half> minimums;        ///< float minimum only

  // Frames for the other kinds; empty when not used.
  std::vector<float> codebook;                ///< levels: at most [2^bits]; vectors: [books, 2^bits, out_tile, in_tile]
  int out_tile = 1, in_tile = 1;              ///< vectors: shape of one tile
  int books = 0;                              ///< vectors: codebooks summed (residual); planes: number of planes
  std::vector<uint16_t> wide_codes;           ///< vectors with more than 256 entries a book, in place of `codes`
  std::vector<std::vector<uint64_t>> planes;  ///< planes: [books][rows * ceil(columns / 64)], bit j of word w = column 64 w + j
  std::vector<Half> plane_scales;             ///< planes: [books, rows, G]

  // Sparse outliers kept in binary16 beside the codes, in CSR over rows: added to the dequantized weight (whose code there
  // should mean zero). Columns are those of W, not positions of the codes.
  std::vector<int64_t> outlier_rows;  ///< [rows + 1] or empty
  std::vector<int32_t> outlier_columns;
  std::vector<Half> outlier_values;

  /// permutation[j] = the input column that stands at position j of the codes (act-order groups); empty: identity. Groups,
  /// along inputs or outputs, follow the positions of the codes: W[r, permutation[j]] = code [r, j] with the scale of position
  /// j.
  std::vector<int32_t> permutation;
  /// The input is multiplied by (left [a,a] kron right [b,b]), a b = columns, before the codes apply; empty: identity
  /// (FlatQuant, rotations).
  std::vector<float> pre_left, pre_right;
  /// Input channel scales that could not be folded anywhere: x_j is multiplied by input_scales[j]; empty: ones.
  std::vector<float> input_scales;

  int64_t groups_per_row() const { return group_size == 0 ? 1 : (columns + group_size - 1) / group_size; }
};

/// W [rows, columns] in float: the one meaning of the struct. Does not apply pre-transform or input scales (they act on the
/// input). Throws ModelError for a kind that is not implemented.
std::vector<float> dequantize(const QuantTensor& tensor);

/// Checks sizes, code ranges, finite scales. Throws FormatError that begins with `where` (file and tensor).
void check(const QuantTensor& tensor, const std::string& where);

/// Bits that the representation needs when packed densely: codes * bits + scales and minimums * 16 + zero points * bits +
/// codebook entries * 16, planes * 1, outliers (16 + 16 each + row pointers 32), permutation (32), transforms and input scales
/// (16).
uint64_t packed_bits(const QuantTensor& tensor);

}  // namespace lighten
