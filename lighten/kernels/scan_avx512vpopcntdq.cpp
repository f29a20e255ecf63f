// gcc 12 takes the deliberately undefined operands inside its own intrinsics for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "lighten/kernels/scan_table.h"
#include "lighten/kernels/unroll.h"

namespace lighten::kernels {
namespace {

/// 32 codes (four registers of eight) against `lanes` queries: per word four loads of codes and one of each query feed
/// 12 * lanes operations, so the ports for arithmetic are the limit and not those for loads.
template <int lanes>
inline void hamming_group(const HammingCall& call, const uint64_t* panel, int64_t block, int64_t first) {
  const uint64_t* codes = call.blocks + block * call.words * kScanBlock;
  __m512i sum[lanes * 4];
  const auto word = [&](int64_t w, auto start) LIGHTEN_INLINE {
    __m512i code[4];
    repeat<4>([&](auto v) LIGHTEN_INLINE { code[v] = _mm512_load_si512(codes + w * kScanBlock + v * 8); });
    repeat<lanes>([&](auto q) LIGHTEN_INLINE {
      const __m512i query = _mm512_set1_epi64(static_cast<int64_t>(panel[w * lanes + q]));
      repeat<4>([&](auto v) LIGHTEN_INLINE {
        const __m512i bits = _mm512_popcnt_epi64(_mm512_xor_si512(code[v], query));
        if constexpr (start.value)
          sum[q * 4 + v] = bits;
        else
          sum[q * 4 + v] = _mm512_add_epi64(sum[q * 4 + v], bits);
      });
    });
  };
  word(0, std::true_type{});
  for (int64_t w = 1; w < call.words; ++w) word(w, std::false_type{});
  repeat<lanes>([&](auto q) LIGHTEN_INLINE {
    const __m512i* s = sum + q * 4;  // the upper halves are zero: 32-bit minimums do
    const __m512i least = _mm512_min_epu32(_mm512_min_epu32(s[0], s[1]), _mm512_min_epu32(s[2], s[3]));
    if (_mm512_cmple_epi64_mask(least, _mm512_set1_epi64(call.limits[first + q])) != 0) [[unlikely]] {
      alignas(64) int32_t distances[kScanBlock];
      repeat<4>([&](auto v) LIGHTEN_INLINE {
        _mm256_store_si256(reinterpret_cast<__m256i*>(distances + v * 8), _mm512_cvtepi64_epi32(s[v]));
      });
      call.collect(call.context, first + q, block, distances);
    }
  });
}

/// Eight codes at a time: planes^2 popcounts a word and query, one sum per weight.
template <int planes, int lanes>
inline void plane_group(const SdcCall& call, int64_t block, int64_t first) {
  constexpr int weights = 2 * planes - 1;
  const int64_t words = plane_words(call.shape);
  const auto* codes = reinterpret_cast<const uint64_t*>(call.blocks) + block * words * planes * kScanBlock;
  const auto* queries = reinterpret_cast<const uint64_t*>(call.panel) + first * planes * words;
  alignas(64) float scores[lanes][kScanBlock];
  __mmask8 within[lanes] = {};
  for (int64_t n = 0; n < kScanBlock; n += 8) {
    __m512i sums[lanes * weights];
    repeat<lanes * weights>([&](auto i) LIGHTEN_INLINE { sums[i] = _mm512_setzero_si512(); });
    for (int64_t w = 0; w < words; ++w) {
      __m512i code[planes];
      repeat<planes>([&](auto i) LIGHTEN_INLINE { code[i] = _mm512_load_si512(codes + (i * words + w) * kScanBlock + n); });
      repeat<lanes>([&](auto q) LIGHTEN_INLINE {
        repeat<planes>([&](auto j) LIGHTEN_INLINE {
          const __m512i bits = _mm512_set1_epi64(static_cast<int64_t>(queries[(q * planes + j) * words + w]));
          repeat<planes>([&](auto i) LIGHTEN_INLINE {
            __m512i& sum = sums[q * weights + i + j];
            sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(code[i], bits)));
          });
        });
      });
    }
    const __m256 norms = _mm256_loadu_ps(call.inverse_norms + block * kScanBlock + n);
    repeat<lanes>([&](auto q) LIGHTEN_INLINE {
      __m512i total = sums[q * weights];
      repeat<weights - 1>(
          [&](auto i) LIGHTEN_INLINE { total = _mm512_add_epi64(_mm512_add_epi64(total, total), sums[q * weights + 1 + i]); });
      const __m256i differing = _mm512_cvtepi64_epi32(total);
      const __m256i product =
          _mm256_sub_epi32(_mm256_set1_epi32(-call.bias[first + q]), _mm256_add_epi32(differing, differing));
      const __m256 score = _mm256_mul_ps(_mm256_cvtepi32_ps(product), norms);
      _mm256_store_ps(scores[q] + n, score);
      within[q] |= _mm256_cmp_ps_mask(score, _mm256_set1_ps(call.limits[first + q]), _CMP_GE_OQ);
    });
  }
  for (int64_t q = 0; q < lanes; ++q)
    if (within[q] != 0) call.collect(call.context, first + q, block, scores[q]);
}

template <int planes>
void sdc_planes(const SdcCall& call) {
  for (int64_t block = call.begin; block < call.end; ++block) {
    int64_t query = 0;
    for (; query + kPlaneLanes <= call.queries; query += kPlaneLanes) plane_group<planes, kPlaneLanes>(call, block, query);
    if (query < call.queries) plane_group<planes, 1>(call, block, query);
  }
}

}  // namespace

void sdc_planes_avx512(const SdcCall& call) {
  switch (call.shape.loops) {
    case 0:
      return sdc_planes<1>(call);
    case 1:
      return sdc_planes<2>(call);
    case 2:
      return sdc_planes<3>(call);
    default:
      return sdc_planes<4>(call);
  }
}

void hamming_avx512(const HammingCall& call) {
  const int64_t whole = call.queries / kHammingLanes * kHammingLanes;
  for (int64_t block = call.begin; block < call.end; ++block) {
    for (int64_t q = 0; q < whole; q += kHammingLanes)
      hamming_group<kHammingLanes>(call, call.panel + q * call.words, block, q);
    const uint64_t* rest = call.panel + whole * call.words;
    switch (call.queries - whole) {
      case 1:
        hamming_group<1>(call, rest, block, whole);
        break;
      case 2:
        hamming_group<2>(call, rest, block, whole);
        break;
      case 3:
        hamming_group<3>(call, rest, block, whole);
        break;
      default:
        break;
    }
  }
}

}  // namespace lighten::kernels
