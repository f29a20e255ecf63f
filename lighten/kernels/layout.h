// Where every code, scale and zero point of a packed weight lies: the only file that knows it.
//
// A weight is cut into tiles of 16 rows (the last one padded with zero scales), one after the other. A low-bit tile:
//
//   scales   [groups][16] binary16
//   zeros    [groups][16] points of `bits` bits (bits <= 4), bytes (8 bits) or binary16 minimums; nothing when symmetric
//   (padding to 64 bytes)
//   units    [padded_columns / 32], each 32 inputs x 16 rows = 64 * bits bytes
//
// A unit is eight chunks of 4 inputs x 16 rows = 64 codes; code `lane` of a chunk is row lane / 4, input lane % 4, so that the
// 64 bytes of an expanded chunk meet 4 activations in one u8 x s8 dot product per row. Chunks share bytes: byte `lane` of plane
// p holds
//
//   8 bits   chunk p
//   4 bits   chunks 2p, 2p + 1 as nibbles
//   3 bits   chunks 2p, 2p + 1 in bits 0-2 and 3-5; bits 6-7 of planes 0, 1 are the low two bits of chunks 6, 7, whose top bits
//            are bits 6 and 7 of plane 2
//   2 bits   chunks 4p .. 4p + 3
//   1 bit    all chunks
//
// Tables of levels stand where zero points would: 16 bytes a tile, level + 128. Trits have no units: byte `lane` of plane p
// holds chunks 5p .. 5p + 4 of the tile as the number v = sum_i trit_i 3^(4 - i), stored as ceil(v 256 / 243), so that
// multiplying the byte by 3 carries one trit after the other out of it.
//
// A float tile is [padded_columns][16] values; bfloat16 keeps input pairs together: [padded_columns / 2][16][2].
#pragma once
#include <cstddef>
#include <cstdint>

#include "lighten/kernels/linear.h"

namespace lighten::kernels {

inline constexpr int kTileRows = 16;
inline constexpr int kChunkInputs = 4;
inline constexpr int kUnitInputs = 32;
inline constexpr int kUnitChunks = kUnitInputs / kChunkInputs;
inline constexpr int kChunkCodes = kTileRows * kChunkInputs;
inline constexpr int kPlaneTrits = 5;
inline constexpr size_t kLevelBytes = 16;

struct Layout {
  int bits = 0;
  PackedZero zero = PackedZero::integer;
  bool bfloat = false;
  PackedCodes codes = PackedCodes::plain;
  int64_t rows = 0, columns = 0;
  int64_t padded_columns = 0;
  int64_t tiles = 0;
  int64_t groups = 0;         ///< per row; low bits only
  int64_t group_columns = 0;  ///< inputs of one group, padding included
  int block = 0;              ///< inputs that share one activation scale: 32 or 64, divides group_columns
  size_t zero_offset = 0;     ///< of the zeros in a tile; the scales start at 0
  size_t unit_offset = 0;     ///< of the units in a tile
  size_t tile_bytes = 0;
  int planes = 1;

  size_t plane_bytes() const { return static_cast<size_t>(tiles) * tile_bytes; }
  bool low_bit() const { return bits <= 8; }
  /// Kinds that multiply_packed knows; the others are expanded for one token too.
  bool direct() const { return codes == PackedCodes::plain ? bits > 1 : codes == PackedCodes::levels && bits == 4; }
  int center() const {
    return codes == PackedCodes::trits ? 1 : codes == PackedCodes::levels || bits == 8 ? 128 : 1 << (bits - 1);
  }
  /// Bits of the numbers that are multiplied, after levels were looked up.
  int product_bits() const { return codes == PackedCodes::levels ? 8 : bits; }
  size_t unit_bytes() const { return static_cast<size_t>(64) * static_cast<size_t>(bits); }
  size_t zero_group_bytes() const;  ///< bytes of one group's zeros
  /// Integer products see w = s (code - center) + offset. Centers that fit the codes' signed bytes need no offset: the zero
  /// points of up to 4 bits; of 8-bit codes 128 is the center, whatever the zero point.
  bool has_offset() const { return zero == PackedZero::minimum || (zero == PackedZero::integer && bits == 8); }
};

inline size_t Layout::zero_group_bytes() const {
  if (zero == PackedZero::symmetric || codes != PackedCodes::plain) return 0;
  if (zero == PackedZero::minimum) return kTileRows * 2;
  return static_cast<size_t>(kTileRows * bits / 8);
}

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Geometry of a checked spec.
inline Layout layout_of(const LinearSpec& spec) {
  Layout l;
  l.bits = spec.bits;
  l.zero = spec.zero;
  l.bfloat = spec.bits == 16 && spec.bfloat;
  l.codes = spec.bits <= 8 ? spec.codes : PackedCodes::plain;
  l.planes = spec.planes;
  l.rows = spec.rows;
  l.columns = spec.columns;
  l.tiles = (spec.rows + kTileRows - 1) / kTileRows;
  if (!l.low_bit()) {
    l.padded_columns = round_up(spec.columns, 4);
    l.tile_bytes = static_cast<size_t>(l.padded_columns) * kTileRows * static_cast<size_t>(spec.bits / 8);
    return l;
  }
  l.block = spec.group_size == 0 || spec.group_size % 64 == 0 ? 64 : 32;
  l.padded_columns = spec.group_size == 0 ? round_up(spec.columns, l.block) : spec.columns;
  l.group_columns = spec.group_size == 0 ? l.padded_columns : spec.group_size;
  l.groups = l.padded_columns / l.group_columns;
  l.zero_offset = static_cast<size_t>(l.groups) * kTileRows * sizeof(Half);
  const size_t zeros = l.codes == PackedCodes::levels ? kLevelBytes : static_cast<size_t>(l.groups) * l.zero_group_bytes();
  l.unit_offset = static_cast<size_t>(round_up(static_cast<int64_t>(l.zero_offset + zeros), 64));
  const size_t units =
      l.codes == PackedCodes::trits
          ? static_cast<size_t>((l.padded_columns / kChunkInputs + kPlaneTrits - 1) / kPlaneTrits) * kChunkCodes
          : static_cast<size_t>(l.padded_columns / kUnitInputs) * l.unit_bytes();
  l.tile_bytes = l.unit_offset + units;
  return l;
}

/// One bit field of a chunk inside its unit: `bits` bits from bit `shift` of byte [plane * 64 + lane], to stand at bit `to` of
/// the code.
struct CodeField {
  int plane, shift, bits, to;
};
/// The fields of `chunk` (one, or two for the last two chunks of 3-bit units); returns their number.
inline int code_fields(int bits, int chunk, CodeField fields[2]) {
  if (bits == 3 && chunk >= 6) {
    fields[0] = {chunk - 6, 6, 2, 0};
    fields[1] = {2, chunk, 1, 2};
    return 2;
  }
  const int per_byte = bits == 3 ? 2 : 8 / bits;
  fields[0] = {chunk / per_byte, bits * (chunk % per_byte), bits, 0};
  return 1;
}

inline uint8_t read_code(int bits, const uint8_t* unit, int chunk, int lane) {
  CodeField fields[2];
  const int n = code_fields(bits, chunk, fields);
  int code = 0;
  for (int i = 0; i < n; ++i) {
    const CodeField& f = fields[i];
    code |= ((unit[f.plane * kChunkCodes + lane] >> f.shift) & ((1 << f.bits) - 1)) << f.to;
  }
  return static_cast<uint8_t>(code);
}

/// Ors a code into a zeroed unit.
inline void write_code(int bits, uint8_t* unit, int chunk, int lane, uint8_t code) {
  CodeField fields[2];
  const int n = code_fields(bits, chunk, fields);
  for (int i = 0; i < n; ++i) {
    const CodeField& f = fields[i];
    unit[f.plane * kChunkCodes + lane] |= static_cast<uint8_t>(((code >> f.to) & ((1 << f.bits) - 1)) << f.shift);
  }
}

/// Trit `position` (of five) of a byte.
inline uint8_t read_trit(uint8_t byte, int position) {
  unsigned x = byte;
  for (int i = 0; i < position; ++i) x = x * 3 & 0xff;
  return static_cast<uint8_t>(x * 3 >> 8);
}
/// The byte of five trits.
inline uint8_t trit_byte(const uint8_t trits[kPlaneTrits]) {
  unsigned v = 0;
  for (int i = 0; i < kPlaneTrits; ++i) v = v * 3 + trits[i];
  return static_cast<uint8_t>((v * 256 + 242) / 243);
}

/// The code of chunk `chunk` (of a tile), lane `lane`.
inline uint8_t code_at(const Layout& l, const uint8_t* tile, int64_t chunk, int lane) {
  const uint8_t* units = tile + l.unit_offset;
  if (l.codes == PackedCodes::trits)
    return read_trit(units[chunk / kPlaneTrits * kChunkCodes + lane], static_cast<int>(chunk % kPlaneTrits));
  return read_code(l.bits, units + static_cast<size_t>(chunk / kUnitChunks) * l.unit_bytes(),
                   static_cast<int>(chunk % kUnitChunks), lane);
}
/// What a code means in units of the scale, of which center() is taken: the level + 128, or the code itself.
inline int meaning_of(const Layout& l, const uint8_t* tile, uint8_t code) {
  return l.codes == PackedCodes::levels ? tile[l.zero_offset + code] : code;
}

/// Integer zero points of a group: row r stands at bit (r % 8) * bits of byte (r / 8) * bits on (8 bits: byte r).
inline uint8_t read_zero(int bits, const uint8_t* zeros, int row) {
  if (bits == 8) return zeros[row];
  const int bit = (row / 8) * bits * 8 + (row % 8) * bits;
  const int pair = zeros[bit / 8] | (bit % 8 + bits > 8 ? zeros[bit / 8 + 1] << 8 : 0);
  return static_cast<uint8_t>((pair >> (bit % 8)) & ((1 << bits) - 1));
}
inline void write_zero(int bits, uint8_t* zeros, int row, uint8_t value) {
  if (bits == 8) {
    zeros[row] = value;
    return;
  }
  const int bit = (row / 8) * bits * 8 + (row % 8) * bits;
  zeros[bit / 8] |= static_cast<uint8_t>(value << (bit % 8));
  if (bit % 8 + bits > 8) zeros[bit / 8 + 1] |= static_cast<uint8_t>(value >> (8 - bit % 8));
}

/// Index of a float weight's value inside its tile.
inline int64_t float_index(const Layout& l, int row, int64_t column) {
  if (l.bfloat) return (column / 2 * kTileRows + row) * 2 + column % 2;
  return column * kTileRows + row;
}

}  // namespace lighten::kernels
