#include "lighten/kernels/cuda/gemv.cuh"
#include "lighten/kernels/cuda/start.cuh"

namespace lighten::cuda {

namespace {

__global__ void __launch_bounds__(256)
    round_kernel(const float* x, int64_t stride, int columns, int padded, __half* rounded, float* sums, float* token_scale) {
  __shared__ float room[32];
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
  cudaGridDependencySynchronize();
#endif
  const int64_t token = blockIdx.x;
  const float up =
      round_token(x + token * stride, columns, padded, rounded + token * padded, sums + token * (padded / 32), room);
  if (threadIdx.x == 0) token_scale[token] = up;
}

}  // namespace

void round_tokens(const float* x, int64_t stride, int columns, int blocks, int tokens, __half* rounded, float* sums,
                  float* token_scale, const Launch& how) {
  start(round_kernel, dim3(static_cast<unsigned>(tokens)), 256, 0, how, x, stride, columns, blocks * 64, rounded, sums,
        token_scale);
}

}  // namespace lighten::cuda
