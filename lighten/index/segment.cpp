#include "lighten/index/segment.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#include "lighten/base/error.h"

namespace lighten {
namespace {

constexpr uint64_t kMagic = 0x31304745534e544c;  // "LTNSEG01"
constexpr uint32_t kVersion = 1;
constexpr uint64_t kAlignment = 64;

struct Header {
  uint64_t magic = kMagic;
  uint32_t version = kVersion;
  uint32_t kind = 0;
  int64_t dimensions = 0, loops = 0;
  int64_t count = 0, blocks = 0, lists = 0;
  uint64_t norms_at = 0, ids_at = 0, lists_at = 0, end = 0;
  uint64_t reserved[4] = {};
  uint64_t checksum = 0;  ///< of the bytes before
};
static_assert(sizeof(Header) == 128);

uint64_t aligned(uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

size_t code_bytes(const CodeFormat& format, int64_t blocks) {
  const int64_t codes = blocks * kScanBlock;
  return format.kind == ScanKind::hamming ? hamming_bytes(codes, hamming_words(format.row_bytes()))
                                          : sdc_bytes(codes, format.shape);
}

/// The header of a segment of so many blocks and lists; all offsets follow from these.
Header header_of(const CodeFormat& format, int64_t count, int64_t blocks, int64_t lists) {
  Header header;
  header.kind = static_cast<uint32_t>(format.kind);
  header.dimensions = format.shape.dimensions;
  header.loops = format.shape.loops;
  header.count = count;
  header.blocks = blocks;
  header.lists = lists;
  header.norms_at = sizeof(Header) + aligned(code_bytes(format, blocks));
  const uint64_t norms = format.kind == ScanKind::sdc ? static_cast<uint64_t>(blocks) * kScanBlock * sizeof(float) : 0;
  header.ids_at = header.norms_at + aligned(norms);
  header.lists_at = header.ids_at + aligned(static_cast<uint64_t>(blocks) * kScanBlock * sizeof(int64_t));
  header.end = header.lists_at + static_cast<uint64_t>(lists) * sizeof(SegmentList);
  header.checksum = checksum({reinterpret_cast<const std::byte*>(&header), sizeof header - sizeof header.checksum});
  return header;
}

/// Memory with the alignment that kernels ask for.
struct AlignedBytes {
  explicit AlignedBytes(size_t size) : bytes(size + kAlignment) {
    at = bytes.data() + (kAlignment - reinterpret_cast<uintptr_t>(bytes.data()) % kAlignment) % kAlignment;
  }
  std::vector<std::byte> bytes;
  std::byte* at;
};

}  // namespace

uint64_t checksum(std::span<const std::byte> bytes) {
  constexpr uint64_t first = 0x9e3779b97f4a7c15, second = 0xbf58476d1ce4e5b9;  // odd, so that no bit of a word is lost
  uint64_t lanes[4] = {1, 2, 3, bytes.size()};
  size_t i = 0;
  const auto mix = [](uint64_t lane, uint64_t word) { return std::rotl(lane + word * first, 31) * second; };
  for (; i + 32 <= bytes.size(); i += 32) {
    uint64_t words[4];
    std::memcpy(words, bytes.data() + i, sizeof words);
    for (int l = 0; l < 4; ++l) lanes[l] = mix(lanes[l], words[l]);
  }
  for (; i < bytes.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min<size_t>(8, bytes.size() - i));
    lanes[0] = mix(lanes[0], word);
  }
  uint64_t all = 0;
  for (const uint64_t lane : lanes) all = mix(all, lane ^ (lane >> 32));
  return all ^ (all >> 31);
}

Segment::Segment(const fs::path& path, const CodeFormat& format) : file_(path), format_(format) {
  const std::string name = path.string();
  Header header;
  if (file_.size() < sizeof header) throw_error<FormatError>("{}: too short for a segment of an index; it is truncated", name);
  std::memcpy(&header, file_.data(), sizeof header);
  if (header.magic != kMagic) throw_error<FormatError>("{}: this is no segment of an index", name);
  if (header.version != kVersion)
    throw_error<FormatError>("{}: segment format version {}; this program reads version {}", name, header.version, kVersion);
  const int64_t most = static_cast<int64_t>(file_.size());
  if (header.count < 0 || header.blocks < 0 || header.lists < 1 || header.count > most * 8 || header.blocks > most ||
      header.lists > most)
    throw_error<FormatError>("{}: the header's counts cannot be; the file is damaged", name);
  const Header wanted = header_of(format, header.count, header.blocks, header.lists);
  if (std::memcmp(&wanted, &header, sizeof header) != 0)
    throw_error<FormatError>("{}: the header is damaged, or the segment belongs to another index ({} is expected)", name,
                             to_text(format));
  if (header.end != file_.size())
    throw_error<FormatError>("{}: {} bytes are expected, but {} are there; the file is truncated or damaged", name, header.end,
                             file_.size());
  count_ = header.count;
  blocks_ = header.blocks;
  block_bytes_ = static_cast<int64_t>(code_bytes(format, 1));
  codes_ = file_.data() + sizeof header;
  if (format.kind == ScanKind::sdc) norms_ = reinterpret_cast<const float*>(file_.data() + header.norms_at);
  ids_ = {reinterpret_cast<const int64_t*>(file_.data() + header.ids_at), static_cast<size_t>(blocks_ * kScanBlock)};
  lists_.resize(static_cast<size_t>(header.lists));
  std::memcpy(lists_.data(), file_.data() + header.lists_at, lists_.size() * sizeof(SegmentList));
  int64_t reached = 0, codes = 0;
  for (const SegmentList& list : lists_) {
    if (list.first_block != reached || list.count < 0 || list.count > count_ - codes)
      throw_error<FormatError>("{}: its lists do not follow one another; the file is damaged", name);
    reached += (list.count + kScanBlock - 1) / kScanBlock;
    codes += list.count;
  }
  if (reached != blocks_ || codes != count_)
    throw_error<FormatError>("{}: its lists do not cover its blocks; the file is damaged", name);
}

HammingBlocks Segment::hamming(const SegmentList& list) const {
  return {codes_ + list.first_block * block_bytes_, list.count, hamming_words(format_.row_bytes())};
}

SdcBlocks Segment::sdc(const SegmentList& list) const {
  return {codes_ + list.first_block * block_bytes_, norms_ + list.first_block * kScanBlock, list.count, format_.shape};
}

void Segment::read_row(int64_t position, uint8_t* row) const {
  const SegmentList all{0, blocks_ * kScanBlock};
  if (format_.kind == ScanKind::hamming) return unpack_hamming(hamming(all), position, format_.row_bytes(), row);
  std::vector<uint8_t> levels(static_cast<size_t>(format_.shape.dimensions));
  unpack_sdc(sdc(all), position, levels.data());
  row_of_levels(format_, levels.data(), row);
}

uint64_t write_segment(const fs::path& path, const CodeFormat& format, const uint8_t* rows, std::span<const int64_t> ids,
                       std::span<const int32_t> home, int64_t lists) {
  const auto count = static_cast<int64_t>(ids.size());
  std::vector<SegmentList> table(static_cast<size_t>(lists));
  for (int64_t i = 0; i < count; ++i) ++table[home.empty() ? 0 : static_cast<size_t>(home[static_cast<size_t>(i)])].count;
  int64_t blocks = 0;
  std::vector<int64_t> next;  // position of the next code of each list
  for (SegmentList& list : table) {
    list.first_block = blocks;
    next.push_back(blocks * kScanBlock);
    blocks += (list.count + kScanBlock - 1) / kScanBlock;
  }
  const Header header = header_of(format, count, blocks, lists);
  AlignedBytes file(header.end);
  std::memset(file.at, 0, header.end);
  std::memcpy(file.at, &header, sizeof header);
  std::byte* codes = file.at + sizeof header;
  auto* norms = reinterpret_cast<float*>(file.at + header.norms_at);
  auto* out_ids = reinterpret_cast<int64_t*>(file.at + header.ids_at);
  std::fill_n(out_ids, blocks * kScanBlock, int64_t{-1});
  std::vector<uint8_t> levels(static_cast<size_t>(format.shape.dimensions));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = next[home.empty() ? 0 : static_cast<size_t>(home[static_cast<size_t>(i)])]++;
    const uint8_t* row = rows + i * format.row_bytes();
    out_ids[position] = ids[static_cast<size_t>(i)];
    if (format.kind == ScanKind::hamming) {
      pack_hamming(row, 1, format.row_bytes(), codes, position);
    } else {
      levels_of_row(format, row, levels.data());
      pack_sdc(format.shape, levels.data(), 1, codes, norms, position);
    }
  }
  std::memcpy(file.at + header.lists_at, table.data(), table.size() * sizeof(SegmentList));
  const std::span<const std::byte> bytes(file.at, header.end);
  AtomicFile out(path);
  out.write(bytes);
  out.commit();
  return checksum(bytes);
}

}  // namespace lighten
