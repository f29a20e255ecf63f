// Products of training, forwards and backwards: ATen's choice against product().
#include <benchmark/benchmark.h>

#include "lighten/nn/product.h"

namespace lighten {
namespace {

void train_step(benchmark::State& state, bool own) {
  const torch::Tensor x = torch::randn({state.range(0), state.range(1)}).requires_grad_(true);
  const torch::Tensor w = torch::randn({state.range(2), state.range(1)}).requires_grad_(true);
  for (auto _ : state) {
    const torch::Tensor y = own ? product(x, w) : torch::linear(x, w);
    y.backward(torch::ones_like(y));
  }
  state.counters["GFLOP/s"] = benchmark::Counter(6e-9 * static_cast<double>(state.range(0) * state.range(1) * state.range(2)),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}
void aten(benchmark::State& state) { train_step(state, false); }
void lighten_product(benchmark::State& state) { train_step(state, true); }
BENCHMARK(aten)->Args({4096, 384, 1536})->Args({512, 384, 256})->Args({128, 784, 256});
BENCHMARK(lighten_product)->Args({4096, 384, 1536})->Args({512, 384, 256})->Args({128, 784, 256});

}  // namespace
}  // namespace lighten
