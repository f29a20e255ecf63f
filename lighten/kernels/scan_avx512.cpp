// gcc 12 takes the deliberately undefined operands inside its own intrinsics for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "lighten/kernels/scan_table.h"
#include "lighten/kernels/unroll.h"

namespace lighten::kernels {
namespace {

/// Two chunks, or the last one and zeros.
inline __m512i two_chunks(const uint8_t* at, bool whole) {
  return whole ? _mm512_loadu_si512(at) : _mm512_zextsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

inline __m128i add_lanes(__m512i x) {
  const __m256i half = _mm256_add_epi16(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
  return _mm_add_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/// As in scan_avx2.cpp, two chunks at a time: sum[q * 2 + half] has the codes 16 * half ... of query q.
template <int lanes>
inline void table_sums(const SdcCall& call, const uint8_t* codes, const uint8_t* tables, __m512i* sums) {
  const __m512i low = _mm512_set1_epi8(15);
  const int64_t table_bytes = call.chunks * 32;
  repeat<lanes * 2>([&](auto i) LIGHTEN_INLINE { sums[i] = _mm512_setzero_si512(); });
  for (int64_t begin = 0; begin < call.chunks; begin += kFlushChunks) {
    const int64_t end = std::min(call.chunks, begin + kFlushChunks);
    __m512i even[lanes * 2], odd[lanes * 2];
    repeat<lanes * 2>([&](auto i) LIGHTEN_INLINE { even[i] = odd[i] = _mm512_setzero_si512(); });
    const auto step = [&](int64_t p, bool whole) LIGHTEN_INLINE {
      const __m512i chunk = two_chunks(codes + p * 32, whole);
      const __m512i nibble[2] = {_mm512_and_si512(chunk, low), _mm512_and_si512(_mm512_srli_epi16(chunk, 4), low)};
      repeat<lanes>([&](auto q) LIGHTEN_INLINE {
        const __m512i table = two_chunks(tables + q * table_bytes + p * 32, whole);
        repeat<2>([&](auto half) LIGHTEN_INLINE {
          const __m512i found = _mm512_shuffle_epi8(table, nibble[half]);
          even[q * 2 + half] = _mm512_add_epi16(even[q * 2 + half], found);
          odd[q * 2 + half] = _mm512_add_epi16(odd[q * 2 + half], _mm512_srli_epi16(found, 8));
        });
      });
    };
    int64_t p = begin;
    for (; p + 2 <= end; p += 2) step(p, true);
    if (p < end) step(p, false);
    repeat<lanes * 2>([&](auto i) LIGHTEN_INLINE {
      const __m128i first = add_lanes(_mm512_sub_epi16(even[i], _mm512_slli_epi16(odd[i], 8)));
      const __m128i second = add_lanes(odd[i]);
      sums[i] = _mm512_add_epi32(sums[i], _mm512_cvtepu16_epi32(_mm256_set_m128i(second, first)));
    });
  }
}

/// Scores of the 32 codes of a block in the order of their sums; `sequence` puts them into the order of the codes.
template <int lanes, class Store>
inline void offer_scores(const SdcCall& call, const __m512i* sums, __m512 first_norms, __m512 second_norms, int64_t block,
                         int64_t first, Store store) {
  repeat<lanes>([&](auto q) LIGHTEN_INLINE {
    const __m512i bias = _mm512_set1_epi32(call.bias[first + q]);
    const auto score = [&](__m512i sum, __m512 norms) LIGHTEN_INLINE {
      return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_add_epi32(sum, sum), bias)), norms);
    };
    const __m512 one = score(sums[q * 2], first_norms), two = score(sums[q * 2 + 1], second_norms);
    const __m512 limit = _mm512_set1_ps(call.limits[first + q]);
    if (_mm512_cmp_ps_mask(_mm512_max_ps(one, two), limit, _CMP_GE_OQ) != 0) [[unlikely]] {
      alignas(64) float scores[kScanBlock];
      store(scores, one, two);
      call.collect(call.context, first + q, block, scores);
    }
  });
}

template <int lanes>
inline void table_group(const SdcCall& call, int64_t block, int64_t first) {
  __m512i sums[lanes * 2];
  table_sums<lanes>(call, call.blocks + block * call.chunks * 32, call.panel + first * call.chunks * 32, sums);
  const float* norms = call.inverse_norms + block * kScanBlock;
  offer_scores<lanes>(call, sums, _mm512_loadu_ps(norms), _mm512_loadu_ps(norms + 16), block, first,
                      [](float* scores, __m512 one, __m512 two) LIGHTEN_INLINE {
                        _mm512_store_ps(scores, one);
                        _mm512_store_ps(scores + 16, two);
                      });
}

/// Four nibbles of 16 codes that stand one below the other (byte 16 i + k: nibble i of code k) side by side: 32-bit lane k
/// holds the four of code k.
inline __m512i transpose_nibbles(__m512i chunks) {
  const __m512i words = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(words, chunks), bytes);
}

/// sum += four products of unsigned and signed bytes per lane. As assembly, because gcc 12 copies every sum around the
/// intrinsic.
LIGHTEN_INLINE inline void add_products(__m512i& sum, __m512i levels, __m512i values) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(levels), "v"(values));
}

/// `sums` of 32-bit lane k belong to code pi(k) (first register) and pi(k) + 16 (second).
template <int lanes, int fields>
inline void dot_sums(const SdcCall& call, const uint8_t* codes, const uint8_t* panel, __m512i* sums) {
  repeat<lanes * 2>([&](auto i) LIGHTEN_INLINE { sums[i] = _mm512_setzero_si512(); });
  const __m512i mask = _mm512_set1_epi8(fields == 2 ? 3 : 15);
  const auto step = [&](int64_t s, bool whole) LIGHTEN_INLINE {
    const __m512i both = transpose_nibbles(two_chunks(codes + s * 64, whole));
    const uint8_t* at = panel + s * fields * lanes * 4;
    repeat<fields>([&](auto f) LIGHTEN_INLINE {
      constexpr int shift = fields == 2 && f == 0 ? 2 : 0;
      const __m512i first = _mm512_and_si512(_mm512_srli_epi16(both, shift), mask);
      const __m512i second = _mm512_and_si512(_mm512_srli_epi16(both, shift + 4), mask);
      repeat<lanes>([&](auto q) LIGHTEN_INLINE {
        int32_t four;
        std::memcpy(&four, at + (f * lanes + q) * 4, 4);
        const __m512i v = _mm512_set1_epi32(four);
        add_products(sums[q * 2], first, v);
        add_products(sums[q * 2 + 1], second, v);
      });
    });
  };
  int64_t s = 0;
  for (; s * 2 + 2 <= call.chunks; ++s) step(s, true);
  if (s * 2 < call.chunks) step(s, false);
}

template <int lanes, int fields>
inline void dot_group(const SdcCall& call, const uint8_t* panel, int64_t block, int64_t first, __m512 one, __m512 two) {
  __m512i sums[lanes * 2];
  dot_sums<lanes, fields>(call, call.blocks + block * call.chunks * 32, panel, sums);
  offer_scores<lanes>(call, sums, one, two, block, first, [](float* scores, __m512 a, __m512 b) LIGHTEN_INLINE {
    const __m512i lane_of_code = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    _mm512_store_ps(scores, _mm512_permutexvar_ps(lane_of_code, a));
    _mm512_store_ps(scores + 16, _mm512_permutexvar_ps(lane_of_code, b));
  });
}

using DotGroup = void (*)(const SdcCall&, const uint8_t*, int64_t, int64_t, __m512, __m512);
template <int fields, int... n>
inline DotGroup dot_group_for(int64_t lanes, std::integer_sequence<int, n...>) {
  static constexpr DotGroup functions[] = {dot_group<n + 1, fields>...};
  return functions[lanes - 1];
}

template <int fields>
void sdc_dots(const SdcCall& call) {
  const __m512i code_of_lane = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
  const int64_t whole = call.queries / kDotLanes * kDotLanes, query_bytes = dot_steps(call.chunks) * fields * 4;
  const DotGroup rest = whole == call.queries
                            ? nullptr
                            : dot_group_for<fields>(call.queries - whole, std::make_integer_sequence<int, kDotLanes - 1>{});
  for (int64_t block = call.begin; block < call.end; ++block) {
    const float* norms = call.inverse_norms + block * kScanBlock;
    const __m512 one = _mm512_permutexvar_ps(code_of_lane, _mm512_loadu_ps(norms));
    const __m512 two = _mm512_permutexvar_ps(code_of_lane, _mm512_loadu_ps(norms + 16));
    for (int64_t q = 0; q < whole; q += kDotLanes)
      dot_group<kDotLanes, fields>(call, call.panel + q * query_bytes, block, q, one, two);
    if (rest != nullptr) rest(call, call.panel + whole * query_bytes, block, whole, one, two);
  }
}

}  // namespace

void sdc_tables_avx512(const SdcCall& call) {
  for (int64_t block = call.begin; block < call.end; ++block) {
    int64_t query = 0;
    for (; query + kTableLanes <= call.queries; query += kTableLanes) table_group<kTableLanes>(call, block, query);
    for (; query < call.queries; ++query) table_group<1>(call, block, query);
  }
}

void sdc_dots_avx512(const SdcCall& call) { dot_fields(call.shape) == 2 ? sdc_dots<2>(call) : sdc_dots<1>(call); }

}  // namespace lighten::kernels
