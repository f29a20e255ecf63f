#include "lighten/kernels/cuda/roofs.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "lighten/kernels/cuda/check.h"
#include "lighten/kernels/cuda/fragments.cuh"

namespace lighten::cuda {

namespace {

__global__ void __launch_bounds__(512) read_all(const uint4* from, size_t count, uint32_t* to) {
  uint32_t sum = 0;
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x;
  for (; i + 3 * step < count; i += 4 * step) {
    uint4 v[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) v[j] = __ldcs(from + i + j * step);
#pragma unroll
    for (int j = 0; j < 4; ++j) sum += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  for (; i < count; i += step) sum += __ldcs(from + i).x;
  if (sum == 0x12345678) *to = sum;  // so that nothing is left out
}

constexpr int kRounds = 4096, kChains = 8;

__global__ void __launch_bounds__(256) multiply_registers(float* to) {
  float sum[kChains][4] = {};
  const uint32_t a[4] = {threadIdx.x, 0x3c003c00u, 0x3c003c00u, threadIdx.x};
  for (int round = 0; round < kRounds; ++round) {
#pragma unroll
    for (int i = 0; i < kChains; ++i) multiply_add(sum[i], a, 0x2c002c00u, threadIdx.x);
  }
  float all = 0;
  for (int i = 0; i < kChains; ++i) all += sum[i][0] + sum[i][3];
  if (all == 0.12345f) *to = all;
}

}  // namespace

double median_seconds(cudaStream_t stream, int repeats, const std::function<void()>& work) {
  cudaEvent_t begin = nullptr, end = nullptr;
  expect_ok(cudaEventCreate(&begin), "a clock");
  expect_ok(cudaEventCreate(&end), "a clock");
  const auto start = std::chrono::steady_clock::now();  // a card that was idle takes a while to come to its full clock
  while (std::chrono::steady_clock::now() - start < std::chrono::milliseconds(300)) {
    work();
    expect_ok(cudaStreamSynchronize(stream), "warming up");
  }
  std::vector<float> times;
  for (int i = 0; i < repeats; ++i) {
    expect_ok(cudaEventRecord(begin, stream), "a clock");
    work();
    expect_ok(cudaEventRecord(end, stream), "a clock");
    expect_ok(cudaEventSynchronize(end), "timed work");
    float milliseconds = 0;
    expect_ok(cudaEventElapsedTime(&milliseconds, begin, end), "a clock");
    if (i >= 0) times.push_back(milliseconds);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
  return times.at(static_cast<size_t>(repeats / 2)) / 1e3;
}

double read_gb_per_s(const Launch& how, size_t cache_bytes) {
  const size_t bytes = std::max<size_t>(size_t{2} << 30, 16 * cache_bytes);
  void* memory = nullptr;
  expect_ok(cudaMalloc(&memory, bytes + 256), "taking memory");
  expect_ok(cudaMemset(memory, 1, bytes + 256), "filling memory");
  double best = 0;
  for (const int blocks : {2, 4, 8}) {  // of 512 threads for each multiprocessor
    const double seconds = median_seconds(how.stream, 5, [&] {
      read_all<<<static_cast<unsigned>(how.processors * blocks), 512, 0, how.stream>>>(
          static_cast<const uint4*>(memory), bytes / 16, reinterpret_cast<uint32_t*>(static_cast<char*>(memory) + bytes));
      expect_ok(cudaGetLastError(), "reading memory");
    });
    best = std::max(best, static_cast<double>(bytes) / seconds / 1e9);
  }
  cudaFree(memory);
  return best;
}

double tensor_tflops(const Launch& how) {
  void* memory = nullptr;
  expect_ok(cudaMalloc(&memory, 256), "taking memory");
  const int blocks = how.processors * 4;
  const double seconds = median_seconds(how.stream, 5, [&] {
    multiply_registers<<<static_cast<unsigned>(blocks), 256, 0, how.stream>>>(static_cast<float*>(memory));
    expect_ok(cudaGetLastError(), "multiplying");
  });
  cudaFree(memory);
  return 2.0 * 16 * 8 * 16 * kChains * kRounds * 8 * blocks / seconds / 1e12;
}

}  // namespace lighten::cuda
