#include "lighten/kernels/roofs.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "lighten/kernels/cpu.h"

namespace lighten {
namespace {

/// Makes the compiler believe that a value is used.
template <typename T>
void keep(const T& value) {
  asm volatile("" : : "m"(value) : "memory");
}

double best_seconds(int times, const std::function<void()>& work) {
  double best = 1e9;
  for (int i = 0; i < times; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

double read_gb_per_s(ThreadPool& pool) {
  constexpr int64_t lines = 4 << 20, line_words = 8, ahead = 64;  // 256 MB; lines of 64 bytes, fetched so many lines ahead
  const std::vector<uint64_t> memory(static_cast<size_t>(lines * line_words), 1);
  const double seconds = best_seconds(9, [&] {
    pool.parallel_for(lines, lines / (pool.size() * 4), [&](int64_t begin, int64_t end) {
      uint64_t sums[line_words] = {};
      for (int64_t line = begin; line < end; ++line) {
        const uint64_t* at = memory.data() + line * line_words;
        if (line + ahead < lines) __builtin_prefetch(at + ahead * line_words);
        for (int64_t i = 0; i < line_words; ++i) sums[i] ^= at[i];
      }
      keep(sums);
    });
  });
  return static_cast<double>(lines * line_words) * 8 / seconds / 1e9;
}

#if defined(__x86_64__)
constexpr int64_t kRounds = 1 << 20;
constexpr int64_t kSums = 10;  // independent ones hide the latency

// Each returns the multiply-adds done.
__attribute__((target("avx2"))) int64_t integer_avx2() {
  __m256i sums[kSums], w = _mm256_set1_epi8(3), x = _mm256_set1_epi8(1);
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 10
    for (auto& sum : sums) sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
    asm volatile("" : "+x"(w), "+x"(x));
  }
  keep(sums);
  return kRounds * kSums * 32;
}
__attribute__((target("avx512f,avx512vnni"))) int64_t integer_avx512() {
  __m512i sums[kSums], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(1);
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 10
    for (auto& sum : sums) sum = _mm512_dpbusd_epi32(sum, w, x);
    asm volatile("" : "+v"(w), "+v"(x));
  }
  keep(sums);
  return kRounds * kSums * 64;
}
__attribute__((target("avx2,fma"))) int64_t float_avx2() {
  __m256 sums[kSums], w = _mm256_set1_ps(0.5f), x = _mm256_set1_ps(0.25f);
  for (auto& sum : sums) sum = _mm256_setzero_ps();
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 10
    for (auto& sum : sums) sum = _mm256_fmadd_ps(w, x, sum);
    asm volatile("" : "+x"(w), "+x"(x));
  }
  keep(sums);
  return kRounds * kSums * 8;
}
__attribute__((target("avx512f"))) int64_t float_avx512() {
  __m512 sums[kSums], w = _mm512_set1_ps(0.5f), x = _mm512_set1_ps(0.25f);
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 10
    for (auto& sum : sums) sum = _mm512_fmadd_ps(w, x, sum);
    asm volatile("" : "+v"(w), "+v"(x));
  }
  keep(sums);
  return kRounds * kSums * 16;
}

double operations_per_s(int64_t (*work)(), ThreadPool& pool) {
  std::vector<int64_t> done(static_cast<size_t>(pool.size()));
  const double seconds = best_seconds(5, [&] {
    pool.parallel_for(pool.size(), 1, [&](int64_t begin, int64_t) { done[static_cast<size_t>(begin)] = work(); });
  });
  int64_t all = 0;
  for (const int64_t operations : done) all += operations;
  return 2 * static_cast<double>(all) / seconds / 1e9;
}
#endif

}  // namespace

Roofs measure_roofs(ThreadPool& pool) {
  Roofs roofs{.read_gb_per_s = read_gb_per_s(pool)};
#if defined(__x86_64__)
  const bool wide = current_isa() == Isa::avx512;
  if (current_isa() == Isa::scalar) return roofs;
  roofs.integer_gops = operations_per_s(wide ? integer_avx512 : integer_avx2, pool);
  roofs.float_gflops = operations_per_s(wide ? float_avx512 : float_avx2, pool);
#endif
  return roofs;
}

}  // namespace lighten
