// One immutable file of an index: codes in scan blocks, list by list, with their ids. Adding writes another one; removing marks
// codes elsewhere.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/index/codes.h"

namespace lighten {

/// 64 bits over any bytes, for finding damage (not for keeping out forgers): four lanes of multiply and rotate, several GB/s.
uint64_t checksum(std::span<const std::byte> bytes);

/// Where a list's blocks stand in a segment.
struct SegmentList {
  int64_t first_block = 0;
  int64_t count = 0;  ///< codes
};

/// A mapped segment. Layout (little-endian): a header of 128 bytes (magic, format version, code format, counts, offsets, a
/// checksum of the header), then 64-byte aligned: blocks (scan.h), inverse norms (SDC) float32 [positions], ids int64
/// [positions] (-1 where a block is filled up), lists [lists] of (first block, codes). A position is block * 32 + place in the
/// block.
class Segment {
 public:
  /// Checks the header, that all parts lie inside the file and that the lists cover the blocks. Throws FormatError.
  Segment(const fs::path& path, const CodeFormat& format);
  int64_t count() const { return count_; }
  int64_t blocks() const { return blocks_; }
  const std::vector<SegmentList>& lists() const { return lists_; }
  std::span<const int64_t> ids() const { return ids_; }  ///< [positions]
  /// The code at a position as a row.
  void read_row(int64_t position, uint8_t* row) const;
  HammingBlocks hamming(const SegmentList& list) const;
  SdcBlocks sdc(const SegmentList& list) const;
  std::span<const std::byte> bytes() const { return file_.bytes(); }

 private:
  MappedFile file_;
  CodeFormat format_;
  int64_t count_ = 0, blocks_ = 0, block_bytes_ = 0;
  std::vector<SegmentList> lists_;
  const std::byte* codes_ = nullptr;
  const float* norms_ = nullptr;
  std::span<const int64_t> ids_;
};

/// Writes a segment atomically; rows [ids.size(), row_bytes] in their order inside each list. `home`: the list of each row;
/// empty: one list. Returns the checksum of the file.
uint64_t write_segment(const fs::path& path, const CodeFormat& format, const uint8_t* rows, std::span<const int64_t> ids,
                       std::span<const int32_t> home, int64_t lists);

}  // namespace lighten
