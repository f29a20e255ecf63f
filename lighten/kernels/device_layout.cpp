#include "lighten/kernels/device_layout.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "lighten/base/error.h"
#include "lighten/kernels/layout.h"

namespace lighten::kernels {

namespace {

constexpr int kHalfTile = kTileRows / 2;

/// Word `w` of a lane in a block: 16, 8 or 4 bytes a lane side by side.
int64_t word_in_block(int bits, int lane, int w) {
  if (bits == 3) return w < 2 ? lane * 2 + w : 2 * kWarpLanes + lane;
  const int piece = std::min(bits, 4);
  return static_cast<int64_t>(w / piece) * kWarpLanes * piece + lane * piece + w % piece;
}

void write_bits(uint32_t* words, const DevicePlace& place, int bits, unsigned code) {
  if (!place.spread) {
    words[place.word] |= code << place.bit;
    return;
  }
  // Words 0 and 1 of a lane are neighbours; the third lies behind all of them.
  const int64_t lane = place.word % (3 * kWarpLanes) / 2, block = place.word / (3 * kWarpLanes) * 3 * kWarpLanes;
  for (int b = 0; b < bits; ++b) words[block + word_in_block(3, static_cast<int>(lane), b)] |= (code >> b & 1u) << place.bit;
}

unsigned read_bits(const uint32_t* words, const DevicePlace& place, int bits) {
  if (!place.spread) return words[place.word] >> place.bit & ((1u << bits) - 1);
  const int64_t lane = place.word % (3 * kWarpLanes) / 2, block = place.word / (3 * kWarpLanes) * 3 * kWarpLanes;
  unsigned code = 0;
  for (int b = 0; b < bits; ++b) code |= (words[block + word_in_block(3, static_cast<int>(lane), b)] >> place.bit & 1u) << b;
  return code;
}

/// The parts of a weight as they are before packing.
struct Parts {
  std::vector<uint8_t> codes, zero_points;
  std::vector<Half> scales, minimums;
};

Parts unpacked(const LinearSpec& spec, const std::byte* packed, bool with_codes) {
  Parts parts;
  const int64_t groups = layout_of(spec).groups;
  const auto factors = static_cast<size_t>(spec.rows * groups);
  if (with_codes) parts.codes.resize(static_cast<size_t>(spec.rows * spec.columns));
  parts.scales.resize(factors);
  const bool trits = spec.codes == PackedCodes::trits;
  if (spec.zero == PackedZero::integer || trits) parts.zero_points.assign(factors, 1);
  if (spec.zero == PackedZero::minimum) parts.minimums.resize(factors);
  unpack_linear(spec, packed, with_codes ? parts.codes.data() : nullptr, parts.scales.data(),
                spec.zero == PackedZero::integer ? parts.zero_points.data() : nullptr,
                parts.minimums.empty() ? nullptr : parts.minimums.data());
  return parts;
}

/// 2^exponent times the largest weight lies in [2^9, 2^10).
int exponent_of(const Parts& parts, int bits) {
  float largest = 0;
  for (const Half scale : parts.scales)
    largest = std::max(largest, std::fabs(half_to_float(scale)) * static_cast<float>((1 << bits) - 1));
  for (const Half minimum : parts.minimums) largest = std::max(largest, std::fabs(half_to_float(minimum)));
  if (largest == 0 || !std::isfinite(largest)) return 0;
  return 9 - std::ilogb(largest);
}

Half scaled(Half value, int exponent) { return float_to_half(std::ldexp(half_to_float(value), exponent)); }

void put_zero(const DeviceLayout& l, const Parts& parts, size_t from, int row, int exponent, uint8_t* group) {
  const int g = row % kHalfTile, upper = row / kHalfTile;
  if (l.zero == PackedZero::minimum) {
    const Half minimum = scaled(parts.minimums[from], exponent);
    std::memcpy(group + (g * 2 + upper) * 2, &minimum, sizeof(minimum));
  } else if (l.bits == 8) {
    group[g * 2 + upper] = parts.zero_points[from];
  } else {
    group[g] |= static_cast<uint8_t>(parts.zero_points[from] << (4 * upper));
  }
}

/// One tile's codes, scales and zeros to their places.
void put_tile(const LinearSpec& spec, const std::byte* packed, int64_t tile, const std::vector<DevicePlace>& places,
              DeviceCodes& out) {
  const DeviceLayout& l = out.layout;
  LinearSpec one = spec;
  one.rows = std::min<int64_t>(kTileRows, spec.rows - tile * kTileRows);
  const Parts parts = unpacked(one, packed, true);
  const int64_t groups = layout_of(spec).groups, repeats = l.groups / groups;
  uint32_t* words = out.codes.data() + tile * l.words_per_tile();
  for (int row = 0; row < one.rows; ++row) {
    for (int64_t c = 0; c < l.columns; ++c) {
      DevicePlace place = places[static_cast<size_t>(row * kDeviceBlockInputs + c % kDeviceBlockInputs)];
      place.word += c / kDeviceBlockInputs * kWarpLanes * l.bits;
      write_bits(words, place, l.bits, parts.codes[static_cast<size_t>(row * l.columns + c)]);
    }
    for (int64_t g = 0; g < l.groups; ++g) {
      const auto from = static_cast<size_t>(row * groups + g / repeats), to = static_cast<size_t>(tile * l.groups + g);
      out.scales[to * kTileRows + static_cast<size_t>(row % kHalfTile * 2 + row / kHalfTile)] =
          scaled(parts.scales[from], out.exponent);
      if (l.zero != PackedZero::symmetric)
        put_zero(l, parts, from, row, out.exponent, out.zeros.data() + to * l.zero_group_bytes());
    }
  }
}

int zero_of(const DeviceLayout& l, const uint8_t* group, int row) {
  const int g = row % kHalfTile, upper = row / kHalfTile;
  return l.bits == 8 ? group[g * 2 + upper] : group[g] >> (4 * upper) & 15;
}

}  // namespace

size_t DeviceLayout::bytes() const {
  const auto factors = static_cast<size_t>(tiles * groups);
  return static_cast<size_t>(tiles * words_per_tile()) * sizeof(uint32_t) +
         factors * (kTileRows * sizeof(Half) + zero_group_bytes());
}

bool has_device_layout(const LinearSpec& spec) {
  return (spec.bits == 2 || spec.bits == 3 || spec.bits == 4 || spec.bits == 8) && spec.codes != PackedCodes::levels;
}

DeviceLayout device_layout_of(const LinearSpec& spec) {
  if (!has_device_layout(spec))
    throw_error<ModelError>("weights of {} bits of this kind have no kernel for the graphics card", spec.bits);
  const Layout packed = layout_of(spec);
  DeviceLayout l;
  l.bits = spec.bits;
  l.zero = spec.codes == PackedCodes::trits ? PackedZero::integer : spec.zero;  // a trit's zero is not in the middle
  l.center = packed.center();
  l.rows = spec.rows;
  l.columns = spec.columns;
  l.tiles = packed.tiles;
  l.blocks = (spec.columns + kDeviceBlockInputs - 1) / kDeviceBlockInputs;
  const int64_t units = spec.group_size / kUnitInputs;
  if (spec.group_size == 0) {
    l.group_units = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(2 * l.blocks)));
    l.groups = 1;
  } else {
    l.group_units = units & -units;  // its largest power of two: of 96 inputs each 32 get the scale again
    l.groups = packed.groups * (units / l.group_units);
  }
  return l;
}

DevicePlace device_place(int bits, int64_t block, int row, int column) {
  const int half = column / 32, t = column % 32 / 8, inside = column % 8;
  const int step = 2 * half + inside / 4, upper_row = row / kHalfTile;
  const int pair = 4 * step + inside % 4 / 2 * 2 + upper_row;
  const int lane = row % kHalfTile * 4 + t, second = column % 2;
  const int64_t first = block * kWarpLanes * bits;
  if (bits == 3 && pair == kDevicePairs - 1) return {first + word_in_block(3, lane, 0), 15 + 16 * second, true};
  const int per_word = bits == 3 ? 5 : 16 / bits;
  const int bit = bits == 8 ? 16 * (pair % 2) + 8 * second : bits * (pair % per_word) + 16 * second;
  return {first + word_in_block(bits, lane, pair / per_word), bit, false};
}

DeviceCodes device_codes(const LinearSpec& spec, const std::byte* packed, ThreadPool& pool) {
  DeviceCodes out;
  out.layout = device_layout_of(spec);
  const DeviceLayout& l = out.layout;
  out.exponent = exponent_of(unpacked(spec, packed, false), spec.bits);
  out.codes.resize(static_cast<size_t>(l.tiles * l.words_per_tile()));
  out.scales.resize(static_cast<size_t>(l.tiles * l.groups * kTileRows));
  out.zeros.resize(static_cast<size_t>(l.tiles * l.groups) * l.zero_group_bytes());
  std::vector<DevicePlace> places;  // of a block, by row and column
  for (int row = 0; row < kTileRows; ++row)
    for (int column = 0; column < kDeviceBlockInputs; ++column) places.push_back(device_place(l.bits, 0, row, column));
  const size_t tile_bytes = layout_of(spec).tile_bytes;
  pool.parallel_for(l.tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile)
      put_tile(spec, packed + static_cast<size_t>(tile) * tile_bytes, tile, places, out);
  });
  return out;
}

std::vector<float> device_row(const DeviceCodes& codes, int64_t row) {
  const DeviceLayout& l = codes.layout;
  const int64_t tile = row / kTileRows;
  const int inside = static_cast<int>(row % kTileRows);
  std::vector<float> values;
  for (int64_t c = 0; c < l.columns; ++c) {
    const auto group = static_cast<size_t>(tile * l.groups + c / (l.group_units * kUnitInputs));
    const DevicePlace place = device_place(l.bits, c / kDeviceBlockInputs, inside, static_cast<int>(c % kDeviceBlockInputs));
    const auto q = static_cast<int>(read_bits(codes.codes.data() + tile * l.words_per_tile(), place, l.bits));
    const float scale =
        half_to_float(codes.scales[group * kTileRows + static_cast<size_t>(inside % kHalfTile * 2 + inside / kHalfTile)]);
    const uint8_t* zeros = codes.zeros.data() + group * l.zero_group_bytes();
    float value = 0;
    if (l.zero == PackedZero::minimum) {
      Half minimum;
      std::memcpy(&minimum, zeros + (inside % kHalfTile * 2 + inside / kHalfTile) * 2, sizeof(minimum));
      value = scale * static_cast<float>(q) + half_to_float(minimum);
    } else {
      value = scale * static_cast<float>(q - (l.zero == PackedZero::integer ? zero_of(l, zeros, inside) : l.center));
    }
    values.push_back(std::ldexp(value, -codes.exponent));
  }
  return values;
}

}  // namespace lighten::kernels
