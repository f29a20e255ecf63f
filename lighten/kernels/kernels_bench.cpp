// Speed of the linear kernels at real shapes, each beside the machine's limit that was measured in the same run:
//   build/kernels_bench --benchmark_filter='decode|prefill'
// decode reports GB/s of packed weights read (weights larger than the caches), prefill GOP/s (two per multiply-add); `share` is
// the part of the limit: the memory's read bandwidth, or the rate of integer (float) dot products on registers alone.
#include <benchmark/benchmark.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lighten/base/random.h"
#include "lighten/kernels/attention.h"
#include "lighten/kernels/cpu.h"
#include "lighten/kernels/linear.h"

namespace lighten {
namespace {

struct Free {
  void operator()(std::byte* p) const { std::free(p); }
};
using Memory = std::unique_ptr<std::byte, Free>;
Memory random_memory(size_t bytes) {
  Memory memory(static_cast<std::byte*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)));
  Random random(1);
  for (size_t i = 0; i + 8 <= bytes; i += 8)
    *reinterpret_cast<uint64_t*>(memory.get() + i) = random.next() & 0x3bff3bff3bff3bffull;
  return memory;
}

ThreadPool& pool() {
  static ThreadPool threads;
  return threads;
}

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}
double best_seconds(int times, const std::function<void()>& work) {
  double best = 1e9;
  for (int i = 0; i < times; ++i) best = std::min(best, seconds_of(work));
  return best;
}

/// GB/s of reading 256 MB with all threads.
double read_bandwidth() {
  static const double value = [] {
    constexpr int64_t words = 32 << 20;
    const Memory memory = random_memory(words * 8);
    const auto* at = reinterpret_cast<const uint64_t*>(memory.get());
    const double seconds = best_seconds(9, [&] {
      pool().parallel_for(words, words / (pool().size() * 4), [&](int64_t begin, int64_t end) {
        uint64_t sums[8] = {};
        for (int64_t i = begin; i + 8 <= end; i += 8) {
          for (int j = 0; j < 8; ++j) sums[j] ^= at[i + j];
        }
        for (const uint64_t sum : sums) benchmark::DoNotOptimize(sum);
      });
    });
    return static_cast<double>(words) * 8 / seconds / 1e9;
  }();
  return value;
}

#if defined(__x86_64__)
constexpr int64_t kPeakRounds = 1 << 20;

/// Both return the multiply-adds done. Ten independent sums hide the latency.
__attribute__((target("avx2"))) int64_t integer_peak_avx2() {
  __m256i sums[10], w = _mm256_set1_epi8(3), x = _mm256_set1_epi8(1);
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < kPeakRounds; ++i) {
#pragma GCC unroll 10
    for (auto& sum : sums) sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
    asm volatile("" : "+x"(w), "+x"(x));
  }
  for (auto& sum : sums) benchmark::DoNotOptimize(sum);
  return kPeakRounds * 10 * 32;
}
__attribute__((target("avx512f,avx512vnni"))) int64_t integer_peak_avx512() {
  __m512i sums[10], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(1);
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < kPeakRounds; ++i) {
#pragma GCC unroll 10
    for (auto& sum : sums) sum = _mm512_dpbusd_epi32(sum, w, x);
    asm volatile("" : "+v"(w), "+v"(x));
  }
  for (auto& sum : sums) benchmark::DoNotOptimize(sum);
  return kPeakRounds * 10 * 64;
}
__attribute__((target("avx2,fma"))) int64_t float_peak_avx2() {
  __m256 sums[10], w = _mm256_set1_ps(0.5f), x = _mm256_set1_ps(0.25f);
  for (auto& sum : sums) sum = _mm256_setzero_ps();
  for (int64_t i = 0; i < kPeakRounds; ++i) {
#pragma GCC unroll 10
    for (auto& sum : sums) sum = _mm256_fmadd_ps(w, x, sum);
    asm volatile("" : "+x"(w), "+x"(x));
  }
  for (auto& sum : sums) benchmark::DoNotOptimize(sum);
  return kPeakRounds * 10 * 8;
}
__attribute__((target("avx512f"))) int64_t float_peak_avx512() {
  __m512 sums[10], w = _mm512_set1_ps(0.5f), x = _mm512_set1_ps(0.25f);
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  for (int64_t i = 0; i < kPeakRounds; ++i) {
#pragma GCC unroll 10
    for (auto& sum : sums) sum = _mm512_fmadd_ps(w, x, sum);
    asm volatile("" : "+v"(w), "+v"(x));
  }
  for (auto& sum : sums) benchmark::DoNotOptimize(sum);
  return kPeakRounds * 10 * 16;
}
#endif

/// GOP/s of dot products on registers with all threads; 0 where this program has no such loop.
double peak(bool integer) {
#if defined(__x86_64__)
  if (current_isa() == Isa::scalar) return 0;
  const bool wide = current_isa() == Isa::avx512;
  const auto work = integer ? (wide ? integer_peak_avx512 : integer_peak_avx2) : (wide ? float_peak_avx512 : float_peak_avx2);
  int64_t done = 0;
  const double seconds = best_seconds(5, [&] {
    pool().parallel_for(pool().size(), 1, [&](int64_t, int64_t) {
      const int64_t here = work();
      benchmark::DoNotOptimize(here);
    });
  });
  done = (integer ? (wide ? 64 : 32) : (wide ? 16 : 8)) * 10 * kPeakRounds * pool().size();
  return 2.0 * static_cast<double>(done) / seconds / 1e9;
#else
  (void)integer;
  return 0;
#endif
}
double integer_peak() {
  static const double value = peak(true);
  return value;
}
double float_peak() {
  static const double value = peak(false);
  return value;
}

struct Shape {
  const char* name;
  int64_t rows, columns;
};
const Shape kShapes[] = {{"smollm2 q,o 576x576", 576, 576},
                         {"smollm2 gate+up 3072x576", 3072, 576},
                         {"smollm2 down 576x1536", 576, 1536},
                         {"llama-1b q,o 2048x2048", 2048, 2048},
                         {"llama-1b gate+up 16384x2048", 16384, 2048},
                         {"llama-1b down 2048x8192", 2048, 8192}};

LinearSpec spec_of(int bits, const Shape& shape) {
  return {.bits = bits,
          .zero = PackedZero::integer,
          .bfloat = false,
          .rows = shape.rows,
          .columns = shape.columns,
          .group_size = bits <= 8 ? 64 : 0};
}

/// Many copies of one weight, 256 MB in all, so that each is read from memory.
void decode(benchmark::State& state, int bits, const Shape& shape) {
  const LinearSpec spec = spec_of(bits, shape);
  const size_t bytes = packed_bytes(spec);
  const size_t copies = std::max<size_t>(1, (size_t{256} << 20) / bytes);
  const Memory weights = random_memory(copies * bytes);
  std::vector<float> x(static_cast<size_t>(shape.columns), 0.5f), y(static_cast<size_t>(shape.rows));
  size_t copy = 0;
  for (auto _ : state) {
    linear(spec, weights.get() + copy * bytes, x.data(), shape.columns, 1, y.data(), shape.rows, nullptr, Arithmetic::adaptive,
           pool());
    copy = (copy + 1) % copies;
  }
  const double gigabytes = static_cast<double>(state.iterations()) * static_cast<double>(bytes) / 1e9;
  state.counters["GB/s"] = benchmark::Counter(gigabytes, benchmark::Counter::kIsRate);
  state.counters["share"] = benchmark::Counter(gigabytes / read_bandwidth(), benchmark::Counter::kIsRate);
}

void prefill(benchmark::State& state, int bits, const Shape& shape, Arithmetic arithmetic) {
  constexpr int64_t tokens = 512;
  const LinearSpec spec = spec_of(bits, shape);
  const Memory weights = random_memory(packed_bytes(spec));
  std::vector<float> x(static_cast<size_t>(tokens * shape.columns), 0.5f), y(static_cast<size_t>(tokens * shape.rows));
  for (auto _ : state) {
    linear(spec, weights.get(), x.data(), shape.columns, tokens, y.data(), shape.rows, nullptr, arithmetic, pool());
  }
  const double operations =
      2e-9 * static_cast<double>(state.iterations()) * static_cast<double>(tokens * shape.rows * shape.columns);
  const double limit = arithmetic == Arithmetic::adaptive && bits <= 8 ? integer_peak() : float_peak();
  state.counters["GOP/s"] = benchmark::Counter(operations, benchmark::Counter::kIsRate);
  if (limit > 0) state.counters["share"] = benchmark::Counter(operations / limit, benchmark::Counter::kIsRate);
}

/// One layer of SmolLM2's attention: 9 query and 3 key/value heads of 64; format 1 is f16, 2 int8.
void attention_bench(benchmark::State& state) {
  const int64_t tokens = state.range(0), before = state.range(1);
  const AttentionShape shape{.heads = 9, .kv_heads = 3, .head_dim = 64, .scale = 0.125f};
  const auto format = static_cast<KvFormat>(state.range(2));
  const size_t side = kv_page_bytes(format, 3, 64);
  const Memory memory = random_memory(2 * side * static_cast<size_t>((before + tokens) / kPagePositions + 1));
  std::vector<const std::byte*> pages;
  for (int64_t page = 0; page * kPagePositions < before + tokens; ++page)
    pages.push_back(memory.get() + static_cast<size_t>(page) * 2 * side);
  std::vector<float> q(static_cast<size_t>(tokens * 576), 0.25f), out(q.size());
  const AttentionTask task{q.data(), {pages.data(), 0, side, format}, before, tokens, out.data()};
  for (auto _ : state) attention(shape, std::span(&task, 1), pool());
  const double keys =
      static_cast<double>(before) * static_cast<double>(tokens) + static_cast<double>(tokens * (tokens + 1)) / 2;
  state.counters["GFLOP/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * keys * 9 * 64 * 4e-9, benchmark::Counter::kIsRate);
}
BENCHMARK(attention_bench)
    ->ArgNames({"tokens", "before", "format"})
    ->Args({1, 128, 1})
    ->Args({1, 1024, 1})
    ->Args({1, 4096, 1})
    ->Args({1, 4096, 2})
    ->Args({512, 0, 1})
    ->Args({512, 0, 2})
    ->UseRealTime();

/// What an empty parallel loop costs: paid for every linear of every layer of every token.
void empty_loop(benchmark::State& state) {
  for (auto _ : state) pool().parallel_for(12, 1, [](int64_t begin, int64_t) { benchmark::DoNotOptimize(begin); });
}
BENCHMARK(empty_loop)->UseRealTime();

void limits(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(pool().size());
  state.counters["read GB/s"] = read_bandwidth();
  state.counters["integer GOP/s"] = integer_peak();
  state.counters["float GFLOP/s"] = float_peak();
  state.SetLabel(isa_name(current_isa()));
}
BENCHMARK(limits)->Iterations(1);

void register_linears() {
  for (const int bits : {2, 3, 4, 8, 16, 32}) {
    for (const Shape& shape : kShapes) {
      const std::string tail = "/" + std::to_string(bits) + " bits/" + shape.name;
      benchmark::RegisterBenchmark(("decode" + tail).c_str(), [=](benchmark::State& state) {
        decode(state, bits, shape);
      })->UseRealTime();
      benchmark::RegisterBenchmark(("prefill" + tail).c_str(), [=](benchmark::State& state) {
        prefill(state, bits, shape, Arithmetic::adaptive);
      })->UseRealTime();
    }
  }
  benchmark::RegisterBenchmark("exact prefill/4 bits/smollm2 gate+up", [](benchmark::State& state) {
    prefill(state, 4, kShapes[1], Arithmetic::exact);
  })->UseRealTime();
}
const bool registered = (register_linears(), true);

}  // namespace
}  // namespace lighten
