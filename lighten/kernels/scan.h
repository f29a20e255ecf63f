// Exhaustive search in binary and multi-bit codes: packing into blocks of 32 codes, scans of many queries at once, the best k.
//
// Two kinds of codes:
//   Hamming   bits; distance = number of bits that differ.
//   SDC       (symmetric distance calculation; systems/labels/bebr) m dimensions of u + 1 bits: levels c in [0, L],
//             L = 2^(u+1) - 1, stand for v = 2c - L, an odd whole number; score = (v_q . v_x) / (|v_q| |v_x|).
// Both are exact in whole numbers: every instruction set returns the same hits, bit by bit. A hit's `cost` orders it (smaller
// is better): the distance, or cost_of_score(score). Equal costs are ordered by smaller id.
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace lighten {

inline constexpr int64_t kScanBlock = 32;  ///< codes per block; the last block is filled up with zero codes, which never hit

// ---------------------------------------------------------------- the best k

struct Hit {
  int32_t cost = 0;
  int64_t id = 0;
  friend bool operator==(const Hit&, const Hit&) = default;
  friend bool operator<(const Hit& a, const Hit& b) { return a.cost != b.cost ? a.cost < b.cost : a.id < b.id; }
};

/// The k smallest hits of those offered. offer() is cheap on average whatever k is: hits gather in a buffer that is halved by
/// selection when full.
class TopK {
 public:
  /// `ascending`: ids are offered in ascending order, so that a later hit of the same cost as the k-th best cannot enter.
  explicit TopK(int64_t k, bool ascending = false);
  /// Hits of a greater cost need not be offered.
  int32_t limit() const { return limit_; }
  /// Tells that k hits of at most this cost are known elsewhere.
  void lower_limit(int32_t cost) { limit_ = cost < limit_ ? cost : limit_; }
  void offer(int32_t cost, int64_t id);
  /// k hits of at most this cost have been offered (the largest int32 if fewer were).
  int32_t reached() const { return reached_; }
  /// Best first; fewer than k if fewer were offered.
  std::vector<Hit> sorted() const;

 private:
  int64_t k_;
  bool ascending_;
  int32_t limit_ = std::numeric_limits<int32_t>::max(), reached_ = std::numeric_limits<int32_t>::max();
  std::vector<Hit> hits_;
};

/// An order-preserving map between scores and costs: a greater score has a smaller cost; exact both ways.
int32_t cost_of_score(float score);
float score_of_cost(int32_t cost);

/// Where hits go: the code at `position` is offered to best[query] under ids[position], unless it is removed.
struct ScanSink {
  std::span<TopK* const> best;
  const int64_t* ids = nullptr;       ///< null: the position itself
  const uint32_t* removed = nullptr;  ///< bit i of removed[b]: code i of block b is gone; null: none is
};

// ---------------------------------------------------------------- Hamming

/// Blocks of codes of `words` * 64 bits: word w of a block's 32 codes stands together, [words][32] uint64.
struct HammingBlocks {
  const std::byte* blocks = nullptr;  ///< 64-byte aligned
  int64_t count = 0;                  ///< codes
  int64_t words = 0;
};
int64_t hamming_words(int64_t code_bytes);
/// Bytes of the blocks of `count` codes.
size_t hamming_bytes(int64_t count, int64_t words);
/// codes [count, code_bytes] -> blocks; missing bytes of the last word are zero. `first`: position of the first code; blocks
/// that exist are filled up.
void pack_hamming(const uint8_t* codes, int64_t count, int64_t code_bytes, std::byte* blocks, int64_t first = 0);
void unpack_hamming(const HammingBlocks& blocks, int64_t position, int64_t code_bytes, uint8_t* code);

/// Queries in the layout of the inner loops of current_isa(): groups of queries, word by word.
class HammingQueries {
 public:
  /// codes [count, code_bytes]; with `which`, rows which[0], which[1], ... of them.
  HammingQueries(const uint8_t* codes, int64_t count, int64_t code_bytes, std::span<const int32_t> which = {});
  int64_t count() const { return count_; }
  int64_t words() const { return words_; }
  const uint64_t* panel() const { return panel_.data(); }

 private:
  int64_t count_, words_;
  std::vector<uint64_t> panel_;
};

/// Offers every code of blocks [begin, end) whose distance is within the query's limit to sink.best[query].
void scan_hamming(const HammingBlocks& codes, int64_t begin, int64_t end, const HammingQueries& queries, const ScanSink& sink);

// ---------------------------------------------------------------- SDC

/// m and u. u = 0 packs four dimensions into a nibble, u = 1 two, u = 2 and 3 one, the first dimension in the highest bits.
struct SdcShape {
  int64_t dimensions = 0;
  int loops = 3;
  int levels() const { return (1 << (loops + 1)) - 1; }  ///< L
  int per_nibble() const { return loops == 0 ? 4 : loops == 1 ? 2 : 1; }
  int64_t nibbles() const;  ///< M, even
  int64_t chunks() const { return nibbles() / 2; }
};
/// Throws OptionError if loops is not in [0, 3] or dimensions not in [1, 65536].
void check(const SdcShape& shape);

/// A block is M / 2 chunks of 32 bytes. Chunk p: bytes 0-15 hold nibble 2p, bytes 16-31 nibble 2p + 1, of 32 codes: byte k has
/// code pi(k) in its low half and pi(k) + 16 in its high half, pi = 0, 8, 1, 9, ..., 7, 15 (the order of FAISS's fast scan, in
/// which 16-bit sums come out in sequence).
struct SdcBlocks {
  const std::byte* blocks = nullptr;     ///< 64-byte aligned
  const float* inverse_norms = nullptr;  ///< 1 / |v_x|, filled up to whole blocks
  int64_t count = 0;
  SdcShape shape;
};
/// Bytes of the blocks of `count` codes.
size_t sdc_bytes(int64_t count, const SdcShape& shape);
/// levels [count, m] -> blocks and inverse norms; blocks that exist are filled up from position `first`.
void pack_sdc(const SdcShape& shape, const uint8_t* levels, int64_t count, std::byte* blocks, float* inverse_norms,
              int64_t first = 0);
void unpack_sdc(const SdcBlocks& blocks, int64_t position, uint8_t* levels);
/// The same codes as u + 1 planes of bits, highest first, each as HammingBlocks of ceil(m / 64) words: for comparison only.
void pack_planes(const SdcShape& shape, const uint8_t* levels, int64_t count, std::byte* blocks, float* inverse_norms);
size_t plane_bytes(int64_t count, const SdcShape& shape);
/// Whether planes are counted by VPOPCNTDQ here and not one by one.
bool has_plane_popcounts();
/// 1 / |v| of one row of levels.
float sdc_inverse_norm(const SdcShape& shape, const uint8_t* levels);

/// How v_q . v_x is computed; all give the same number.
enum class SdcForm : uint8_t {
  scalar,
  table,   ///< one table of 16 bytes per nibble and query, read by byte shuffles (AVX2, AVX-512)
  dot,     ///< nibbles are transposed once for several queries and multiplied by 8-bit dot products (AVX-512 VNNI; u >= 1)
  pairs,   ///< the two nibbles of a chunk side by side, multiplied and added in 16 bits (AVX2; u >= 2, one dimension a nibble)
  planes,  ///< what the others replace: popcounts of all (u + 1)^2 pairs of bit planes, on blocks of pack_planes()
};
/// The fastest that current_isa() has.
SdcForm best_sdc_form(const SdcShape& shape);

class SdcQueries {
 public:
  /// levels [count, m]; with `which`, rows which[0], which[1], ... of them. Throws OptionError if current_isa() lacks the form.
  SdcQueries(const SdcShape& shape, const uint8_t* levels, int64_t count, std::span<const int32_t> which = {});
  SdcQueries(const SdcShape& shape, const uint8_t* levels, int64_t count, std::span<const int32_t> which, SdcForm form);
  int64_t count() const { return count_; }
  SdcForm form() const { return form_; }
  const SdcShape& shape() const { return shape_; }
  const uint8_t* panel() const { return panel_.data(); }
  /// v_q . v_x = 2 (sum that the form computes) - bias.
  const int32_t* bias() const { return bias_.data(); }
  float inverse_norm(int64_t query) const { return inverse_norms_[static_cast<size_t>(query)]; }

 private:
  SdcShape shape_;
  int64_t count_;
  SdcForm form_;
  std::vector<uint8_t> panel_;
  std::vector<int32_t> bias_;
  std::vector<float> inverse_norms_;
  void fill_scalar(const uint8_t* levels, int64_t query);
  void fill_tables(const uint8_t* levels, int64_t query);
  void fill_dots(const uint8_t* levels, int64_t query);
  void fill_pairs(const uint8_t* levels, int64_t query);
  void fill_planes(const uint8_t* levels, int64_t query);
};

/// The same with costs cost_of_score((v_q . v_x) / |v_x|): the query's own norm does not change the order.
void scan_sdc(const SdcBlocks& codes, int64_t begin, int64_t end, const SdcQueries& queries, const ScanSink& sink);

}  // namespace lighten
