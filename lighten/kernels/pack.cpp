#include <algorithm>
#include <cstring>
#include <vector>

#include "lighten/base/error.h"
#include "lighten/kernels/kernel_table.h"
#include "lighten/kernels/layout.h"
#include "lighten/kernels/linear.h"

namespace lighten {

using kernels::kChunkInputs;
using kernels::kTileRows;
using kernels::kUnitInputs;
using kernels::Layout;
using kernels::layout_of;

namespace {

uint8_t* bytes_of(std::byte* p) { return reinterpret_cast<uint8_t*>(p); }
const uint8_t* bytes_of(const std::byte* p) { return reinterpret_cast<const uint8_t*>(p); }

uint8_t code_of(const Layout& l, const uint8_t* tile, int row, int64_t column) {
  return kernels::code_at(l, tile, column / kChunkInputs, row * kChunkInputs + static_cast<int>(column % kChunkInputs));
}

/// One row's trits into the planes of its tile; those past the end are 1, which means 0.
void pack_trits(const Layout& l, const uint8_t* codes, int row, uint8_t* planes) {
  const int64_t chunks = l.padded_columns / kChunkInputs;
  for (int64_t plane = 0; plane * kernels::kPlaneTrits < chunks; ++plane) {
    for (int i = 0; i < kChunkInputs; ++i) {
      uint8_t trits[kernels::kPlaneTrits];
      for (int t = 0; t < kernels::kPlaneTrits; ++t) {
        const int64_t column = (plane * kernels::kPlaneTrits + t) * kChunkInputs + i;
        trits[t] = column < l.columns ? std::min<uint8_t>(codes[column], 2) : uint8_t{1};
      }
      planes[plane * kernels::kChunkCodes + row * kChunkInputs + i] = kernels::trit_byte(trits);
    }
  }
}

struct Place {
  int64_t unit;
  int chunk, lane;
};
Place place_of(int row, int64_t column) {
  const int inside = static_cast<int>(column % kUnitInputs);
  return {column / kUnitInputs, inside / kChunkInputs, row * kChunkInputs + inside % kChunkInputs};
}

void store_half(uint8_t* at, Half value) { std::memcpy(at, &value, sizeof(value)); }
Half load_half(const uint8_t* at) {
  Half value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

int rows_of(const Layout& l, int64_t tile) { return static_cast<int>(std::min<int64_t>(kTileRows, l.rows - tile * kTileRows)); }

/// One plane of a checked weight; what its kind needs is there.
void pack_plane(const Layout& l, const uint8_t* codes, const Half* scales, const uint8_t* zero_points, const Half* minimums,
                std::byte* out, const int8_t* levels) {
  std::memset(out, 0, l.plane_bytes());
  const auto mask = static_cast<uint8_t>((1 << l.bits) - 1);
  for (int64_t row = 0; row < l.rows; ++row) {
    uint8_t* tile = bytes_of(out) + static_cast<size_t>(row / kTileRows) * l.tile_bytes;
    const int r = static_cast<int>(row % kTileRows);
    for (int64_t g = 0; g < l.groups; ++g) {
      const int64_t from = row * l.groups + g;
      store_half(tile + (g * kTileRows + r) * 2, scales[from]);
      uint8_t* zeros = tile + l.zero_offset + static_cast<size_t>(g) * l.zero_group_bytes();
      if (l.zero == PackedZero::integer && zero_points) kernels::write_zero(l.bits, zeros, r, zero_points[from] & mask);
      if (l.zero == PackedZero::minimum && minimums) store_half(zeros + r * 2, minimums[from]);
    }
    if (l.codes == PackedCodes::levels && levels) {
      for (int i = 0; i <= mask; ++i) tile[l.zero_offset + static_cast<size_t>(i)] = static_cast<uint8_t>(levels[i] + 128);
    }
    const uint8_t* from = codes + row * l.columns;
    if (l.codes == PackedCodes::trits) {
      pack_trits(l, from, r, tile + l.unit_offset);
      continue;
    }
    for (int64_t column = 0; column < l.columns; ++column) {
      const Place at = place_of(r, column);
      uint8_t* unit = tile + l.unit_offset + static_cast<size_t>(at.unit) * l.unit_bytes();
      kernels::write_code(l.bits, unit, at.chunk, at.lane, from[column] & mask);
    }
  }
}

}  // namespace

void check(const LinearSpec& spec) {
  constexpr int64_t kLargest = int64_t{1} << 31;
  if (spec.rows <= 0 || spec.columns <= 0 || spec.rows > kLargest || spec.columns > kLargest) {
    throw_error<ModelError>("linear: a weight of {} x {} cannot be packed; both sizes must lie in 1 .. 2^31", spec.rows,
                            spec.columns);
  }
  if ((spec.bits == 16 || spec.bits == 32) && spec.planes == 1) return;
  if (spec.bits != 1 && spec.bits != 2 && spec.bits != 3 && spec.bits != 4 && spec.bits != 8) {
    throw_error<ModelError>("linear: no kernel for {} bits; 1, 2, 3, 4, 8 (codes), 16 and 32 (floats) would do", spec.bits);
  }
  if (spec.planes != 1 && (spec.bits != 1 || spec.planes < 1 || spec.planes > kMostPlanes))
    throw_error<ModelError>("linear: {} planes of {} bits; 1 to {} planes of 1 bit would do", spec.planes, spec.bits,
                            kMostPlanes);
  if (spec.codes != PackedCodes::plain) {
    const bool levels = spec.codes == PackedCodes::levels && spec.bits >= 2 && spec.bits <= 4;
    const bool trits = spec.codes == PackedCodes::trits && spec.bits == 2;
    if (!levels && !trits)
      throw_error<ModelError>("linear: codes of kind {} with {} bits; levels of 2, 3 or 4 bits or trits of 2 would do",
                              static_cast<int>(spec.codes), spec.bits);
    if (spec.zero != PackedZero::symmetric)
      throw ModelError("linear: levels and trits have no zero points: make them symmetric");
  }
  if (spec.zero != PackedZero::symmetric && spec.zero != PackedZero::integer && spec.zero != PackedZero::minimum) {
    throw_error<ModelError>("linear: unknown kind of zero point {}", static_cast<int>(spec.zero));
  }
  if (spec.group_size == 0) return;
  if (spec.group_size < 0 || spec.group_size % kUnitInputs != 0 || spec.columns % spec.group_size != 0) {
    throw_error<ModelError>(
        "linear: no kernel for groups of {} in {} inputs; a multiple of 32 that divides the inputs would do, or 0 (one group "
        "per row)",
        spec.group_size, spec.columns);
  }
}

size_t packed_bytes(const LinearSpec& spec) {
  check(spec);
  const Layout l = layout_of(spec);
  return static_cast<size_t>(l.planes) * l.plane_bytes();
}

void pack_linear(const LinearSpec& spec, const uint8_t* codes, const Half* scales, const uint8_t* zero_points,
                 const Half* minimums, std::byte* out, const int8_t* levels) {
  check(spec);
  if (spec.bits > 8) throw_error<ModelError>("pack_linear: {} bits are floats; use pack_float", spec.bits);
  if (spec.codes == PackedCodes::levels && levels == nullptr)
    throw ModelError("pack_linear: a weight of levels needs their table");
  if ((spec.zero == PackedZero::integer && zero_points == nullptr) || (spec.zero == PackedZero::minimum && minimums == nullptr))
    throw ModelError("pack_linear: a weight with zero points or minimums needs them");
  const Layout l = layout_of(spec);
  const int64_t factors = l.rows * l.groups;
  for (int64_t p = 0; p < l.planes; ++p)
    pack_plane(l, codes + p * l.rows * l.columns, scales + p * factors, zero_points ? zero_points + p * factors : nullptr,
               minimums ? minimums + p * factors : nullptr, out + static_cast<size_t>(p) * l.plane_bytes(), levels);
}

void unpack_linear(const LinearSpec& spec, const std::byte* packed, uint8_t* codes, Half* scales, uint8_t* zero_points,
                   Half* minimums, int8_t* levels) {
  check(spec);
  if (spec.bits > 8) throw_error<ModelError>("unpack_linear: {} bits are floats; use unpack_row", spec.bits);
  const Layout l = layout_of(spec);
  if (spec.planes > 1) {
    LinearSpec one = spec;
    one.planes = 1;
    const int64_t factors = l.rows * l.groups;
    for (int64_t p = 0; p < spec.planes; ++p)
      unpack_linear(one, packed + static_cast<size_t>(p) * l.plane_bytes(), codes ? codes + p * l.rows * l.columns : nullptr,
                    scales ? scales + p * factors : nullptr, zero_points ? zero_points + p * factors : nullptr,
                    minimums ? minimums + p * factors : nullptr);
    return;
  }
  for (int64_t row = 0; row < l.rows; ++row) {
    const uint8_t* tile = bytes_of(packed) + static_cast<size_t>(row / kTileRows) * l.tile_bytes;
    const int r = static_cast<int>(row % kTileRows);
    for (int64_t g = 0; g < l.groups; ++g) {
      const int64_t to = row * l.groups + g;
      const uint8_t* zeros = tile + l.zero_offset + static_cast<size_t>(g) * l.zero_group_bytes();
      if (scales) scales[to] = load_half(tile + (g * kTileRows + r) * 2);
      if (zero_points && l.zero == PackedZero::integer) zero_points[to] = kernels::read_zero(l.bits, zeros, r);
      if (minimums && l.zero == PackedZero::minimum) minimums[to] = load_half(zeros + r * 2);
    }
    if (levels && l.codes == PackedCodes::levels && row == 0) {
      for (int i = 0; i < 1 << l.bits; ++i) levels[i] = static_cast<int8_t>(tile[l.zero_offset + static_cast<size_t>(i)] - 128);
    }
    if (!codes) continue;
    for (int64_t column = 0; column < l.columns; ++column) codes[row * l.columns + column] = code_of(l, tile, r, column);
  }
}

void pack_float(const LinearSpec& spec, const float* weights, std::byte* out) {
  check(spec);
  if (spec.bits <= 8) throw_error<ModelError>("pack_float: {} bits are codes; use pack_linear", spec.bits);
  const Layout l = layout_of(spec);
  std::memset(out, 0, static_cast<size_t>(l.tiles) * l.tile_bytes);
  for (int64_t tile = 0; tile < l.tiles; ++tile) {
    std::byte* at = out + static_cast<size_t>(tile) * l.tile_bytes;
    for (int r = 0; r < rows_of(l, tile); ++r) {
      const float* row = weights + (tile * kTileRows + r) * l.columns;
      for (int64_t column = 0; column < l.columns; ++column) {
        const int64_t i = kernels::float_index(l, r, column);
        if (l.bits == 32) {
          reinterpret_cast<float*>(at)[i] = row[column];
        } else {
          reinterpret_cast<uint16_t*>(at)[i] = l.bfloat ? float_to_bfloat16(row[column]) : float_to_half(row[column]);
        }
      }
    }
  }
}

void unpack_row(const LinearSpec& spec, const std::byte* packed, int64_t row, float* out) {
  const Layout l = layout_of(spec);
  if (spec.planes > 1) {
    LinearSpec one = spec;
    one.planes = 1;
    std::vector<float> plane(static_cast<size_t>(l.columns));
    std::fill(out, out + l.columns, 0.0f);
    for (int64_t p = 0; p < spec.planes; ++p) {
      unpack_row(one, packed + static_cast<size_t>(p) * l.plane_bytes(), row, plane.data());
      for (int64_t c = 0; c < l.columns; ++c) out[c] += plane[static_cast<size_t>(c)];
    }
    return;
  }
  const uint8_t* tile = bytes_of(packed) + static_cast<size_t>(row / kTileRows) * l.tile_bytes;
  const int r = static_cast<int>(row % kTileRows);
  if (!l.low_bit()) {
    for (int64_t column = 0; column < l.columns; ++column) {
      const int64_t i = kernels::float_index(l, r, column);
      if (l.bits == 32) {
        std::memcpy(out + column, tile + i * 4, 4);
      } else {
        const uint16_t value = load_half(tile + i * 2);
        out[column] = l.bfloat ? bfloat16_to_float(value) : half_to_float(value);
      }
    }
    return;
  }
  for (int64_t column = 0; column < l.columns; ++column) {
    const int64_t g = column / l.group_columns;
    const uint8_t* zeros = tile + l.zero_offset + static_cast<size_t>(g) * l.zero_group_bytes();
    const int q = kernels::meaning_of(l, tile, code_of(l, tile, r, column));
    const float scale = half_to_float(load_half(tile + (g * kTileRows + r) * 2));
    if (l.zero == PackedZero::minimum) {
      out[column] = scale * static_cast<float>(q) + half_to_float(load_half(zeros + r * 2));
    } else {
      const int zero = l.zero == PackedZero::integer ? kernels::read_zero(l.bits, zeros, r) : l.center();
      out[column] = scale * static_cast<float>(q - zero);
    }
  }
}

}  // namespace lighten
