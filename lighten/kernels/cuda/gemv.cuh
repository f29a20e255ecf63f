// Few tokens: every code is read once, by a grid of which each block takes tile after tile; its warps share a tile's inputs.
#pragma once
#include <type_traits>

#include "lighten/kernels/cuda/call.h"
#include "lighten/kernels/cuda/fragments.cuh"

namespace lighten::cuda {

/// Blocks that a warp has in flight: about 64 bytes of codes a lane.
template <int kBits>
inline constexpr int kFlight = kBits == 2   ? 8
                               : kBits == 3 ? 5
                               : kBits == 4 ? 4
                                            : 2;

/// Largest exponent e with largest * 2^e < 2^14, as 2^e; 1 for zeros and for what is not finite.
__device__ __forceinline__ float token_factor(float largest) {
  if (!(largest > 0) || isinf(largest)) return 1;
  return exp2f(static_cast<float>(min(126, 13 - ilogbf(largest))));
}

/// The largest value over the threads of a block; `room` holds 32 floats.
__device__ __forceinline__ float block_max(float value, float* room) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, step));
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
  __syncthreads();
  float all = 0;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) all = fmaxf(all, room[warp]);
  __syncthreads();
  return all;
}

/// x [columns] times a power of two in binary16, filled up to `padded`, and its sums over 32; returns what undoes the power.
__device__ __forceinline__ float round_token(const float* x, int columns, int padded, __half* to, float* sums, float* room) {
  float largest = 0;
  for (int i = threadIdx.x; i < columns; i += blockDim.x) largest = fmaxf(largest, fabsf(x[i]));
  const float factor = token_factor(block_max(largest, room));
  for (int i = threadIdx.x; i < padded; i += blockDim.x) to[i] = __float2half_rn(i < columns ? x[i] * factor : 0.0f);
  if (sums != nullptr) {
    __syncthreads();
    for (int unit = threadIdx.x; unit < padded / 32; unit += blockDim.x) {
      float sum = 0;
      for (int i = 0; i < 32; ++i) sum += __half2float(to[unit * 32 + i]);
      sums[unit] = sum;
    }
  }
  return 1 / factor;
}

__device__ __forceinline__ const TaskView& task_of(const Call& call, int at) {
  int task = 0;
  while (task + 1 < call.count && at >= call.tasks[task + 1].first) ++task;
  return call.tasks[task];
}

/// Activations of 8 kEights tokens for a lane.
template <int kEights, bool kOne>
struct Inputs {
  const __half* x;    ///< kOne: in shared memory
  const float* sums;  ///< the same
  int tokens, padded;

  __device__ __forceinline__ uint4 load(int n, int block, int half, int g, int t) const {
    const int token = n * 8 + g;
    if (token >= (kOne ? 1 : tokens)) return {};
    return *reinterpret_cast<const uint4*>(x + static_cast<int64_t>(token) * padded + block * 64 + half * 32 + t * 8);
  }
  /// Sum of a unit, or of a whole block, for the token of column `column` of the product.
  __device__ __forceinline__ float sum(int n, int column, int unit, bool whole) const {
    const int token = n * 8 + column;
    if (token >= (kOne ? 1 : tokens)) return 0;
    const float* of = sums + static_cast<int64_t>(token) * (padded / 32) + unit;
    return whole ? of[0] + of[1] : of[0];
  }
};

template <int kBits, bool kMinimum, bool kWide, int kEights, bool kOne>
__device__ __forceinline__ void add_block(const Codes<kBits>& codes, const Factors (&factors)[kWide ? 1 : 2],
                                          const Inputs<kEights, kOne>& inputs, int block, int g, int t,
                                          float (&total)[kEights][4]) {
  Adds<kBits> adds[2];
  float sum[kEights][4] = {};
  const auto half_block = [&](auto half_constant) {
    constexpr int half = decltype(half_constant)::value;
    if constexpr (half == 0 || !kWide) set_adds<kBits, kMinimum>(factors[kWide ? 0 : half], adds);
    uint4 x[kEights];
#pragma unroll
    for (int n = 0; n < kEights; ++n) x[n] = inputs.load(n, block, half, g, t);
    uint32_t a[4];
    centered_step<kBits, 2 * half>(codes, adds, a);
#pragma unroll
    for (int n = 0; n < kEights; ++n) multiply_add(sum[n], a, x[n].x, x[n].y);
    centered_step<kBits, 2 * half + 1>(codes, adds, a);
#pragma unroll
    for (int n = 0; n < kEights; ++n) multiply_add(sum[n], a, x[n].z, x[n].w);
    if constexpr (kWide && half == 0) return;
    const Factors& f = factors[kWide ? 0 : half];
    const float scale[2] = {__low2float(f.scale), __high2float(f.scale)};
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        total[n][i] += scale[i / 2] * sum[n][i];
        sum[n][i] = 0;
      }
      if constexpr (kMinimum) {
        const float minimum[2] = {__low2float(f.zero), __high2float(f.zero)};
#pragma unroll
        for (int i = 0; i < 4; ++i)
          total[n][i] += minimum[i / 2] * inputs.sum(n, 2 * t + i % 2, 2 * block + (kWide ? 0 : half), kWide);
      }
    }
  };
  half_block(std::integral_constant<int, 0>());
  half_block(std::integral_constant<int, 1>());
}

/// A tile of a task, and what its rows read.
struct TileView {
  const TaskView* task;
  const uint32_t* codes;
  const __half2* scales;
  const uint8_t* zeros;
  int tile;
};
__device__ __forceinline__ TileView tile_of(const Call& call, int at) {
  const TaskView& task = task_of(call, at);
  const int tile = at - task.first;
  return {&task, task.codes + tile * task.words_per_tile, task.scales + static_cast<int64_t>(tile) * task.groups * 8,
          task.zeros == nullptr ? nullptr : task.zeros + static_cast<int64_t>(tile) * task.groups * call.zero_group_bytes,
          tile};
}

/// What a warp has on its way: every warps-th block from a first one on.
template <int kBits, bool kMinimum, bool kWide, int kBlocks>
struct Flight {
  Codes<kBits> codes[kBlocks];
  Factors factors[kBlocks][kWide ? 1 : 2];

  __device__ __forceinline__ void load(const Call& call, const TileView& from, int first, int warps, int lane) {
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      const int block = first + i * warps;
      if (block < call.blocks) codes[i] = load_codes<kBits>(from.codes, block, lane);
    }
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      const int block = first + i * warps;
      if (block >= call.blocks) continue;
#pragma unroll
      for (int half = 0; half < (kWide ? 1 : 2); ++half) {
        const uint32_t group = min(group_of(2 * block + half, call.grouping), from.task->groups - 1);
        factors[i][half] = load_factors<kBits, kMinimum>(from.scales, from.zeros, group, lane / 4, call.center);
      }
    }
  }
};

/// y = W x for up to 8 kEights tokens; kOne: one token, whose float activations every block rounds for itself. Weights do not
/// wait for the kernel before: the first of them are asked for before its results are.
template <int kBits, bool kMinimum, bool kWide, int kEights, bool kOne>
__global__ void __launch_bounds__(512) gemv(const __grid_constant__ Call call) {
  extern __shared__ uint4 shared[];
  constexpr int columns = kOne ? 1 : 8 * kEights;
  constexpr int blocks = kEights > 1 ? 2 : kFlight<kBits>;
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int padded = call.blocks * 64;
  auto* partial = reinterpret_cast<float*>(shared);  // [warps][columns][16]
  auto* x = reinterpret_cast<__half*>(partial + warps * columns * 16);
  auto* sums = reinterpret_cast<float*>(x + padded);
  TileView tile = tile_of(call, blockIdx.x);
  Flight<kBits, kMinimum, kWide, blocks> flight;
  flight.load(call, tile, warp, warps, lane);
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
  cudaGridDependencySynchronize();
#endif
  Inputs<kEights, kOne> inputs{call.rounded, call.sums, call.tokens, padded};
  float up = 1;
  if constexpr (kOne) {
    up = round_token(call.x, call.columns, padded, x, kMinimum ? sums : nullptr, partial);
    __syncthreads();
    inputs = {x, sums, 1, padded};
  }
  for (int at = blockIdx.x; at < call.work; at += gridDim.x) {
    float total[kEights][4] = {};
    const TileView now = tile;
    for (int first = warp; first < call.blocks; first += warps * blocks) {
#pragma unroll
      for (int i = 0; i < blocks; ++i) {
        const int block = first + i * warps;
        if (block < call.blocks)
          add_block<kBits, kMinimum, kWide>(flight.codes[i], flight.factors[i], inputs, block, g, t, total);
      }
      if (first + warps * blocks < call.blocks) flight.load(call, now, first + warps * blocks, warps, lane);
    }
    if (at + static_cast<int>(gridDim.x) < call.work) {  // the next tile comes while this one is summed up
      tile = tile_of(call, at + gridDim.x);
      flight.load(call, tile, warp, warps, lane);
    }
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = n * 8 + 2 * t + i % 2;
        if (column < columns) partial[(warp * columns + column) * 16 + g + i / 2 * 8] = total[n][i];
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < columns * 16; i += blockDim.x) {
      const int token = i / 16, row = now.tile * 16 + i % 16;
      if (token >= call.tokens || row >= now.task->rows) continue;
      float sum = 0;
      for (int w = 0; w < warps; ++w) sum += partial[w * columns * 16 + i];
      now.task->y[token * now.task->y_stride + row] = sum * now.task->down * (kOne ? up : call.token_scale[token]);
    }
    __syncthreads();
  }
}

}  // namespace lighten::cuda
