#include "lighten/index/codes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lighten {

CodeFormat code_format(int64_t dimensions, int loops) {
  check(SdcShape{dimensions, loops});
  return {loops == 0 ? ScanKind::hamming : ScanKind::sdc, {dimensions, loops}};
}

std::string to_text(const CodeFormat& format) {
  if (format.kind == ScanKind::hamming) return fmt::format("hamming, {} bits", format.shape.dimensions);
  return fmt::format("sdc, {} dimensions x {} bits", format.shape.dimensions, format.shape.loops + 1);
}

void levels_of_row(const CodeFormat& format, const uint8_t* row, uint8_t* levels) {
  const int64_t bytes = format.plane_bytes();
  std::fill_n(levels, format.shape.dimensions, uint8_t{0});
  for (int plane = 0; plane <= format.shape.loops; ++plane)
    for (int64_t d = 0; d < format.shape.dimensions; ++d)
      levels[d] = static_cast<uint8_t>(levels[d] << 1 | (row[plane * bytes + d / 8] >> (d % 8) & 1));
}

void row_of_levels(const CodeFormat& format, const uint8_t* levels, uint8_t* row) {
  const int64_t bytes = format.plane_bytes();
  std::fill_n(row, format.row_bytes(), uint8_t{0});
  for (int plane = 0; plane <= format.shape.loops; ++plane)
    for (int64_t d = 0; d < format.shape.dimensions; ++d)
      row[plane * bytes + d / 8] |= static_cast<uint8_t>((levels[d] >> (format.shape.loops - plane) & 1) << (d % 8));
}

void unit_vector_of_row(const CodeFormat& format, const uint8_t* row, float* vector) {
  std::vector<uint8_t> levels(static_cast<size_t>(format.shape.dimensions));
  levels_of_row(format, row, levels.data());
  double square = 0;
  for (size_t d = 0; d < levels.size(); ++d) {
    vector[d] = static_cast<float>(2 * levels[d] - format.shape.levels());
    square += static_cast<double>(vector[d]) * vector[d];
  }
  const auto scale = static_cast<float>(1 / std::sqrt(square));
  for (size_t d = 0; d < levels.size(); ++d) vector[d] *= scale;
}

}  // namespace lighten
