#pragma once
#include <cuda_runtime.h>

#include <string>

namespace lighten::cuda {

/// Throws ModelError that names what failed, and CUDA's words for it.
void expect_ok(cudaError_t status, const char* what);

}  // namespace lighten::cuda
