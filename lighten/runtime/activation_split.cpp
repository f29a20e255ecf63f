#include "lighten/runtime/activation_split.h"

#include <algorithm>
#include <cmath>

#include "lighten/base/error.h"
#include "lighten/kernels/layout.h"

namespace lighten::runtime {
namespace {

void split_block(const float* x, int64_t n, float* coarse, float* rest) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float inverse = largest > 1e-30f ? 127.0f / largest : 0.0f, step = largest / 127.0f;
  for (int64_t i = 0; i < n; ++i) {
    // Adding and taking away 1.5 * 2^23 rounds to the nearest whole number.
    const float rounded = (x[i] * inverse + 12582912.0f) - 12582912.0f;
    coarse[i] = rounded * step;
    rest[i] = x[i] - coarse[i];
  }
}

}  // namespace

int64_t rounding_block(const LinearSpec& spec) { return spec.bits <= 8 ? kernels::layout_of(spec).block : 0; }

void split_activations(const LinearSpec& spec, const float* x, int64_t n, float* out) {
  const int64_t width = spec.columns, block = rounding_block(spec);
  if (block == 0) throw_error<ModelError>("activations are not rounded for weights of {} bits", spec.bits);
  for (int64_t t = 0; t < n; ++t)
    for (int64_t i = 0; i < width; i += block)
      split_block(x + t * width + i, std::min(block, width - i), out + 2 * t * width + i, out + (2 * t + 1) * width + i);
}

void join_pairs(const float* pairs, const float* bias, int64_t n, int64_t width, float* y) {
  for (int64_t t = 0; t < n; ++t) {
    const float *a = pairs + 2 * t * width, *b = a + width;
    float* out = y + t * width;
    for (int64_t i = 0; i < width; ++i) out[i] = a[i] + b[i];
    if (bias != nullptr)
      for (int64_t i = 0; i < width; ++i) out[i] += bias[i];
  }
}

}  // namespace lighten::runtime
