// Few tokens: every code is read once, by a grid of which each block takes tile after tile; its warps share a tile's inputs.
#pragma once
#include <type_traits>

#include "lighten/kernels/cuda/call.h"
#include "lighten/kernels/cuda/fragments.cuh"

namespace lighten::cuda {

inline constexpr int kGemvThreads = 256;
/// Blocks that a warp has in flight: up to 32 bytes of codes a lane.
template <int kBits>
inline constexpr int kFlight = kBits == 2   ? 3
                               : kBits == 8 ? 1
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

/// x[at .. at + 7], zeros behind the end.
__device__ __forceinline__ void load_eight(const float* x, int columns, int at, float (&v)[8]) {
  if (columns % 4 == 0 && at + 8 <= columns) {
    const float4 low = *reinterpret_cast<const float4*>(x + at), high = *reinterpret_cast<const float4*>(x + at + 4);
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w, v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = at + i < columns ? x[at + i] : 0.0f;
}

/// x [columns] times a power of two in binary16, filled up to `padded`, and its sums over 32; returns what undoes the power.
/// x begins at a multiple of 16 bytes if columns is one of 4.
__device__ __forceinline__ float round_token(const float* x, int columns, int padded, __half* to, float* sums, float* room) {
  const int mine = static_cast<int>(threadIdx.x) * 8, step = static_cast<int>(blockDim.x) * 8;
  float first[8] = {}, largest = 0;
  if (mine < padded) load_eight(x, columns, mine, first);
#pragma unroll
  for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(first[i]));
#pragma unroll 2
  for (int at = mine + step; at < padded; at += step) {
    float v[8];
    load_eight(x, columns, at, v);
#pragma unroll
    for (int i = 0; i < 8; ++i) largest = fmaxf(largest, fabsf(v[i]));
  }
  const float factor = token_factor(block_max(largest, room));
#pragma unroll 2
  for (int at = mine; at < padded; at += step) {  // padded is a multiple of 64: the four lanes of a unit are all here
    float v[8], sum = 0;
    if (at == mine) {
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = first[i];
    } else {
      load_eight(x, columns, at, v);
    }
    __half2 h[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      h[i] = __floats2half2_rn(v[2 * i] * factor, v[2 * i + 1] * factor);
      sum += __low2float(h[i]) + __high2float(h[i]);
    }
    *reinterpret_cast<uint4*>(to + at) = {bits_of(h[0]), bits_of(h[1]), bits_of(h[2]), bits_of(h[3])};
    const unsigned group = 15u << (threadIdx.x % 32 / 4 * 4);
    sum += __shfl_xor_sync(group, sum, 1);
    sum += __shfl_xor_sync(group, sum, 2);
    if (threadIdx.x % 4 == 0) sums[at / 32] = sum;
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
  const __half* x;    ///< kOne: in shared memory, the same for all columns of the product
  const float* sums;  ///< the same
  int tokens, padded;

  __device__ __forceinline__ uint4 load(int n, int block, int half, int g, int t) const {
    const __half* at = x + block * 64 + half * 32 + t * 8;
    if constexpr (kOne) return *reinterpret_cast<const uint4*>(at);
    const int token = n * 8 + g;
    if (token >= tokens) return {};
    return *reinterpret_cast<const uint4*>(at + static_cast<int64_t>(token) * padded);
  }
  /// Sum of a unit, or of a whole block, for the token of column `column` of the product.
  __device__ __forceinline__ float sum(int n, int column, int unit, bool whole) const {
    const float* of = sums + unit;
    if constexpr (!kOne) {
      const int token = n * 8 + column;
      if (token >= tokens) return 0;
      of += static_cast<int64_t>(token) * (padded / 32);
    }
    return whole ? of[0] + of[1] : of[0];
  }
};

/// Scale and offset of a group for a lane's two rows: w = scale (code - middle) + offset, middle = 2^(kBits - 1).
struct RowFactors {
  __half2 scale;
  uint32_t zero;  ///< as stored
};
/// What zeros are: none (the middle is 0), codes, or minimums.
inline constexpr int kNoZeros = 0, kCodeZeros = 1, kMinimums = 2;

template <int kBits, int kZeros>
__device__ __forceinline__ RowFactors load_row_factors(const __half2* scales, const uint8_t* zeros, uint32_t group, int g) {
  RowFactors f = {__ldcs(scales + group * 8 + g), 0};
  if constexpr (kZeros == kMinimums)
    f.zero = __ldcs(reinterpret_cast<const uint32_t*>(zeros) + group * 8 + g);
  else if constexpr (kZeros == kCodeZeros && kBits == 8)
    f.zero = __ldcs(reinterpret_cast<const unsigned short*>(zeros) + group * 8 + g);
  else if constexpr (kZeros == kCodeZeros)
    f.zero = __ldcs(zeros + group * 8 + g);
  return f;
}
template <int kBits, int kZeros>
__device__ __forceinline__ void offsets_of(const RowFactors& f, const float (&scale)[2], float (&offset)[2]) {
  constexpr int middle = 1 << (kBits - 1), width = kBits == 8 ? 8 : 4;
  if constexpr (kZeros == kMinimums) {
    const __half2 minimum = half2_of(f.zero);
    offset[0] = fmaf(scale[0], middle, __low2float(minimum));
    offset[1] = fmaf(scale[1], middle, __high2float(minimum));
  } else {
    offset[0] = scale[0] * static_cast<float>(middle - static_cast<int>(f.zero & ((1u << width) - 1)));
    offset[1] = scale[1] * static_cast<float>(middle - static_cast<int>(f.zero >> width));
  }
}

/// total += a tile by a block. The integer parts are multiplied as they are, less their middle; what a group's zero adds is
/// its offset times the sum of the activations.
template <int kBits, int kZeros, bool kWide, int kEights, bool kOne>
__device__ __forceinline__ void add_block(const Codes<kBits>& codes, const RowFactors (&factors)[kWide ? 1 : 2],
                                          const Inputs<kEights, kOne>& inputs, uint32_t magic, int block, int g, int t,
                                          float (&total)[kEights][4]) {
  const Adds<kBits> middle = constant_adds<kBits>(1 << (kBits - 1));
  const Adds<kBits> adds[2] = {middle, middle};
  float sum[2][kEights][4] = {};  // of the halves: two chains of products
  const auto multiply_half = [&](auto half_constant) {
    constexpr int half = decltype(half_constant)::value;
    uint4 x[kEights];
#pragma unroll
    for (int n = 0; n < kEights; ++n) x[n] = inputs.load(n, block, half, g, t);
    uint32_t a[4];
    centered_step<kBits, 2 * half>(codes, adds, magic, a);
#pragma unroll
    for (int n = 0; n < kEights; ++n) multiply_add(sum[half][n], a, x[n].x, x[n].y);
    centered_step<kBits, 2 * half + 1>(codes, adds, magic, a);
#pragma unroll
    for (int n = 0; n < kEights; ++n) multiply_add(sum[half][n], a, x[n].z, x[n].w);
  };
  multiply_half(std::integral_constant<int, 0>());
  multiply_half(std::integral_constant<int, 1>());
#pragma unroll
  for (int half = 0; half < (kWide ? 1 : 2); ++half) {
    const float scale[2] = {__low2float(factors[half].scale), __high2float(factors[half].scale)};
    float offset[2];
    if constexpr (kZeros != kNoZeros) offsets_of<kBits, kZeros>(factors[half], scale, offset);
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int i = 0; i < 4; i += kOne ? 2 : 1) {  // one token: all columns are the same
        total[n][i] = fmaf(scale[i / 2], kWide ? sum[0][n][i] + sum[1][n][i] : sum[half][n][i], total[n][i]);
        if constexpr (kZeros != kNoZeros)
          total[n][i] = fmaf(offset[i / 2], inputs.sum(n, 2 * t + i % 2, 2 * block + half, kWide), total[n][i]);
      }
    }
  }
}

/// A tile of a task, and what its rows read.
struct TileView {
  const TaskView* task;
  const uint32_t* codes;
  const __half2* scales;
  const uint8_t* zeros;
  int tile;
  uint32_t last_group;
};
__device__ __forceinline__ TileView tile_of(const Call& call, int at) {
  const TaskView& task = task_of(call, at);
  const int tile = at - task.first;
  return {&task,
          task.codes + tile * task.words_per_tile,
          task.scales + static_cast<int64_t>(tile) * task.groups * 8,
          task.zeros == nullptr ? nullptr : task.zeros + static_cast<int64_t>(tile) * task.groups * call.zero_group_bytes,
          tile,
          static_cast<uint32_t>(task.groups - 1)};
}

/// What a warp has on its way: every warps-th block from a first one on.
template <int kBits, int kZeros, bool kWide, int kBlocks>
struct Flight {
  Codes<kBits> codes[kBlocks];
  RowFactors factors[kBlocks][kWide ? 1 : 2];

  __device__ __forceinline__ void load(const Call& call, const TileView& from, int first, int warps, int lane) {
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      const int block = first + i * warps;
      if (block >= call.blocks) continue;
      codes[i] = load_codes<kBits>(from.codes, block, lane);
#pragma unroll
      for (int half = 0; half < (kWide ? 1 : 2); ++half) {
        const uint32_t group = min(static_cast<uint32_t>(2 * block + half) >> call.group_shift, from.last_group);
        factors[i][half] = load_row_factors<kBits, kZeros>(from.scales, from.zeros, group, lane / 4);
      }
    }
  }
};

/// Asks for the first bytes of a block's tiles, as much as the cache surely holds for all blocks.
__device__ __forceinline__ void ask_for_tiles(const Call& call) {
  constexpr int64_t most = 48 * 1024;
  int64_t asked = 0;
  for (int at = blockIdx.x; at < call.work && asked < most; at += gridDim.x) {
    const TileView tile = tile_of(call, at);
    const int64_t bytes = tile.task->words_per_tile * 4;
    for (int64_t i = threadIdx.x * 128; i < bytes; i += blockDim.x * 128)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(reinterpret_cast<const char*>(tile.codes) + i));
    asked += bytes;
  }
}

/// y = W x for up to 8 kEights tokens; kOne: one token, whose float activations every block rounds for itself. Weights do not
/// wait for the kernel before: they are asked for before its results are.
template <int kBits, int kZeros, bool kWide, int kEights, bool kOne>
__global__ void __launch_bounds__(kGemvThreads, kEights > 1 ? 2
                                                : kOne      ? 4
                                                            : 3) gemv(const __grid_constant__ Call call) {
  extern __shared__ uint4 shared[];
  constexpr int columns = kOne ? 1 : 8 * kEights, warps = kGemvThreads / 32;
  constexpr int blocks = kEights > 1 ? 2 : kFlight<kBits>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int padded = call.blocks * 64;
  auto* partial = reinterpret_cast<float*>(shared);  // [2][warps][columns][16], by turns
  auto* x = reinterpret_cast<__half*>(partial + 2 * warps * columns * 16);
  auto* sums = reinterpret_cast<float*>(x + padded);
  const uint32_t magic = call.magic;
  TileView tile = tile_of(call, blockIdx.x);
  Flight<kBits, kZeros, kWide, blocks> flight;
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
  ask_for_tiles(call);
  cudaGridDependencySynchronize();
#endif
  flight.load(call, tile, warp, warps, lane);
  Inputs<kEights, kOne> inputs{call.rounded, call.sums, call.tokens, padded};
  float up = 1;
  if constexpr (kOne) {
    up = round_token(call.x, call.columns, padded, x, sums, partial);
    __syncthreads();
    inputs = {x, sums, 1, padded};
  }
  int turn = 0;
  for (int at = blockIdx.x; at < call.work; at += gridDim.x, turn ^= 1) {
    float total[kEights][4] = {};
    const TileView now = tile;
    for (int first = warp; first < call.blocks; first += warps * blocks) {
#pragma unroll
      for (int i = 0; i < blocks; ++i) {
        const int block = first + i * warps;
        if (block < call.blocks)
          add_block<kBits, kZeros, kWide>(flight.codes[i], flight.factors[i], inputs, magic, block, g, t, total);
      }
      if (first + warps * blocks < call.blocks) flight.load(call, now, first + warps * blocks, warps, lane);
    }
    if (at + static_cast<int>(gridDim.x) < call.work) {  // the next tile comes while this one is summed up
      tile = tile_of(call, at + gridDim.x);
      flight.load(call, tile, warp, warps, lane);
    }
    float* mine = partial + turn * warps * columns * 16;
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int i = 0; i < 4; i += kOne ? 2 : 1) {
        const int column = n * 8 + 2 * t + i % 2;
        if (column < columns) mine[(warp * columns + column) * 16 + g + i / 2 * 8] = total[n][i];
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < columns * 16; i += kGemvThreads) {
      const int token = i / 16, row = now.tile * 16 + i % 16;
      if (token >= call.tokens || row >= now.task->rows) continue;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < warps; ++w) sum += mine[w * columns * 16 + i];
      now.task->y[token * now.task->y_stride + row] = sum * now.task->down * (kOne ? up : call.token_scale[token]);
    }
  }
}

}  // namespace lighten::cuda
