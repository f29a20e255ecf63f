// The obvious formulas, and the only path on processors without one of the wide instruction sets.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "lighten/kernels/scalar.h"

namespace lighten::kernels::scalar {

void quantize(const float* x, int64_t blocks, int block, int lanes, int8_t* q, float* scale, float* sum, int32_t* code_sum) {
  for (int64_t b = 0; b < blocks; ++b, x += block) {
    int32_t largest_bits = 0;  // as integers, so that a NaN wins and poisons the scale
    for (int i = 0; i < block; ++i) largest_bits = std::max(largest_bits, std::bit_cast<int32_t>(x[i]) & 0x7fffffff);
    const auto largest = std::bit_cast<float>(largest_bits);
    const float inverse = largest > kSmallestActivation ? 127.0f / largest : 0.0f;
    int32_t total = 0;
    for (int i = 0; i < block; ++i) {
      const float scaled = x[i] * inverse;
      const int value = std::fabs(scaled) <= 127.5f ? static_cast<int>(std::nearbyint(scaled)) : 0;
      q[((b * block + i) / kChunkInputs * lanes) * kChunkInputs + i % kChunkInputs] = static_cast<int8_t>(value);
      total += value;
    }
    scale[b * lanes] = largest / 127.0f;
    sum[b * lanes] = scale[b * lanes] * static_cast<float>(total);
    code_sum[b * lanes] = total;
  }
}

void expand_codes(int bits, const uint8_t* units, int64_t n_units, uint8_t* codes) {
  for (int64_t u = 0; u < n_units; ++u, units += 64 * bits) {
    for (int chunk = 0; chunk < kUnitChunks; ++chunk, codes += kChunkCodes) {
      for (int lane = 0; lane < kChunkCodes; ++lane) codes[lane] = read_code(bits, units, chunk, lane);
    }
  }
}

void block_factors(const Layout& l, const uint8_t* tile, int64_t first, int64_t blocks, float* scale, float* offset) {
  for (int64_t b = first; b < first + blocks; ++b, scale += kTileRows, offset += kTileRows) {
    const int64_t g = b * l.block / l.group_columns;
    const uint8_t* zeros = tile + l.zero_offset + static_cast<size_t>(g) * l.zero_group_bytes();
    for (int r = 0; r < kTileRows; ++r) {
      scale[r] = half_to_float(reinterpret_cast<const Half*>(tile)[g * kTileRows + r]);
      if (l.zero == PackedZero::minimum) {
        offset[r] = half_to_float(reinterpret_cast<const Half*>(zeros)[r]);
      } else {
        const int zero = l.zero == PackedZero::integer ? read_zero(l.bits, zeros, r) : 1 << (l.bits - 1);
        offset[r] = -scale[r] * static_cast<float>(zero);
      }
    }
  }
}

void multiply_codes(int, const uint8_t* codes, const float* scale, const float* offset, int block, int64_t blocks,
                    const CodePanel& panel, int lanes, float* y) {
  const int chunks = block / kChunkInputs;
  for (int64_t b = 0; b < blocks; ++b) {
    for (int t = 0; t < lanes; ++t) {
      int32_t dot[kTileRows] = {};
      for (int64_t chunk = b * chunks; chunk < (b + 1) * chunks; ++chunk) {
        const uint8_t* w = codes + chunk * kChunkCodes;
        const int8_t* q = panel.q + (chunk * lanes + t) * kChunkInputs;
        for (int r = 0; r < kTileRows; ++r) {
          for (int i = 0; i < kChunkInputs; ++i) dot[r] += w[r * kChunkInputs + i] * q[i];
        }
      }
      for (int r = 0; r < kTileRows; ++r) {
        y[t * kTileRows + r] += scale[b * kTileRows + r] * (panel.scale[b * lanes + t] * static_cast<float>(dot[r]));
        y[t * kTileRows + r] += offset[b * kTileRows + r] * panel.sum[b * lanes + t];
      }
    }
  }
}

void dequantize(const Layout& l, const uint8_t* tile, int64_t first, int64_t columns, float* w) {
  if (!l.low_bit()) {
    for (int64_t c = first; c < first + columns; ++c) {
      for (int r = 0; r < kTileRows; ++r) {
        const uint16_t value = reinterpret_cast<const uint16_t*>(tile)[float_index(l, r, c)];
        *w++ = l.bfloat ? bfloat16_to_float(value) : half_to_float(value);
      }
    }
    return;
  }
  float scale[kTileRows] = {}, offset[kTileRows] = {};
  for (int64_t c = first; c < first + columns; ++c) {
    if (c == first || c % l.block == 0) block_factors(l, tile, c / l.block, 1, scale, offset);
    const uint8_t* unit = tile + l.unit_offset + static_cast<size_t>(c / kUnitInputs) * l.unit_bytes();
    const int inside = static_cast<int>(c % kUnitInputs);
    for (int r = 0; r < kTileRows; ++r) {
      // Equal to scale * (q - zero): that product fits a float exactly, so one rounding finds it.
      const int q = read_code(l.bits, unit, inside / kChunkInputs, r * kChunkInputs + inside % kChunkInputs);
      *w++ = scale[r] * static_cast<float>(q) + offset[r];
    }
  }
}

void multiply_floats(const float* w, const float* x, int64_t columns, int lanes, float* y) {
  for (int64_t c = 0; c < columns; ++c, w += kTileRows, x += lanes) {
    for (int t = 0; t < lanes; ++t) {
      for (int r = 0; r < kTileRows; ++r) y[t * kTileRows + r] += x[t] * w[r];
    }
  }
}

}  // namespace lighten::kernels::scalar
