// The obvious formulas, and the only path on processors without one of the wide instruction sets.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "lighten/kernels/scalar.h"

namespace lighten::kernels::scalar {

void quantize(const float* x, int64_t blocks, int block, int lanes, int fine_ratio, uint8_t flip, const CodeLane& to) {
  const auto at = [&](int64_t i) { return i / kChunkInputs * lanes * kChunkInputs + i % kChunkInputs; };
  for (int64_t b = 0; b < blocks; ++b, x += block) {
    int32_t largest_bits = 0;  // as integers, so that a NaN wins and poisons the scale
    for (int i = 0; i < block; ++i) largest_bits = std::max(largest_bits, std::bit_cast<int32_t>(x[i]) & 0x7fffffff);
    const auto largest = std::bit_cast<float>(largest_bits);
    const float inverse = largest > kSmallestActivation ? 127.0f / largest : 0.0f;
    int q[64];
    int32_t q_sum = 0, fine_sum = 0, magnitudes = 0;
    for (int i = 0; i < block; ++i) {
      const float scaled = x[i] * inverse;
      const int value = std::fabs(scaled) <= 127.5f ? static_cast<int>(std::nearbyint(scaled)) : 0;
      q[i] = value;
      to.q[at(b * block + i)] = static_cast<int8_t>(value ^ flip);
      q_sum += value;
      magnitudes += std::abs(value);
    }
    const bool needs_fine = fine_ratio * magnitudes < 127 * block && inverse > 0;
    for (int i = 0; needs_fine && i < block; ++i) {
      const float rest = std::fma(x[i], inverse, -static_cast<float>(q[i])) * 256.0f;
      const int value = std::clamp(static_cast<int>(std::nearbyint(rest)), -127, 127);
      to.fine[at(b * block + i)] = static_cast<int8_t>(value ^ flip);
      fine_sum += value;
    }
    if (needs_fine) to.has_fine[b] |= to.bit;
    to.scale[b * lanes] = largest / 127.0f;
    to.sum[b * lanes] = to.scale[b * lanes] * (static_cast<float>(256 * q_sum + fine_sum) * kFineStep);
    to.q_sum[b * lanes] = q_sum;
    to.fine_sum[b * lanes] = fine_sum;
  }
}

void expand(const Layout& l, const uint8_t* tile, int64_t first, int64_t blocks, const CodeTile& to) {
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t g = (first + i) * l.block / l.group_columns;
    const uint8_t* zeros = tile + l.zero_offset + static_cast<size_t>(g) * l.zero_group_bytes();
    for (int r = 0; r < kTileRows; ++r) {
      const float scale = half_to_float(reinterpret_cast<const Half*>(tile)[g * kTileRows + r]);
      const bool minimum = l.zero == PackedZero::minimum;
      const int zero = l.zero == PackedZero::integer ? read_zero(l.bits, zeros, r) : minimum ? 0 : l.center();
      const int center = l.bits == 8 ? 128 : zero;
      to.scale[i * kTileRows + r] = scale;
      to.centers[i * kTileRows + r] = center;
      to.offset[i * kTileRows + r] =
          scale * static_cast<float>(center - zero) + (minimum ? half_to_float(reinterpret_cast<const Half*>(zeros)[r]) : 0.0f);
    }
    for (int64_t chunk = 0; chunk < l.block / kChunkInputs; ++chunk) {
      const int64_t at = (first + i) * l.block / kChunkInputs + chunk;  // among the chunks of the tile
      uint8_t* codes = to.codes + (i * l.block / kChunkInputs + chunk) * kChunkCodes;
      for (int lane = 0; lane < kChunkCodes; ++lane)
        codes[lane] = static_cast<uint8_t>(meaning_of(l, tile, code_at(l, tile, at, lane)));
    }
  }
}

void multiply_codes(int, const CodeTiles& tile, int, int block, int64_t blocks, const CodePanel& panel, int lanes, float* y,
                    int64_t) {
  const int chunks = block / kChunkInputs;
  for (int64_t b = 0; b < blocks; ++b) {
    for (int t = 0; t < lanes; ++t) {
      const int32_t* center = tile.first.centers + b * kTileRows;
      const auto add_products = [&](const int8_t* q_of_panel, float step) {
        int32_t dot[kTileRows] = {};
        for (int64_t chunk = b * chunks; chunk < (b + 1) * chunks; ++chunk) {
          const uint8_t* w = tile.first.codes + chunk * kChunkCodes;
          const int8_t* q = q_of_panel + (chunk * lanes + t) * kChunkInputs;
          for (int r = 0; r < kTileRows; ++r) {
            for (int i = 0; i < kChunkInputs; ++i) dot[r] += (w[r * kChunkInputs + i] - center[r]) * q[i];
          }
        }
        for (int r = 0; r < kTileRows; ++r)
          y[t * kTileRows + r] += tile.first.scale[b * kTileRows + r] * (static_cast<float>(dot[r]) * step);
      };
      const float scale = panel.scale[b * lanes + t];
      add_products(panel.q, scale);
      if (panel.has_fine[b] >> t & 1) add_products(panel.fine, scale * kFineStep);
      for (int r = 0; tile.has_offset && r < kTileRows; ++r)
        y[t * kTileRows + r] += tile.first.offset[b * kTileRows + r] * panel.sum[b * lanes + t];
    }
  }
}

namespace {
/// w = scale * code + offset.
void group_factors(const Layout& l, const uint8_t* tile, int64_t g, float* scale, float* offset) {
  const uint8_t* zeros = tile + l.zero_offset + static_cast<size_t>(g) * l.zero_group_bytes();
  for (int r = 0; r < kTileRows; ++r) {
    scale[r] = half_to_float(reinterpret_cast<const Half*>(tile)[g * kTileRows + r]);
    if (l.zero == PackedZero::minimum) {
      offset[r] = half_to_float(reinterpret_cast<const Half*>(zeros)[r]);
    } else {
      const int zero = l.zero == PackedZero::integer ? read_zero(l.bits, zeros, r) : l.center();
      offset[r] = -scale[r] * static_cast<float>(zero);
    }
  }
}
}  // namespace

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
    if (c == first || c % l.block == 0) group_factors(l, tile, c / l.group_columns, scale, offset);
    for (int r = 0; r < kTileRows; ++r) {
      // Equal to scale * (q - zero): that product fits a float exactly, so one rounding finds it.
      const int lane = r * kChunkInputs + static_cast<int>(c % kChunkInputs);
      const int q = meaning_of(l, tile, code_at(l, tile, c / kChunkInputs, lane));
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
