#include "lighten/kernels/scan.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "lighten/base/error.h"
#include "lighten/kernels/cpu.h"
#include "lighten/kernels/layout.h"
#include "lighten/kernels/scan_table.h"

namespace lighten {
namespace {

using namespace kernels;

constexpr int32_t kNoLimit = std::numeric_limits<int32_t>::max();
constexpr int64_t kLargestDimensions = 65536;
constexpr int64_t kFewestSpareHits = 16;
constexpr int64_t kCodeTileBytes = 256 << 10;   // codes that stay in the second cache while all queries pass
constexpr int64_t kQueryTileBytes = 256 << 10;  // and queries likewise

/// Code of byte k of a chunk's half: 0, 8, 1, 9, ...
constexpr int64_t code_of_byte(int64_t k) { return k / 2 + 8 * (k % 2); }
constexpr int64_t byte_of_code(int64_t i) { return (i % 8) * 2 + i / 8; }

/// The nibble's byte in a block, and how far it is shifted.
struct Place {
  int64_t byte;
  int shift;
};
Place place_of(const SdcShape& shape, int64_t position, int64_t nibble) {
  const int64_t block = position / kScanBlock, code = position % kScanBlock;
  return {(block * shape.chunks() + nibble / 2) * 32 + (nibble % 2) * 16 + byte_of_code(code % 16), code < 16 ? 0 : 4};
}

/// Shift of a dimension inside its nibble: the first one stands highest.
int shift_of(const SdcShape& shape, int64_t dimension) {
  return static_cast<int>((shape.per_nibble() - 1 - dimension % shape.per_nibble()) * (shape.loops + 1));
}

void run(const HammingCall& call) {
#if defined(__x86_64__)
  if (has_plane_popcounts()) return hamming_avx512(call);
  if (current_isa() == Isa::avx512 || current_isa() == Isa::avx2) return hamming_avx2(call);
#endif
  hamming_scalar(call);
}

void run(const SdcCall& call, SdcForm form) {
#if defined(__x86_64__)
  if (form == SdcForm::planes && has_plane_popcounts()) return sdc_planes_avx512(call);
  if (form == SdcForm::dot) return sdc_dots_avx512(call);
  if (form == SdcForm::pairs) return sdc_pairs_avx2(call);
  if (form == SdcForm::table) return current_isa() == Isa::avx512 ? sdc_tables_avx512(call) : sdc_tables_avx2(call);
#endif
  form == SdcForm::planes ? sdc_planes_scalar(call) : sdc_scalar(call);
}

/// Bit d of plane i is bit u - i of level d.
void planes_of(const SdcShape& shape, const uint8_t* levels, uint8_t* planes) {
  const int64_t bytes = plane_words(shape) * 8;
  std::memset(planes, 0, static_cast<size_t>(bytes * (shape.loops + 1)));
  for (int i = 0; i <= shape.loops; ++i)
    for (int64_t d = 0; d < shape.dimensions; ++d)
      planes[i * bytes + d / 8] |= static_cast<uint8_t>((levels[d] >> (shape.loops - i) & 1) << (d % 8));
}

/// Hits of one tile of queries on their way to the sink; keeps the limits that the inner loops read.
template <typename Value, typename Limit>
struct Collector {
  const ScanSink& sink;
  int64_t count, first_query;
  std::vector<Limit> limits;

  static int32_t cost(int32_t distance) { return distance; }
  static int32_t cost(float score) { return cost_of_score(score); }
  void take_limit(int64_t query) {
    const int32_t limit = sink.best[static_cast<size_t>(first_query + query)]->limit();
    if constexpr (std::is_same_v<Value, float>)
      limits[static_cast<size_t>(query)] = limit == kNoLimit ? -std::numeric_limits<float>::infinity() : score_of_cost(limit);
    else
      limits[static_cast<size_t>(query)] = limit;
  }
  void collect(int64_t query, int64_t block, const Value* values) {
    TopK& best = *sink.best[static_cast<size_t>(first_query + query)];
    const int64_t begin = block * kScanBlock, end = std::min(count, begin + kScanBlock);
    for (int64_t p = begin; p < end; ++p) {
      const int32_t c = cost(values[p - begin]);
      if (c > best.limit()) continue;
      if (sink.removed != nullptr && (sink.removed[block] >> (p - begin) & 1) != 0) continue;
      best.offer(c, sink.ids == nullptr ? p : sink.ids[p]);
    }
    take_limit(query);
  }
  static void call(void* self, int64_t query, int64_t block, const Value* values) {
    static_cast<Collector*>(self)->collect(query, block, values);
  }
};

/// Calls scan(code_begin, code_end, query_begin, query_end) tile by tile.
template <typename Scan>
void by_tiles(int64_t begin, int64_t end, int64_t block_bytes, int64_t queries, int64_t query_bytes, Scan scan) {
  const int64_t blocks = std::max<int64_t>(1, kCodeTileBytes / block_bytes);
  const int64_t lanes = std::max<int64_t>(1, kQueryTileBytes / query_bytes / kDotLanes) * kDotLanes;  // whole groups
  for (int64_t block = begin; block < end; block += blocks)
    for (int64_t query = 0; query < queries; query += lanes)
      scan(block, std::min(end, block + blocks), query, std::min(queries, query + lanes));
}

const uint8_t* row(const uint8_t* rows, int64_t bytes, std::span<const int32_t> which, int64_t i) {
  return rows + (which.empty() ? i : which[static_cast<size_t>(i)]) * bytes;
}

}  // namespace

// ---------------------------------------------------------------- the best k

TopK::TopK(int64_t k, bool ascending) : k_(k), ascending_(ascending) {
  if (k < 1) throw_error<OptionError>("k must be at least 1, not {}", k);
}

void TopK::offer(int32_t cost, int64_t id) {
  if (cost > limit_) return;
  hits_.push_back({cost, id});
  const auto k = static_cast<std::ptrdiff_t>(k_);
  const auto size = static_cast<std::ptrdiff_t>(hits_.size());
  if (size < k + std::max<int64_t>(k, kFewestSpareHits) && !(size == k && reached_ == kNoLimit)) return;
  std::nth_element(hits_.begin(), hits_.begin() + (k - 1), hits_.end());
  hits_.resize(static_cast<size_t>(k));
  reached_ = hits_.back().cost;
  lower_limit(ascending_ && reached_ > std::numeric_limits<int32_t>::min() ? reached_ - 1 : reached_);
}

std::vector<Hit> TopK::sorted() const {
  std::vector<Hit> best = hits_;
  std::sort(best.begin(), best.end());
  if (static_cast<int64_t>(best.size()) > k_) best.resize(static_cast<size_t>(k_));
  return best;
}

int32_t cost_of_score(float score) {
  const auto bits = std::bit_cast<int32_t>(score);
  return ~(bits ^ ((bits >> 31) & 0x7fffffff));
}

float score_of_cost(int32_t cost) {
  const int32_t key = ~cost;
  return std::bit_cast<float>(key ^ ((key >> 31) & 0x7fffffff));
}

// ---------------------------------------------------------------- Hamming

int64_t hamming_words(int64_t code_bytes) { return (code_bytes + 7) / 8; }

size_t hamming_bytes(int64_t count, int64_t words) {
  return static_cast<size_t>(round_up(count, kScanBlock) * words) * sizeof(uint64_t);
}

void pack_hamming(const uint8_t* codes, int64_t count, int64_t code_bytes, std::byte* blocks, int64_t first) {
  const int64_t words = hamming_words(code_bytes), block_bytes = words * kScanBlock * 8;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = first + i, block = position / kScanBlock, lane = position % kScanBlock;
    if (lane == 0) std::memset(blocks + block * block_bytes, 0, static_cast<size_t>(block_bytes));
    for (int64_t w = 0; w < words; ++w) {
      const auto bytes = static_cast<size_t>(std::min<int64_t>(8, code_bytes - w * 8));
      std::memcpy(blocks + block * block_bytes + (w * kScanBlock + lane) * 8, codes + i * code_bytes + w * 8, bytes);
    }
  }
}

void unpack_hamming(const HammingBlocks& blocks, int64_t position, int64_t code_bytes, uint8_t* code) {
  const std::byte* block = blocks.blocks + position / kScanBlock * blocks.words * kScanBlock * 8;
  for (int64_t w = 0; w < blocks.words; ++w)
    std::memcpy(code + w * 8, block + (w * kScanBlock + position % kScanBlock) * 8,
                static_cast<size_t>(std::min<int64_t>(8, code_bytes - w * 8)));
}

HammingQueries::HammingQueries(const uint8_t* codes, int64_t count, int64_t code_bytes, std::span<const int32_t> which)
    : count_(which.empty() ? count : static_cast<int64_t>(which.size())), words_(hamming_words(code_bytes)) {
  panel_.assign(static_cast<size_t>(count_ * words_), 0);
  for (int64_t i = 0; i < count_; ++i) {
    const int64_t group = i / kHammingLanes * kHammingLanes, lanes = std::min<int64_t>(kHammingLanes, count_ - group);
    const uint8_t* code = row(codes, code_bytes, which, i);
    for (int64_t w = 0; w < words_; ++w)
      std::memcpy(&panel_[static_cast<size_t>(group * words_ + w * lanes + (i - group))], code + w * 8,
                  static_cast<size_t>(std::min<int64_t>(8, code_bytes - w * 8)));
  }
}

void scan_hamming(const HammingBlocks& codes, int64_t begin, int64_t end, const HammingQueries& queries, const ScanSink& sink) {
  if (codes.words != queries.words())
    throw_error<OptionError>("codes have {} words of 64 bits, queries {}", codes.words, queries.words());
  const int64_t query_bytes = queries.words() * 8;
  by_tiles(begin, end, query_bytes * kScanBlock, queries.count(), query_bytes,
           [&](int64_t block_begin, int64_t block_end, int64_t first, int64_t last) {
             Collector<int32_t, int64_t> collector{sink, codes.count, first,
                                                   std::vector<int64_t>(static_cast<size_t>(last - first))};
             for (int64_t q = 0; q < last - first; ++q) collector.take_limit(q);
             HammingCall call;
             call.blocks = reinterpret_cast<const uint64_t*>(codes.blocks);
             call.begin = block_begin;
             call.end = block_end;
             call.words = codes.words;
             call.panel = queries.panel() + first * queries.words();
             call.queries = last - first;
             call.limits = collector.limits.data();
             call.context = &collector;
             call.collect = decltype(collector)::call;
             run(call);
           });
}

// ---------------------------------------------------------------- SDC

int64_t SdcShape::nibbles() const { return round_up((dimensions + per_nibble() - 1) / per_nibble(), 2); }

void check(const SdcShape& shape) {
  if (shape.loops < 0 || shape.loops > 3) throw_error<OptionError>("loops (u) must be 0 to 3, not {}", shape.loops);
  if (shape.dimensions < 1 || shape.dimensions > kLargestDimensions)
    throw_error<OptionError>("dimensions of codes (m) must be 1 to {}, not {}", kLargestDimensions, shape.dimensions);
}

size_t sdc_bytes(int64_t count, const SdcShape& shape) {
  return static_cast<size_t>(round_up(count, kScanBlock) / kScanBlock * shape.chunks() * 32);
}

float sdc_inverse_norm(const SdcShape& shape, const uint8_t* levels) {
  int64_t square = 0;
  for (int64_t d = 0; d < shape.dimensions; ++d) {
    const int64_t v = 2 * levels[d] - shape.levels();
    square += v * v;
  }
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(square)));  // v is odd: never zero
}

bool has_plane_popcounts() {
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512vpopcntdq") != 0;
  return has && current_isa() == Isa::avx512;
#else
  return false;
#endif
}

size_t plane_bytes(int64_t count, const SdcShape& shape) {
  return hamming_bytes(count, plane_words(shape) * (shape.loops + 1));
}

void pack_planes(const SdcShape& shape, const uint8_t* levels, int64_t count, std::byte* blocks, float* inverse_norms) {
  const int64_t bytes = plane_words(shape) * 8;
  std::vector<uint8_t> planes(static_cast<size_t>(bytes * (shape.loops + 1)));
  std::fill_n(inverse_norms, round_up(count, kScanBlock), 0.0f);
  for (int64_t i = 0; i < count; ++i) {
    const uint8_t* own = levels + i * shape.dimensions;
    planes_of(shape, own, planes.data());
    pack_hamming(planes.data(), 1, static_cast<int64_t>(planes.size()), blocks, i);
    inverse_norms[i] = sdc_inverse_norm(shape, own);
  }
}

void pack_sdc(const SdcShape& shape, const uint8_t* levels, int64_t count, std::byte* blocks, float* inverse_norms,
              int64_t first) {
  const int64_t block_bytes = shape.chunks() * 32;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t position = first + i, block = position / kScanBlock;
    if (position % kScanBlock == 0) {
      std::memset(blocks + block * block_bytes, 0, static_cast<size_t>(block_bytes));
      std::fill_n(inverse_norms + position, kScanBlock, 0.0f);
    }
    const uint8_t* own = levels + i * shape.dimensions;
    for (int64_t d = 0; d < shape.dimensions; ++d) {
      const Place place = place_of(shape, position, d / shape.per_nibble());
      blocks[place.byte] |= static_cast<std::byte>(own[d] << shift_of(shape, d) << place.shift);
    }
    inverse_norms[position] = sdc_inverse_norm(shape, own);
  }
}

void unpack_sdc(const SdcBlocks& blocks, int64_t position, uint8_t* levels) {
  const SdcShape& shape = blocks.shape;
  for (int64_t d = 0; d < shape.dimensions; ++d) {
    const Place place = place_of(shape, position, d / shape.per_nibble());
    const int nibble = std::to_integer<int>(blocks.blocks[place.byte]) >> place.shift & 15;
    levels[d] = static_cast<uint8_t>(nibble >> shift_of(shape, d) & shape.levels());
  }
}

SdcForm best_sdc_form(const SdcShape& shape) {
  if (current_isa() == Isa::avx512 && shape.loops > 0) return SdcForm::dot;
  if (current_isa() == Isa::avx2 && shape.per_nibble() == 1) return SdcForm::pairs;
  return current_isa() == Isa::avx512 || current_isa() == Isa::avx2 ? SdcForm::table : SdcForm::scalar;
}

SdcQueries::SdcQueries(const SdcShape& shape, const uint8_t* levels, int64_t count, std::span<const int32_t> which)
    : SdcQueries(shape, levels, count, which, best_sdc_form(shape)) {}

SdcQueries::SdcQueries(const SdcShape& shape, const uint8_t* levels, int64_t count, std::span<const int32_t> which,
                       SdcForm form)
    : shape_(shape), count_(which.empty() ? count : static_cast<int64_t>(which.size())), form_(form) {
  check(shape);
  const bool has_bytes = current_isa() == Isa::avx512 || current_isa() == Isa::avx2;
  if ((form == SdcForm::dot && (current_isa() != Isa::avx512 || shape.loops == 0)) ||
      (form == SdcForm::pairs && (!has_bytes || shape.per_nibble() != 1)) || (form == SdcForm::table && !has_bytes))
    throw_error<OptionError>("the {} kernels have no such form of the SDC scan", isa_name(current_isa()));
  bias_.assign(static_cast<size_t>(count_), 0);
  for (int64_t i = 0; i < count_; ++i) {
    const uint8_t* own = row(levels, shape.dimensions, which, i);
    inverse_norms_.push_back(sdc_inverse_norm(shape, own));
    // v_q . v_x = sum v_q (2 c_x - L)
    for (int64_t d = 0; d < shape.dimensions; ++d)
      bias_[static_cast<size_t>(i)] += shape.levels() * (2 * own[d] - shape.levels());
    if (form == SdcForm::scalar)
      fill_scalar(own, i);
    else if (form == SdcForm::table)
      fill_tables(own, i);
    else if (form == SdcForm::pairs)
      fill_pairs(own, i);
    else if (form == SdcForm::planes)
      fill_planes(own, i);
    else
      fill_dots(own, i);
  }
}

void SdcQueries::fill_scalar(const uint8_t* levels, int64_t) {
  for (int64_t d = 0; d < shape_.dimensions; ++d) panel_.push_back(static_cast<uint8_t>(2 * levels[d] - shape_.levels()));
}

/// Table entries must not be negative: where v_q < 0 they are |v_q| (L - c_x), which is v_q c_x + L |v_q|; the sum of the L
/// |v_q| goes into the bias. An entry is at most 4 * 1, 2 * 9, 49 or 225 for u = 0, 1, 2, 3.
void SdcQueries::fill_tables(const uint8_t* levels, int64_t query) {
  panel_.resize(static_cast<size_t>((query + 1) * shape_.chunks() * 32), 0);
  uint8_t* tables = panel_.data() + query * shape_.chunks() * 32;
  for (int64_t d = 0; d < shape_.dimensions; ++d) {
    const int v = 2 * levels[d] - shape_.levels(), size = std::abs(v), shift = shift_of(shape_, d);
    uint8_t* table = tables + d / shape_.per_nibble() * 16;
    for (int nibble = 0; nibble < 16; ++nibble) {
      const int c = nibble >> shift & shape_.levels();
      table[nibble] = static_cast<uint8_t>(table[nibble] + size * (v < 0 ? shape_.levels() - c : c));
    }
    if (v < 0) bias_[static_cast<size_t>(query)] += 2 * shape_.levels() * size;
  }
}

void SdcQueries::fill_dots(const uint8_t* levels, int64_t query) {
  const int fields = dot_fields(shape_);
  const int64_t query_bytes = dot_steps(shape_.chunks()) * fields * 4;
  const int64_t group = query / kDotLanes * kDotLanes, lanes = std::min<int64_t>(kDotLanes, count_ - group);
  if (query == 0) panel_.assign(static_cast<size_t>(count_ * query_bytes), 0);
  uint8_t* panel = panel_.data() + group * query_bytes;
  for (int64_t d = 0; d < shape_.dimensions; ++d) {
    const int64_t nibble = d / fields, field = d % fields;
    panel[((nibble / 4 * fields + field) * lanes + query - group) * 4 + nibble % 4] =
        static_cast<uint8_t>(2 * levels[d] - shape_.levels());
  }
}

void SdcQueries::fill_pairs(const uint8_t* levels, int64_t query) {
  panel_.resize(static_cast<size_t>((query + 1) * shape_.chunks() * 2), 0);
  for (int64_t d = 0; d < shape_.dimensions; ++d)
    panel_[static_cast<size_t>(query * shape_.chunks() * 2 + d)] = static_cast<uint8_t>(2 * levels[d] - shape_.levels());
}

void SdcQueries::fill_planes(const uint8_t* levels, int64_t query) {
  const int64_t bytes = plane_words(shape_) * 8 * (shape_.loops + 1);
  panel_.resize(static_cast<size_t>((query + 1) * bytes));
  planes_of(shape_, levels, panel_.data() + query * bytes);
  bias_[static_cast<size_t>(query)] =
      -static_cast<int32_t>(shape_.dimensions * shape_.levels() * shape_.levels());  // m L^2 - 2 (weighted differing bits)
}

void scan_sdc(const SdcBlocks& codes, int64_t begin, int64_t end, const SdcQueries& queries, const ScanSink& sink) {
  const SdcShape& shape = codes.shape;
  if (shape.dimensions != queries.shape().dimensions || shape.loops != queries.shape().loops)
    throw_error<OptionError>("codes have {} dimensions and {} loops, queries {} and {}", shape.dimensions, shape.loops,
                             queries.shape().dimensions, queries.shape().loops);
  const SdcForm form = queries.form();
  const int64_t query_bytes = form == SdcForm::scalar   ? shape.dimensions
                              : form == SdcForm::table  ? shape.chunks() * 32
                              : form == SdcForm::pairs  ? shape.chunks() * 2
                              : form == SdcForm::planes ? plane_words(shape) * 8 * (shape.loops + 1)
                                                        : dot_steps(shape.chunks()) * dot_fields(shape) * 4;
  by_tiles(begin, end, shape.chunks() * 32, queries.count(), query_bytes,
           [&](int64_t block_begin, int64_t block_end, int64_t first, int64_t last) {
             Collector<float, float> collector{sink, codes.count, first, std::vector<float>(static_cast<size_t>(last - first))};
             for (int64_t q = 0; q < last - first; ++q) collector.take_limit(q);
             SdcCall call;
             call.blocks = reinterpret_cast<const uint8_t*>(codes.blocks);
             call.inverse_norms = codes.inverse_norms;
             call.begin = block_begin;
             call.end = block_end;
             call.chunks = shape.chunks();
             call.shape = shape;
             call.panel = queries.panel() + first * query_bytes;
             call.bias = queries.bias() + first;
             call.queries = last - first;
             call.limits = collector.limits.data();
             call.context = &collector;
             call.collect = decltype(collector)::call;
             run(call, form);
           });
}

}  // namespace lighten
