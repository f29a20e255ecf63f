// How a low-bit weight lies in the memory of a graphics card: in the order in which its tensor cores take it.
//
// Rows are cut into tiles of 16, inputs into blocks of 64; what one warp multiplies with at a time is a tile by a block, 32
// codes for each of its 32 lanes. The product is mma.m16n8k16: four steps a block, each wants of a lane (g = lane / 4, t = lane
// % 4) four registers of two 16-bit numbers: row g, row g + 8, row g, row g + 8. Which input a place of the product's inner
// side stands for is free as long as both sides agree: of a block's half h, lane t has inputs 32 h + 8 t .. + 7, so that it
// finds eight neighbouring activations of 16 bits in one load of 16 bytes. Step s = 2 h + i takes 8 t + 4 i .. + 3 of them.
//
// Pair j = 4 s + register of a lane holds two codes, in the lower and the upper half of a 32-bit word at the same place, so
// that one operation takes both out:
//
//   8 bits   word j / 2, its bytes 2 (j % 2) and the next: they are taken out by a byte permutation
//   4 bits   word j / 4, at bit 4 (j % 4)
//   3 bits   word j / 5, at bit 3 (j % 5); the last pair's three bits are the bits 15 of words 0, 1, 2
//   2 bits   word j / 8, at bit 2 (j % 8)
//
// A lane has `bits` words a block. They are stored so that the lanes of a warp read them in one piece of 16 (8, 4) bytes each.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lighten/base/threads.h"
#include "lighten/kernels/linear.h"

namespace lighten::kernels {

inline constexpr int kDeviceBlockInputs = 64;
inline constexpr int kDevicePairs = 16;  ///< of a lane in a block
inline constexpr int kWarpLanes = 32;

/// The numbers of a packed weight, rearranged.
struct DeviceLayout {
  int bits = 0;  ///< 2, 3, 4, 8
  PackedZero zero = PackedZero::integer;
  int center = 0;  ///< of symmetric weights
  int64_t rows = 0, columns = 0;
  int64_t tiles = 0, blocks = 0;  ///< of 16 rows, of 64 inputs (the last filled up)
  int64_t group_units = 0;        ///< inputs of one scale, in units of 32: a power of two
  int64_t groups = 0;             ///< per row

  int64_t words_per_tile() const { return blocks * kWarpLanes * bits; }
  /// Bytes that a product reads: codes, scales and zeros.
  size_t bytes() const;
  /// Of one group of one tile: a nibble pair per lane (bits <= 4), two bytes (8 bits) or two binary16 (minimums).
  size_t zero_group_bytes() const {
    return zero == PackedZero::symmetric ? 0 : zero == PackedZero::minimum ? 32 : bits == 8 ? 16 : 8;
  }
};

struct DeviceCodes {
  DeviceLayout layout;
  std::vector<uint32_t> codes;  ///< [tiles][blocks][32 lanes' words]
  std::vector<Half> scales;     ///< [tiles][groups][8][2]: rows g and g + 8; times 2^exponent
  std::vector<uint8_t> zeros;   ///< [tiles][groups][zero_group_bytes()], rows g and g + 8 together; minimums times 2^exponent
  int exponent = 0;             ///< brings the largest weight into [2^9, 2^10): its binary16 form then has all its digits
};

/// Whether such a weight has a form for the card: 2, 3, 4 or 8 bits, codes plain or trits (which get two bits).
bool has_device_layout(const LinearSpec& spec);
DeviceLayout device_layout_of(const LinearSpec& spec);
/// Rearranges packed_bytes(spec) bytes. Throws ModelError without has_device_layout().
DeviceCodes device_codes(const LinearSpec& spec, const std::byte* packed, ThreadPool& pool);
/// The exact inverse for one row: what the card multiplies with, [columns], times 2^-exponent.
std::vector<float> device_row(const DeviceCodes& codes, int64_t row);

/// Where a code stands: bit `bit` of word `word` on, except the last pair of 3 bits (`spread`), whose bit b is bit `bit` of
/// word b.
struct DevicePlace {
  int64_t word;
  int bit;
  bool spread;
};
DevicePlace device_place(int bits, int64_t block, int row, int column);

}  // namespace lighten::kernels
