// Speed of the scans on one thread, each beside a limit that was measured in the same run:
//   build/kernels_bench --benchmark_filter=scan
// Argument: queries of one batch. A batch is bound by arithmetic: `share` is the part of the rate at which registers alone do
// the kernel's inner instructions (xor, popcount, add; 8-bit dot products; shuffle, shift and two adds). One query is bound by
// memory: the part of the read bandwidth. A million codes lie in memory, k = 10, random codes (no neighbours that would lower
// limits soon).
#if defined(__GNUC__) && !defined(__clang__)  // gcc 12 takes undefined operands inside its own intrinsics for mistakes
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <benchmark/benchmark.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <memory>
#include <string>

#include "lighten/base/random.h"
#include "lighten/kernels/cpu.h"
#include "lighten/kernels/scan.h"
#include "lighten/kernels/scan_table.h"

namespace lighten {
namespace {

constexpr int64_t kCodes = 1 << 20;
constexpr int64_t kRounds = 1 << 20;

struct Free {
  void operator()(void* p) const { std::free(p); }
};
std::unique_ptr<std::byte, Free> random_memory(size_t bytes) {
  std::unique_ptr<std::byte, Free> memory(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
  Random random(1);
  for (size_t i = 0; i + 8 <= bytes; i += 8) *reinterpret_cast<uint64_t*>(memory.get() + i) = random.next();
  return memory;
}

/// Processor time, as the benchmarks' rates: what other programs take does not count.
double processor_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double best_seconds(int times, const std::function<void()>& work) {
  double best = 1e9;
  for (int i = 0; i < times; ++i) {
    const double begin = processor_seconds();
    work();
    best = std::min(best, processor_seconds() - begin);
  }
  return best;
}

/// Bytes per second that one thread reads from memory.
double read_bandwidth() {
  static const double value = [] {
    constexpr int64_t words = 32 << 20;
    const auto memory = random_memory(words * 8);
    const auto* at = reinterpret_cast<const uint64_t*>(memory.get());
    return static_cast<double>(words) * 8 / best_seconds(9, [&] {
             uint64_t sums[8] = {};
             for (int64_t i = 0; i < words; i += 8)
               for (int j = 0; j < 8; ++j) sums[j] ^= at[i + j];
             for (const uint64_t sum : sums) benchmark::DoNotOptimize(sum);
           });
  }();
  return value;
}

#if defined(__x86_64__)
/// Each does kRounds * 8 times the kernel's instructions on registers.
__attribute__((target("avx512f,avx512vpopcntdq"))) void popcounts_512() {
  __m512i sums[8], code = _mm512_set1_epi64(0x123456789), query = _mm512_set1_epi64(77);
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 8
    for (auto& sum : sums) {
      asm volatile("" : "+v"(code));
      sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(code, query)));
    }
  }
  for (auto& sum : sums) benchmark::DoNotOptimize(sum);
}
__attribute__((target("avx512f,avx512bw,avx512vnni"))) void dots_512() {
  __m512i sums[16], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(1);
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < kRounds / 2; ++i) {
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm512_dpbusd_epi32(sum, w, x);
    asm volatile("" : "+v"(w), "+v"(x));
  }
  for (auto& sum : sums) benchmark::DoNotOptimize(sum);
}
__attribute__((target("avx512f,avx512bw"))) void shuffles_512() {
  __m512i even[4], odd[4], table = _mm512_set1_epi8(3), nibbles = _mm512_set1_epi8(1);
  for (auto& sum : even) sum = _mm512_setzero_si512();
  for (auto& sum : odd) sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < kRounds * 2; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      asm volatile("" : "+v"(nibbles));
      const __m512i found = _mm512_shuffle_epi8(table, nibbles);
      even[j] = _mm512_add_epi16(even[j], found);
      odd[j] = _mm512_add_epi16(odd[j], _mm512_srli_epi16(found, 8));
    }
  }
  for (auto& sum : even) benchmark::DoNotOptimize(sum);
  for (auto& sum : odd) benchmark::DoNotOptimize(sum);
}
__attribute__((target("avx2"))) void shuffles_256() {
  __m256i even[4], odd[4], table = _mm256_set1_epi8(3), nibbles = _mm256_set1_epi8(1);
  for (auto& sum : even) sum = _mm256_setzero_si256();
  for (auto& sum : odd) sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < kRounds * 2; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      asm volatile("" : "+x"(nibbles));
      const __m256i found = _mm256_shuffle_epi8(table, nibbles);
      even[j] = _mm256_add_epi16(even[j], found);
      odd[j] = _mm256_add_epi16(odd[j], _mm256_srli_epi16(found, 8));
    }
  }
  for (auto& sum : even) benchmark::DoNotOptimize(sum);
  for (auto& sum : odd) benchmark::DoNotOptimize(sum);
}
/// (product of pairs, add) on 256 bits.
__attribute__((target("avx2"))) void pairs_256() {
  __m256i sums[8], nibbles = _mm256_set1_epi8(3), values = _mm256_set1_epi8(1);
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 8
    for (auto& sum : sums) {
      asm volatile("" : "+x"(nibbles));
      sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(nibbles, values));
    }
  }
  for (auto& sum : sums) benchmark::DoNotOptimize(sum);
}
/// (xor, two masks, shift, two shuffles, two adds) on 256 bits.
__attribute__((target("avx2"))) void popcounts_256() {
  __m256i sums[8], code = _mm256_set1_epi64x(0x123456789), query = _mm256_set1_epi64x(77);
  const __m256i table = _mm256_set1_epi8(3), low = _mm256_set1_epi8(15);
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 8
    for (auto& sum : sums) {
      asm volatile("" : "+x"(code));
      const __m256i bits = _mm256_xor_si256(code, query);
      const __m256i first = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, low));
      const __m256i second = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), low));
      sum = _mm256_add_epi8(sum, _mm256_add_epi8(first, second));
    }
  }
  for (auto& sum : sums) benchmark::DoNotOptimize(sum);
}
#endif

/// Times per second that one thread can do the inner instructions; 0 where no such loop is written.
double instruction_rate(void (*loop)()) {
  return loop == nullptr ? 0 : static_cast<double>(kRounds) * 8 / best_seconds(5, [&] { loop(); });
}

void report(benchmark::State& state, int64_t queries, int64_t code_bytes, double instructions, double rate) {
  const double done = static_cast<double>(state.iterations());
  const auto per_second = [](double value) { return benchmark::Counter(value, benchmark::Counter::kIsRate); };
  state.counters["queries/s"] = per_second(done * static_cast<double>(queries));
  if (rate > 0) state.counters["share_ports"] = per_second(done * static_cast<double>(queries * kCodes) * instructions / rate);
  state.counters["share_memory"] = per_second(done * static_cast<double>(kCodes * code_bytes) / read_bandwidth());
}

template <typename Scan>
void run_scan(benchmark::State& state, int64_t queries, Scan scan) {
  for ([[maybe_unused]] auto _ : state) {
    std::vector<TopK> best(static_cast<size_t>(queries), TopK(10, true));
    std::vector<TopK*> pointers;
    for (TopK& one : best) pointers.push_back(&one);
    scan(ScanSink{pointers});
    benchmark::DoNotOptimize(best);
  }
}

void hamming(benchmark::State& state, Isa isa, int64_t bytes) {
  set_isa(isa);
  const int64_t queries = state.range(0), words = hamming_words(bytes);
  const auto memory = random_memory(hamming_bytes(kCodes, words));
  const auto asked = random_memory(static_cast<size_t>(queries * bytes));
  const HammingQueries panel(reinterpret_cast<const uint8_t*>(asked.get()), queries, bytes);
  run_scan(state, queries, [&](const ScanSink& sink) {
    scan_hamming({memory.get(), kCodes, words}, 0, kCodes / kScanBlock, panel, sink);
  });
  void (*loop)() = nullptr;
  double lanes = 1;
#if defined(__x86_64__)
  loop = isa == Isa::avx512 ? popcounts_512 : isa == Isa::avx2 ? popcounts_256 : nullptr;
  lanes = isa == Isa::avx512 ? 8 : 4;
#endif
  report(state, queries, bytes, static_cast<double>(words) / lanes, instruction_rate(loop));
}

void sdc(benchmark::State& state, Isa isa, SdcForm form, int loops, int64_t dimensions) {
  set_isa(isa);
  const SdcShape shape{dimensions, loops};
  const int64_t queries = state.range(0);
  const auto memory = random_memory(form == SdcForm::planes ? plane_bytes(kCodes, shape) : sdc_bytes(kCodes, shape));
  // Any bits are codes; of their norms, which only scale the scores, the true ones of other codes are as good.
  std::vector<float> norms(static_cast<size_t>(kCodes));
  std::vector<uint8_t> levels(static_cast<size_t>(dimensions)), asked(static_cast<size_t>(queries * dimensions));
  const SdcBlocks view{memory.get(), norms.data(), kCodes, shape};
  Random random(2);
  for (float& norm : norms) {
    for (int64_t d = 0; d < dimensions; d += 8) {
      uint64_t bits = random.next();
      for (int64_t i = d; i < std::min(d + 8, dimensions); ++i, bits >>= 8)
        levels[static_cast<size_t>(i)] = static_cast<uint8_t>(bits & static_cast<uint64_t>(shape.levels()));
    }
    norm = sdc_inverse_norm(shape, levels.data());
  }
  for (auto& level : asked) level = static_cast<uint8_t>(random.below(static_cast<uint64_t>(shape.levels()) + 1));
  const SdcQueries panel(shape, asked.data(), queries, {}, form);
  run_scan(state, queries, [&](const ScanSink& sink) { scan_sdc(view, 0, kCodes / kScanBlock, panel, sink); });
  void (*loop)() = nullptr;
  double products = 1;  // nibbles (dimensions where two share one) that one instruction handles
#if defined(__x86_64__)
  if (form == SdcForm::dot) loop = dots_512, products = 64.0 / kernels::dot_fields(shape);
  if (form == SdcForm::pairs) loop = pairs_256, products = 32;
  if (form == SdcForm::table) loop = isa == Isa::avx512 ? shuffles_512 : shuffles_256, products = isa == Isa::avx512 ? 64 : 32;
#endif
  double instructions = static_cast<double>(shape.nibbles()) / products;
#if defined(__x86_64__)
  if (form == SdcForm::planes)
    loop = popcounts_512, instructions = static_cast<double>((loops + 1) * (loops + 1) * dimensions / 64) / 8;
#endif
  report(state, queries, shape.chunks() + 4, instructions, instruction_rate(loop));
}

void add(const std::string& name, const std::function<void(benchmark::State&)>& run) {
  for (const int64_t queries : {1, 256})
    benchmark::RegisterBenchmark(("scan/" + name).c_str(), run)
        ->Arg(queries)
        ->ArgName("queries")
        ->Unit(benchmark::kMillisecond);
}

const bool registered = [] {
  for (const Isa isa : available_isas()) {
    if (isa != Isa::avx2 && isa != Isa::avx512) continue;  // the others have no form of their own
    const std::string name = isa_name(isa);
    for (const int64_t bytes : {32, 128})
      add("hamming_" + std::to_string(bytes * 8) + "/" + name, [=](benchmark::State& state) { hamming(state, isa, bytes); });
    for (const int loops : {3, 1, 0}) {
      const int64_t dimensions = 1024 / (loops + 1);
      const std::string codes = "/u" + std::to_string(loops) + "_m" + std::to_string(dimensions);
      add("sdc_table" + codes + "/" + name,
          [=](benchmark::State& state) { sdc(state, isa, SdcForm::table, loops, dimensions); });
      if (isa == Isa::avx2 && loops >= 2)
        add("sdc_pairs" + codes + "/" + name,
            [=](benchmark::State& state) { sdc(state, isa, SdcForm::pairs, loops, dimensions); });
      if (isa == Isa::avx512 && loops > 0)
        add("sdc_dot" + codes + "/" + name, [=](benchmark::State& state) { sdc(state, isa, SdcForm::dot, loops, dimensions); });
    }
  }
  if (has_plane_popcounts())
    add("planes/u3_m256/avx512", [](benchmark::State& state) { sdc(state, Isa::avx512, SdcForm::planes, 3, 256); });
  return true;
}();

}  // namespace
}  // namespace lighten
