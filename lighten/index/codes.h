// Codes of an index as rows of bytes: what .npy files hold and what segments are made from.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lighten/base/json.h"
#include "lighten/kernels/scan.h"

namespace lighten {

enum class ScanKind : uint8_t { hamming, sdc };

/// A row is `planes` of bits, highest first, each of ceil(dimensions / 8) bytes, dimension d in bit d % 8 of byte d / 8.
/// Hamming codes have one plane (any order of bits is as good: distances are the same); SDC codes of u loops have u + 1, level
/// c of a dimension = its bits from the first plane to the last.
struct CodeFormat {
  ScanKind kind = ScanKind::hamming;
  SdcShape shape = {0, 0};  ///< Hamming: dimensions = bits, loops = 0
  int64_t plane_bytes() const { return (shape.dimensions + 7) / 8; }
  int64_t row_bytes() const { return plane_bytes() * (shape.loops + 1); }
  friend bool operator==(const CodeFormat& a, const CodeFormat& b) {
    return a.kind == b.kind && a.shape.dimensions == b.shape.dimensions && a.shape.loops == b.shape.loops;
  }
};
/// u = 0 is a Hamming code: the same order of neighbours, scanned by popcounts.
CodeFormat code_format(int64_t dimensions, int loops);
/// "hamming, 256 bits" / "sdc, 256 dimensions x 4 bits".
std::string to_text(const CodeFormat& format);

/// Levels [m], each in [0, L], <-> a row.
void levels_of_row(const CodeFormat& format, const uint8_t* row, uint8_t* levels);
void row_of_levels(const CodeFormat& format, const uint8_t* levels, uint8_t* row);
/// The direction a code stands for: v = 2c - L per dimension (Hamming: +-1), scaled to length 1.
void unit_vector_of_row(const CodeFormat& format, const uint8_t* row, float* vector);

}  // namespace lighten
