// What the kernels are told, and the one function per width of codes that launches them.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace lighten::cuda {

inline constexpr int kMostTasks = 3;
inline constexpr int kGemvTokens = 32;  ///< at most; more go through the matrix kernel
inline constexpr int kGemmTiles = 8;    ///< tiles of 16 rows that a block of the matrix kernel works on

/// A weight, and where its products go.
struct TaskView {
  const uint32_t* codes;
  const __half2* scales;
  const uint8_t* zeros;  ///< null: symmetric
  float* y;              ///< [tokens][y_stride]
  int64_t y_stride;
  int64_t words_per_tile;
  int rows, tiles, groups;
  int first;   ///< tiles (GEMV) or blocks of kGemmTiles tiles (GEMM) of the tasks before
  float down;  ///< undoes the power of two in the scales
};

/// Tasks of one kind that read the same activations.
struct Call {
  TaskView tasks[kMostTasks];
  int count, work;  ///< tasks; tiles or blocks of all of them
  int blocks;       ///< of 64 inputs
  int columns, tokens;
  int center;
  int group_shift;  ///< a group is 2^group_shift units of 32 inputs
  int zero_group_bytes;
  bool minimum;
  uint32_t magic;            ///< kMagic of fragments.cuh
  const float* x;            ///< [columns]: of one token
  const __half* rounded;     ///< [tokens][64 blocks]: of more, rounded by round_tokens()
  const float* sums;         ///< [tokens][2 blocks]: of 32 rounded inputs each
  const float* token_scale;  ///< [tokens]: undoes the power of two in `rounded`
};

struct Launch {
  cudaStream_t stream;
  int processors;  ///< of the card
  bool overlap;    ///< launches may begin before the one before has ended (compute capability 9.0)
};

template <int kBits>
void launch(const Call& call, const Launch& how);
/// x [tokens][stride] -> rounded, sums, token_scale.
void round_tokens(const float* x, int64_t stride, int columns, int blocks, int tokens, __half* rounded, float* sums,
                  float* token_scale, const Launch& how);

}  // namespace lighten::cuda
