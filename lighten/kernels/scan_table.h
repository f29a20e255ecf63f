// The inner loops of scan.h, once per instruction set.
#pragma once
#include <cstddef>
#include <cstdint>

#include "lighten/kernels/scan.h"

namespace lighten::kernels {

inline constexpr int kHammingLanes = 4;  ///< queries of one group
inline constexpr int kTableLanes = 2;
inline constexpr int kDotLanes = 8;
inline constexpr int kPlaneLanes = 2;
inline constexpr int kPairLanes = 4;
inline constexpr int64_t kFlushChunks = 128;  ///< 256 nibbles of at most 225 fit into 16 bits
inline constexpr int64_t kPairChunks = 72;    ///< and sums of 72 pairs of signed products of at most 225

/// A run of blocks against all groups of a tile of queries. `limits` are read anew for every block; collect() moves them.
struct HammingCall {
  const uint64_t* blocks = nullptr;
  int64_t begin = 0, end = 0, words = 0;
  const uint64_t* panel = nullptr;  ///< per group of n queries: [words][n]
  int64_t queries = 0;
  const int64_t* limits = nullptr;
  void* context = nullptr;
  /// Called for blocks with a distance within the limit; `distances` has all 32.
  void (*collect)(void* context, int64_t query, int64_t block, const int32_t* distances) = nullptr;
};

struct SdcCall {
  const uint8_t* blocks = nullptr;
  const float* inverse_norms = nullptr;
  int64_t begin = 0, end = 0, chunks = 0;
  SdcShape shape;
  /// scalar: v [query][m] int8. table: [query][chunks][32] bytes. dot: per group of n queries [steps][fields][n] of four int8.
  /// pairs: v of nibble after nibble [query][chunks][2] int8.
  /// planes: [query][u + 1][words] uint64; the sum is minus the weighted count of differing bits.
  const uint8_t* panel = nullptr;
  const int32_t* bias = nullptr;
  int64_t queries = 0;
  const float* limits = nullptr;
  void* context = nullptr;
  void (*collect)(void* context, int64_t query, int64_t block, const float* scores) = nullptr;
};

/// Two chunks, four nibbles a step.
inline int64_t dot_steps(int64_t chunks) { return (chunks + 1) / 2; }
inline int64_t plane_words(const SdcShape& shape) { return (shape.dimensions + 63) / 64; }
inline int dot_fields(const SdcShape& shape) { return shape.loops == 1 ? 2 : 1; }

void hamming_scalar(const HammingCall& call);
void sdc_scalar(const SdcCall& call);
void sdc_planes_scalar(const SdcCall& call);
#if defined(__x86_64__)
void hamming_avx2(const HammingCall& call);
void hamming_avx512(const HammingCall& call);  ///< needs VPOPCNTDQ
void sdc_planes_avx512(const SdcCall& call);   ///< needs VPOPCNTDQ
void sdc_tables_avx2(const SdcCall& call);
void sdc_pairs_avx2(const SdcCall& call);
void sdc_tables_avx512(const SdcCall& call);
void sdc_dots_avx512(const SdcCall& call);
#endif

}  // namespace lighten::kernels
