#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "lighten/kernels/scan_table.h"
#include "lighten/kernels/unroll.h"

namespace lighten::kernels {
namespace {

constexpr int64_t kByteWords = 31;  ///< words whose popcounts (8 a byte at most) fit into a byte's sum

/// Sixteen codes (four registers) of a block against one query; the table of sixteen popcounts is read by shuffles.
inline void hamming_half(const uint64_t* codes, const uint64_t* query, int64_t stride, int64_t words, __m256i* total) {
  const __m256i table =
      _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i low = _mm256_set1_epi8(15);
  repeat<4>([&](auto v) LIGHTEN_INLINE { total[v] = _mm256_setzero_si256(); });
  for (int64_t begin = 0; begin < words; begin += kByteWords) {
    const int64_t end = std::min(words, begin + kByteWords);
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int64_t w = begin; w < end; ++w) {
      const __m256i q = _mm256_set1_epi64x(static_cast<int64_t>(query[w * stride]));
      repeat<4>([&](auto v) LIGHTEN_INLINE {
        const auto* at = reinterpret_cast<const __m256i*>(codes + w * kScanBlock + v * 4);
        const __m256i bits = _mm256_xor_si256(_mm256_load_si256(at), q);
        const __m256i first = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, low));
        const __m256i second = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), low));
        sum[v] = _mm256_add_epi8(sum[v], _mm256_add_epi8(first, second));
      });
    }
    repeat<4>([&](auto v)
                  LIGHTEN_INLINE { total[v] = _mm256_add_epi64(total[v], _mm256_sad_epu8(sum[v], _mm256_setzero_si256())); });
  }
}

/// Sums of 32 codes: 16-bit sums of even and odd bytes, the first of which carry the odd ones' multiples of 256.
template <int lanes>
inline void table_sums(const SdcCall& call, const uint8_t* codes, const uint8_t* tables, int32_t* sums) {
  const __m256i low = _mm256_set1_epi8(15);
  const int64_t table_bytes = call.chunks * 32;
  for (int64_t begin = 0; begin < call.chunks; begin += kFlushChunks) {
    const int64_t end = std::min(call.chunks, begin + kFlushChunks);
    __m256i even[lanes * 2], odd[lanes * 2];
    repeat<lanes * 2>([&](auto i) LIGHTEN_INLINE { even[i] = odd[i] = _mm256_setzero_si256(); });
    for (int64_t p = begin; p < end; ++p) {
      const __m256i chunk = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + p * 32));
      const __m256i nibble[2] = {_mm256_and_si256(chunk, low), _mm256_and_si256(_mm256_srli_epi16(chunk, 4), low)};
      repeat<lanes>([&](auto q) LIGHTEN_INLINE {
        const __m256i table = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tables + q * table_bytes + p * 32));
        repeat<2>([&](auto half) LIGHTEN_INLINE {
          const __m256i found = _mm256_shuffle_epi8(table, nibble[half]);
          even[q * 2 + half] = _mm256_add_epi16(even[q * 2 + half], found);
          odd[q * 2 + half] = _mm256_add_epi16(odd[q * 2 + half], _mm256_srli_epi16(found, 8));
        });
      });
    }
    repeat<lanes * 2>([&](auto i) LIGHTEN_INLINE {
      const __m256i exact = _mm256_sub_epi16(even[i], _mm256_slli_epi16(odd[i], 8));
      const __m128i first = _mm_add_epi16(_mm256_castsi256_si128(exact), _mm256_extracti128_si256(exact, 1));
      const __m128i second = _mm_add_epi16(_mm256_castsi256_si128(odd[i]), _mm256_extracti128_si256(odd[i], 1));
      auto* out = reinterpret_cast<__m256i*>(sums + i * 16);
      const __m256i one = _mm256_add_epi32(_mm256_cvtepu16_epi32(first), _mm256_load_si256(out));
      const __m256i two = _mm256_add_epi32(_mm256_cvtepu16_epi32(second), _mm256_load_si256(out + 1));
      _mm256_store_si256(out, one);
      _mm256_store_si256(out + 1, two);
    });
  }
}

template <int lanes>
inline void table_group(const SdcCall& call, int64_t block, int64_t first) {
  alignas(32) int32_t sums[lanes * kScanBlock] = {};
  table_sums<lanes>(call, call.blocks + block * call.chunks * 32, call.panel + first * call.chunks * 32, sums);
  for (int64_t q = 0; q < lanes; ++q) {
    alignas(32) float scores[kScanBlock];
    const __m256i bias = _mm256_set1_epi32(call.bias[first + q]);
    const __m256 limit = _mm256_set1_ps(call.limits[first + q]);
    __m256 within = _mm256_setzero_ps();
    for (int64_t i = 0; i < kScanBlock; i += 8) {
      const __m256i sum = _mm256_load_si256(reinterpret_cast<const __m256i*>(sums + q * kScanBlock + i));
      const __m256 product = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_add_epi32(sum, sum), bias));
      const __m256 score = _mm256_mul_ps(product, _mm256_loadu_ps(call.inverse_norms + block * kScanBlock + i));
      _mm256_store_ps(scores + i, score);
      within = _mm256_or_ps(within, _mm256_cmp_ps(score, limit, _CMP_GE_OQ));
    }
    if (_mm256_movemask_ps(within) != 0) call.collect(call.context, first + q, block, scores);
  }
}

/// The two nibbles of every byte of a chunk's halves side by side: bytes 2 k and 2 k + 1 belong to codes pi(k).
inline __m256i side_by_side(__m256i chunk) {
  const __m256i places = _mm256_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12,
                                          5, 13, 6, 14, 7, 15);
  return _mm256_shuffle_epi8(_mm256_permute4x64_epi64(chunk, 0b11011000), places);
}

/// sum += the sums of pairs of products. As assembly, because gcc 12 makes all products first and then has too few registers.
LIGHTEN_INLINE inline void add_pairs(__m256i& sum, __m256i levels, __m256i values) {
  __m256i products;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(products) : "x"(levels), "x"(values));
}

/// Sums of 32 codes: 16 at a time (low halves of bytes, high halves) in the order pi.
template <int lanes>
inline void pair_sums(const SdcCall& call, const uint8_t* codes, const uint8_t* pairs, int32_t* sums) {
  const __m256i low = _mm256_set1_epi8(15);
  const int64_t query_bytes = call.chunks * 2;
  for (int64_t begin = 0; begin < call.chunks; begin += kPairChunks) {
    const int64_t end = std::min(call.chunks, begin + kPairChunks);
    __m256i sum[lanes * 2];
    repeat<lanes * 2>([&](auto i) LIGHTEN_INLINE { sum[i] = _mm256_setzero_si256(); });
    for (int64_t p = begin; p < end; ++p) {
      const __m256i chunk = side_by_side(_mm256_load_si256(reinterpret_cast<const __m256i*>(codes + p * 32)));
      const __m256i nibble[2] = {_mm256_and_si256(chunk, low), _mm256_and_si256(_mm256_srli_epi16(chunk, 4), low)};
      repeat<lanes>([&](auto q) LIGHTEN_INLINE {
        int16_t two;
        std::memcpy(&two, pairs + q * query_bytes + p * 2, 2);
        const __m256i values = _mm256_set1_epi16(two);
        repeat<2>([&](auto half) LIGHTEN_INLINE { add_pairs(sum[q * 2 + half], nibble[half], values); });
      });
    }
    repeat<lanes * 2>([&](auto i) LIGHTEN_INLINE {
      auto* out = reinterpret_cast<__m256i*>(sums + i * 16);
      const __m256i first = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sum[i]));
      const __m256i second = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sum[i], 1));
      _mm256_store_si256(out, _mm256_add_epi32(first, _mm256_load_si256(out)));
      _mm256_store_si256(out + 1, _mm256_add_epi32(second, _mm256_load_si256(out + 1)));
    });
  }
}

/// `norms`: those of the block in the order of pair_sums().
template <int lanes>
inline void pair_group(const SdcCall& call, int64_t block, int64_t first, const __m256* norms) {
  alignas(32) int32_t sums[lanes * kScanBlock] = {};
  pair_sums<lanes>(call, call.blocks + block * call.chunks * 32, call.panel + first * call.chunks * 2, sums);
  for (int64_t q = 0; q < lanes; ++q) {
    alignas(32) float ordered[kScanBlock], scores[kScanBlock];
    const __m256i bias = _mm256_set1_epi32(call.bias[first + q]);
    const __m256 limit = _mm256_set1_ps(call.limits[first + q]);
    __m256 within = _mm256_setzero_ps();
    for (int64_t i = 0; i < 4; ++i) {
      const __m256i sum = _mm256_load_si256(reinterpret_cast<const __m256i*>(sums + q * kScanBlock + i * 8));
      const __m256 product = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_add_epi32(sum, sum), bias));
      const __m256 score = _mm256_mul_ps(product, norms[i]);
      _mm256_store_ps(ordered + i * 8, score);
      within = _mm256_or_ps(within, _mm256_cmp_ps(score, limit, _CMP_GE_OQ));
    }
    if (_mm256_movemask_ps(within) == 0) continue;
    for (int64_t i = 0; i < kScanBlock; ++i) scores[i / 16 * 16 + i % 16 / 2 + i % 2 * 8] = ordered[i];
    call.collect(call.context, first + q, block, scores);
  }
}

}  // namespace

void hamming_avx2(const HammingCall& call) {
  for (int64_t block = call.begin; block < call.end; ++block) {
    const uint64_t* codes = call.blocks + block * call.words * kScanBlock;
    for (int64_t query = 0; query < call.queries; ++query) {
      const int64_t group = query / kHammingLanes * kHammingLanes;
      const int64_t lanes = std::min<int64_t>(kHammingLanes, call.queries - group);
      const uint64_t* words = call.panel + group * call.words + (query - group);
      alignas(32) __m256i total[8];
      hamming_half(codes, words, lanes, call.words, total);
      hamming_half(codes + 16, words, lanes, call.words, total + 4);
      const __m256i limit = _mm256_set1_epi64x(call.limits[query]);
      __m256i beyond = _mm256_set1_epi64x(-1);
      for (const __m256i& four : total) beyond = _mm256_and_si256(beyond, _mm256_cmpgt_epi64(four, limit));
      if (_mm256_movemask_epi8(beyond) == -1) continue;
      int32_t distances[kScanBlock];
      const auto* sums = reinterpret_cast<const int64_t*>(total);
      for (int64_t i = 0; i < kScanBlock; ++i) distances[i] = static_cast<int32_t>(sums[i]);
      call.collect(call.context, query, block, distances);
    }
  }
}

void sdc_pairs_avx2(const SdcCall& call) {
  for (int64_t block = call.begin; block < call.end; ++block) {
    __m256 norms[4];
    for (int64_t half = 0; half < 2; ++half) {
      const __m256 a = _mm256_loadu_ps(call.inverse_norms + block * kScanBlock + half * 16);
      const __m256 b = _mm256_loadu_ps(call.inverse_norms + block * kScanBlock + half * 16 + 8);
      const __m256 low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
      norms[half * 2] = _mm256_permute2f128_ps(low, high, 0x20);
      norms[half * 2 + 1] = _mm256_permute2f128_ps(low, high, 0x31);
    }
    int64_t query = 0;
    for (; query + kPairLanes <= call.queries; query += kPairLanes) pair_group<kPairLanes>(call, block, query, norms);
    for (; query < call.queries; ++query) pair_group<1>(call, block, query, norms);
  }
}

void sdc_tables_avx2(const SdcCall& call) {
  for (int64_t block = call.begin; block < call.end; ++block) {
    int64_t query = 0;
    for (; query + kTableLanes <= call.queries; query += kTableLanes) table_group<kTableLanes>(call, block, query);
    for (; query < call.queries; ++query) table_group<1>(call, block, query);
  }
}

}  // namespace lighten::kernels
