// Speed of the linear kernels at real shapes, each beside the machine's limit that was measured in the same run:
//   build/kernels_bench --benchmark_filter='decode|prefill'
// decode reports GB/s of packed weights read (weights larger than the caches), prefill GOP/s (two per multiply-add); `share` is
// the part of the limit: the memory's read bandwidth, or the rate of integer (float) dot products on registers alone.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "lighten/base/random.h"
#include "lighten/kernels/attention.h"
#include "lighten/kernels/cpu.h"
#include "lighten/kernels/linear.h"
#include "lighten/kernels/roofs.h"

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

const Roofs& roofs() {
  static const Roofs measured = measure_roofs(pool());
  return measured;
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

constexpr int kTrits = 102, kLevels = 104;  // in place of bits

LinearSpec spec_of(int bits, const Shape& shape) {
  if (bits == kTrits || bits == kLevels) {
    return {.bits = bits == kTrits ? 2 : 4,
            .zero = PackedZero::symmetric,
            .rows = shape.rows,
            .columns = shape.columns,
            .group_size = 64,
            .codes = bits == kTrits ? PackedCodes::trits : PackedCodes::levels};
  }
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
  state.counters["share"] = benchmark::Counter(gigabytes / roofs().read_gb_per_s, benchmark::Counter::kIsRate);
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
  const double limit = arithmetic == Arithmetic::adaptive && spec.bits <= 8 ? roofs().integer_gops : roofs().float_gflops;
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
  state.counters["read GB/s"] = roofs().read_gb_per_s;
  state.counters["integer GOP/s"] = roofs().integer_gops;
  state.counters["float GFLOP/s"] = roofs().float_gflops;
  state.SetLabel(isa_name(current_isa()));
}
BENCHMARK(limits)->Iterations(1);

void register_linears() {
  for (const int bits : {1, kTrits, 2, 3, 4, kLevels, 8, 16, 32}) {
    for (const Shape& shape : kShapes) {
      const std::string kind = bits == kTrits ? "trits" : bits == kLevels ? "4-bit levels" : std::to_string(bits) + " bits";
      const std::string tail = "/" + kind + "/" + shape.name;
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
