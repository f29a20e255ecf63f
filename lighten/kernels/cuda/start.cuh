// One way to launch a kernel.
#pragma once
#include "lighten/kernels/cuda/call.h"
#include "lighten/kernels/cuda/check.h"

namespace lighten::cuda {

/// With `how.overlap` the kernel begins before the one in front of it has ended: it must wait by
/// cudaGridDependencySynchronize() before it reads what that one writes.
template <typename... Parameters, typename... Arguments>
void start(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared, const Launch& how,
           const Arguments&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = how.stream;
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &overlap;
  config.numAttrs = how.overlap ? 1 : 0;
  expect_ok(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), "a launch");
}

}  // namespace lighten::cuda
