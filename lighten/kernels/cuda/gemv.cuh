// Few tokens: every code is read once, by a grid of which each block takes tile after tile; its warps share a tile's inputs.
#pragma once
#include <type_traits>

#include "lighten/kernels/cuda/call.h"
#include "lighten/kernels/cuda/fragments.cuh"

namespace lighten::cuda {

inline constexpr int kGemvThreads = 256, kGemvWarps = kGemvThreads / 32;
inline constexpr int kRingSlots = 6;  ///< blocks that a warp has on their way, and the one it works on

/// Copies 16 or 8 bytes into shared memory while the warp goes on. With `there` false zeros come.
__device__ __forceinline__ void copy_ahead(void* to, const void* from, bool there = true) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(there ? 16 : 0));
}
__device__ __forceinline__ void copy_eight_ahead(void* to, const void* from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(address), "l"(from));
}
__device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kOpen>
__device__ __forceinline__ void wait_for_groups() {  // until at most so many are open
  asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
}

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

/// A block of a tile in shared memory: its codes, and the scales and zeros of its groups.
template <int kBits, int kZeros, bool kWide>
struct Slot {
  static constexpr int groups = kWide ? 1 : 2;
  static constexpr int zero_bytes = kZeros == kNoZeros ? 0 : kZeros == kMinimums ? 32 : kBits == 8 ? 16 : 8;
  static constexpr int scales = 128 * kBits, zeros = scales + groups * 32, bytes = (zeros + groups * zero_bytes + 15) / 16 * 16;

  static __device__ __forceinline__ void fill(char* slot, const Call& call, const TileView& from, int block, int lane) {
    const char* codes = reinterpret_cast<const char*>(from.codes) + static_cast<int64_t>(block) * scales;
#pragma unroll
    for (int at = 0; at < scales; at += 512)
      if (scales % 512 == 0 || at + lane * 16 < scales) copy_ahead(slot + at + lane * 16, codes + at + lane * 16);
#pragma unroll
    for (int i = 0; i < groups; ++i) {
      const uint32_t group = min(static_cast<uint32_t>(2 * block + i) >> call.group_shift, from.last_group);
      if (lane < 2)
        copy_ahead(slot + scales + i * 32 + lane * 16, reinterpret_cast<const char*>(from.scales + group * 8) + lane * 16);
      const uint8_t* stored = from.zeros + group * zero_bytes;
      char* to = slot + zeros + i * zero_bytes;
      if constexpr (zero_bytes == 8) {
        if (lane == 2) copy_eight_ahead(to, stored);
      } else if constexpr (zero_bytes > 0) {
        if (lane >= 2 && lane < 2 + zero_bytes / 16) copy_ahead(to + (lane - 2) * 16, stored + (lane - 2) * 16);
      }
    }
  }
  static __device__ __forceinline__ Codes<kBits> codes(const char* slot, int lane) {
    Codes<kBits> c;
    if constexpr (kBits <= 3) {
      const uint2 v = reinterpret_cast<const uint2*>(slot)[lane];
      c.w[0] = v.x, c.w[1] = v.y;
      if constexpr (kBits == 3) c.w[2] = reinterpret_cast<const uint32_t*>(slot)[64 + lane];
    } else {
#pragma unroll
      for (int i = 0; i < kBits / 4; ++i) {
        const uint4 v = reinterpret_cast<const uint4*>(slot)[i * 32 + lane];
        c.w[4 * i] = v.x, c.w[4 * i + 1] = v.y, c.w[4 * i + 2] = v.z, c.w[4 * i + 3] = v.w;
      }
    }
    return c;
  }
  static __device__ __forceinline__ RowFactors factors(const char* slot, int i, int g) {
    RowFactors f = {reinterpret_cast<const __half2*>(slot + scales + i * 32)[g], 0};
    const char* at = slot + zeros + i * zero_bytes;
    if constexpr (kZeros == kMinimums)
      f.zero = reinterpret_cast<const uint32_t*>(at)[g];
    else if constexpr (kZeros == kCodeZeros && kBits == 8)
      f.zero = reinterpret_cast<const unsigned short*>(at)[g];
    else if constexpr (kZeros == kCodeZeros)
      f.zero = reinterpret_cast<const unsigned char*>(at)[g];
    return f;
  }
};

/// The blocks that a warp works on, one after the other: every kGemvWarps-th of every tile of its thread block.
struct Walk {
  int at, block;  ///< tile among those of all tasks; done when at >= call.work
  TileView tile;

  __device__ __forceinline__ void next(const Call& call, int first) {
    block += kGemvWarps;
    if (block < call.blocks) return;
    block = first;
    at += gridDim.x;
    if (at < call.work) tile = tile_of(call, at);
  }
};

/// y = W x for up to 8 kEights tokens; kOne: one token, whose float activations every block rounds for itself. Every warp has a
/// ring of slots that its weights come into ahead of their use; weights do not wait for the kernel before.
template <int kBits, int kZeros, bool kWide, int kEights, bool kOne>
__global__ void __launch_bounds__(kGemvThreads, kEights > 1 ? 2
                                                : kOne      ? 4
                                                            : 3) gemv(const __grid_constant__ Call call) {
  using Slots = Slot<kBits, kZeros, kWide>;
  extern __shared__ uint4 shared[];
  constexpr int columns = kOne ? 1 : 8 * kEights;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int padded = call.blocks * 64;
  const uint32_t magic = call.magic;
  char* ring = reinterpret_cast<char*>(shared) + warp * (kRingSlots * Slots::bytes);
  auto* partial = reinterpret_cast<float*>(reinterpret_cast<char*>(shared) + kGemvWarps * kRingSlots * Slots::bytes);
  auto* x = reinterpret_cast<__half*>(partial + 2 * kGemvWarps * columns * 16);  // partial: [2][warps][columns][16], by turns
  auto* sums = reinterpret_cast<float*>(x + padded);
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  const bool works = warp < call.blocks;
  Walk ahead = {works ? static_cast<int>(blockIdx.x) : call.work, warp, tile_of(call, blockIdx.x)};
#pragma unroll
  for (int slot = 0; slot < kRingSlots - 1; ++slot) {
    if (ahead.at < call.work) {
      Slots::fill(ring + slot * Slots::bytes, call, ahead.tile, ahead.block, lane);
      ahead.next(call, warp);
    }
    end_group();
  }
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
  Inputs<kEights, kOne> inputs{call.rounded, call.sums, call.tokens, padded};
  float up = 1;
  if constexpr (kOne) {
    up = round_token(call.x, call.columns, padded, x, sums, partial);
    __syncthreads();
    inputs = {x, sums, 1, padded};
  }
  int turn = 0, slot = 0;
  for (int at = blockIdx.x; at < call.work; at += gridDim.x, turn ^= 1) {
    float total[kEights][4] = {};
    for (int block = warp; block < call.blocks; block += kGemvWarps) {
      wait_for_groups<kRingSlots - 2>();
      __syncwarp();  // this slot is there for all lanes, and all have read the one before
      if (ahead.at < call.work) {
        Slots::fill(ring + (slot == 0 ? kRingSlots - 1 : slot - 1) * Slots::bytes, call, ahead.tile, ahead.block, lane);
        ahead.next(call, warp);
      }
      end_group();
      const char* here = ring + slot * Slots::bytes;
      RowFactors factors[kWide ? 1 : 2];
#pragma unroll
      for (int i = 0; i < (kWide ? 1 : 2); ++i) factors[i] = Slots::factors(here, i, g);
      add_block<kBits, kZeros, kWide>(Slots::codes(here, lane), factors, inputs, magic, block, g, t, total);
      slot = slot == kRingSlots - 1 ? 0 : slot + 1;
    }
    float* mine = partial + turn * kGemvWarps * columns * 16;
#pragma unroll
    for (int n = 0; n < kEights; ++n) {
#pragma unroll
      for (int i = 0; i < 4; i += kOne ? 2 : 1) {
        const int column = n * 8 + 2 * t + i % 2;
        if (column < columns) mine[(warp * columns + column) * 16 + g + i / 2 * 8] = total[n][i];
      }
    }
    __syncthreads();
    const TaskView& task = task_of(call, at);
    for (int i = threadIdx.x; i < columns * 16; i += kGemvThreads) {
      const int token = i / 16, row = (at - task.first) * 16 + i % 16;
      if (token >= call.tokens || row >= task.rows) continue;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kGemvWarps; ++w) sum += mine[w * columns * 16 + i];
      task.y[token * task.y_stride + row] = sum * task.down * (kOne ? up : call.token_scale[token]);
    }
  }
}

}  // namespace lighten::cuda
