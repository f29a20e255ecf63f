// Many tokens: 128 rows x kTokens of them a block. A warp takes the codes of 32 rows apart in registers, weights times their
// scale in binary16, and multiplies them with activations that come into shared memory some blocks ahead.
#pragma once
#include "lighten/kernels/cuda/gemv.cuh"

namespace lighten::cuda {

inline constexpr int kStages = 3;
inline constexpr int kGemmWarps = 4, kWarpTiles = kGemmTiles / kGemmWarps;

/// Where the 16 bytes `piece` of a token's 128 lie: two neighbouring tokens' pieces in different halves of the banks.
__device__ __forceinline__ int place_of(int token, int piece) { return token * 8 + (piece ^ (token & 1) << 2); }

/// Registers of step kStep, scaled.
template <int kBits, bool kMinimum, int kStep>
__device__ __forceinline__ void scaled_step(const Codes<kBits>& c, const Adds<kBits> (&adds)[2], const Factors& f,
                                            uint32_t magic, uint32_t (&a)[4]) {
  centered_step<kBits, kStep>(c, adds, magic, a);
  const __half2 scale[2] = {__low2half2(f.scale), __high2half2(f.scale)};
  const __half2 minimum[2] = {__low2half2(f.zero), __high2half2(f.zero)};
#pragma unroll
  for (int i = 0; i < 4; ++i)
    a[i] = bits_of(kMinimum ? __hfma2(half2_of(a[i]), scale[i % 2], minimum[i % 2]) : __hmul2(half2_of(a[i]), scale[i % 2]));
}

/// A tile's share of one warp.
template <int kBits, bool kMinimum, bool kWide>
struct WarpTile {
  const uint32_t* codes;
  const __half2* scales;
  const uint8_t* zeros;
  int groups;

  __device__ __forceinline__ void expand(const Codes<kBits>& c, const Call& call, int block, int g, uint32_t (&a)[4][4]) const {
    Adds<kBits> adds[2];
    const auto factors = [&](int half) {
      const uint32_t group =
          min(static_cast<uint32_t>(2 * block + half) >> call.group_shift, static_cast<uint32_t>(groups - 1));
      return load_factors<kBits, kMinimum>(scales, zeros, group, g, call.center);
    };
    Factors f = factors(0);
    set_adds<kBits, kMinimum>(f, adds);
    scaled_step<kBits, kMinimum, 0>(c, adds, f, call.magic, a[0]);
    scaled_step<kBits, kMinimum, 1>(c, adds, f, call.magic, a[1]);
    if constexpr (!kWide) {
      f = factors(1);
      set_adds<kBits, kMinimum>(f, adds);
    }
    scaled_step<kBits, kMinimum, 2>(c, adds, f, call.magic, a[2]);
    scaled_step<kBits, kMinimum, 3>(c, adds, f, call.magic, a[3]);
  }
};

template <int kBits, bool kMinimum, bool kWide, int kTokens>
__global__ void __launch_bounds__(kGemmWarps * 32) gemm(const __grid_constant__ Call call) {
  extern __shared__ uint4 shared[];  // [kStages][kTokens][8]
  constexpr int eights = kTokens / 8;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int first_token = blockIdx.y * kTokens, padded = call.blocks * 64;
  const TaskView& task = task_of(call, blockIdx.x);
  const int first_tile = (blockIdx.x - task.first) * kGemmTiles + warp * kWarpTiles;
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
  cudaGridDependencySynchronize();
#endif
  WarpTile<kBits, kMinimum, kWide> tiles[kWarpTiles];
#pragma unroll
  for (int m = 0; m < kWarpTiles; ++m) {
    const int64_t tile = min(first_tile + m, task.tiles - 1);  // past the end: done, and not written
    tiles[m] = {task.codes + tile * task.words_per_tile, task.scales + tile * task.groups * 8,
                task.zeros == nullptr ? nullptr : task.zeros + tile * task.groups * call.zero_group_bytes, task.groups};
  }
  const auto fetch = [&](int block) {
    if (block < call.blocks) {
#pragma unroll
      for (int i = threadIdx.x; i < kTokens * 8; i += kGemmWarps * 32) {
        const int token = i / 8, piece = i % 8;
        const bool there = first_token + token < call.tokens;
        const __half* from =
            call.rounded + static_cast<int64_t>(there ? first_token + token : 0) * padded + block * 64 + piece * 8;
        copy_ahead(shared + block % kStages * kTokens * 8 + place_of(token, piece), from, there);
      }
    }
    asm volatile("cp.async.commit_group;");
  };
  for (int block = 0; block < kStages - 1; ++block) fetch(block);
  Codes<kBits> next[kWarpTiles];
#pragma unroll
  for (int m = 0; m < kWarpTiles; ++m) next[m] = load_codes<kBits>(tiles[m].codes, 0, lane);
  float sum[kWarpTiles][eights][4] = {};
  for (int block = 0; block < call.blocks; ++block) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2));
    __syncthreads();  // this block's activations are there for all, and the oldest ones' place is free
    fetch(block + kStages - 1);
    uint32_t a[kWarpTiles][4][4];
#pragma unroll
    for (int m = 0; m < kWarpTiles; ++m) {
      const Codes<kBits> codes = next[m];
      if (block + 1 < call.blocks) next[m] = load_codes<kBits>(tiles[m].codes, block + 1, lane);
      tiles[m].expand(codes, call, block, g, a[m]);
    }
    const uint4* x = shared + block % kStages * kTokens * 8;
#pragma unroll
    for (int n = 0; n < eights; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4 b = x[place_of(n * 8 + g, half * 4 + t)];
#pragma unroll
        for (int m = 0; m < kWarpTiles; ++m) multiply_add(sum[m][n], a[m][2 * half], b.x, b.y);
#pragma unroll
        for (int m = 0; m < kWarpTiles; ++m) multiply_add(sum[m][n], a[m][2 * half + 1], b.z, b.w);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kWarpTiles; ++m) {
    if (first_tile + m >= task.tiles) continue;
#pragma unroll
    for (int n = 0; n < eights; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = (first_tile + m) * 16 + g + i / 2 * 8, token = first_token + n * 8 + 2 * t + i % 2;
        if (row < task.rows && token < call.tokens)
          task.y[token * task.y_stride + row] = sum[m][n][i] * task.down * call.token_scale[token];
      }
    }
  }
}

}  // namespace lighten::cuda
