// Clocks, and what the card can do at most.
#pragma once
#include <functional>

#include "lighten/kernels/cuda/call.h"

namespace lighten::cuda {

/// Median time of `repeats` runs of what `work` puts into the stream, after 0.3 s that do not count; by the card's own clock.
double median_seconds(cudaStream_t stream, int repeats, const std::function<void()>& work);
/// Best of several passes over memory much larger than the cache.
double read_gb_per_s(const Launch& how, size_t cache_bytes);
double tensor_tflops(const Launch& how);

}  // namespace lighten::cuda
