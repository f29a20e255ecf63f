// Speed of the graphics card's kernels, each beside the card's limit that was measured in the same run:
//   build-cuda/kernels_bench --benchmark_filter='card'
// decode: all matrices of a model, one token (or a few), as one recorded graph of launches in which each waits for the one
// before: bytes of packed weights over time, as a share of the memory's read bandwidth. prefill: 512 or 2,048 tokens, as a
// share of what mma.m16n8k16 reaches on registers alone.
#include <benchmark/benchmark.h>

#include <map>
#include <string>
#include <vector>

#include "lighten/base/random.h"
#include "lighten/kernels/accelerator.h"
#include "lighten/kernels/random_weight_test.h"

namespace lighten {
namespace {

struct Shape {
  const char* name;
  int64_t layers, width, kv_width, inner, vocabulary;
};
const Shape kShapes[] = {{"llama-1b", 16, 2048, 512, 8192, 128256}, {"llama-8b", 32, 4096, 1024, 14336, 128256}};

ThreadPool& pool() {
  static ThreadPool threads;
  return threads;
}
const DeviceRoofs& roofs() {
  static const DeviceRoofs measured = measure_device_roofs();
  return measured;
}

struct Steps {
  std::vector<DeviceStep> steps;
  double bytes = 0, weights = 0;

  void add(std::initializer_list<std::shared_ptr<const DeviceWeight>> weights_of_step, double numbers) {
    steps.push_back({weights_of_step});
    for (const auto& weight : weights_of_step) bytes += static_cast<double>(weight->bytes());
    weights += numbers;
  }
};

std::shared_ptr<const DeviceWeight> random_weight(int bits, int64_t group, int64_t rows, int64_t columns) {
  const LinearSpec spec{.bits = bits, .rows = rows, .columns = columns, .group_size = group};
  Random random(static_cast<uint64_t>(rows + columns));
  test::RandomWeight w(spec, random);
  return to_device(spec, w.packed.data(), pool());
}

/// A model's linears: one layer made, the others copies of it in memory of their own.
Steps model_of(const Shape& s, int bits, int64_t group, bool head) {
  const auto make = [&](int64_t rows, int64_t columns) { return random_weight(bits, group, rows, columns); };
  const auto q = make(s.width, s.width), k = make(s.kv_width, s.width), gate = make(s.inner, s.width),
             down = make(s.width, s.inner);
  Steps all;
  const auto n = [](int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); };
  for (int64_t i = 0; i < s.layers; ++i) {
    all.add({duplicate(*q), duplicate(*k), duplicate(*k)}, n(s.width + 2 * s.kv_width, s.width));
    all.add({duplicate(*q)}, n(s.width, s.width));
    all.add({duplicate(*gate), duplicate(*gate)}, n(2 * s.inner, s.width));
    all.add({duplicate(*down)}, n(s.width, s.inner));
  }
  if (head) all.add({make(s.vocabulary, s.width)}, n(s.vocabulary, s.width));
  return all;
}

void measure(benchmark::State& state, const Shape& shape, int bits, int64_t group, int64_t tokens) {
  if (!has_accelerator()) {
    state.SkipWithError("no graphics card, or a build without CUDA");
    return;
  }
  static std::map<std::string, Steps> made;  // of the shape last used: memory is not endless
  const std::string key = std::string(shape.name) + std::to_string(bits) + "/" + std::to_string(group);
  if (!made.contains(key)) {
    made.clear();
    made[key] = model_of(shape, bits, group, false);
  }
  const Steps& steps = made[key];
  double seconds = 0;
  for (auto _ : state) {
    seconds = device_pass_seconds(steps.steps, tokens, 21);
    state.SetIterationTime(seconds);
  }
  const double flops = 2 * steps.weights * static_cast<double>(tokens);
  state.counters["GB/s"] = steps.bytes / seconds / 1e9;
  state.counters["of_read"] = steps.bytes / seconds / 1e9 / roofs().read_gb_per_s;
  state.counters["TFLOP/s"] = flops / seconds / 1e12;
  state.counters["of_mma"] = flops / seconds / 1e12 / roofs().tensor_tflops;
  state.counters["bits"] = 8 * steps.bytes / steps.weights;
}

void card_limits(benchmark::State& state) {
  if (!has_accelerator()) {
    state.SkipWithError("no graphics card, or a build without CUDA");
    return;
  }
  for (auto _ : state) state.SetIterationTime(1e-3);
  state.counters["read GB/s"] = roofs().read_gb_per_s;
  state.counters["mma TFLOP/s"] = roofs().tensor_tflops;
  state.SetLabel(accelerator_name());
}
BENCHMARK(card_limits)->Iterations(1)->UseManualTime();

void register_all() {
  struct Kind {
    int bits;
    int64_t group;
  };
  for (const Shape& shape : kShapes)
    for (const Kind kind : {Kind{4, 32}, Kind{4, 128}, Kind{3, 64}, Kind{2, 64}, Kind{8, 128}})
      for (const int64_t tokens : {1, 4, 16, 512, 2048}) {
        const std::string name = std::string("card ") + (tokens > 32 ? "prefill" : "decode") + "/" + shape.name + "/" +
                                 std::to_string(kind.bits) + " bits g" + std::to_string(kind.group) + "/" +
                                 std::to_string(tokens) + " tokens";
        benchmark::RegisterBenchmark(name.c_str(),
                                     [=](benchmark::State& state) { measure(state, shape, kind.bits, kind.group, tokens); })
            ->Iterations(1)
            ->UseManualTime();
      }
}
const bool registered = (register_all(), true);

}  // namespace
}  // namespace lighten
