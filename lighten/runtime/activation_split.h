// Activations finer than eight bits out of kernels that round them to eight.
#pragma once
#include <cstdint>

#include "lighten/kernels/linear.h"

namespace lighten::runtime {

/// Inputs that share a scale when activations are rounded for this weight; 0: they are not (16 bits and more).
int64_t rounding_block(const LinearSpec& spec);

/// The kernels round activations to multiples of (largest of a block of inputs) / 127. In small language models a few channels
/// are so large that this drowns their neighbours: SmolLM2-135M's logits then move by 3 % and every twentieth token changes. So
/// each row goes in as two, x = a + b:
///   a = the multiples of largest / 127 nearest to x, which the kernel keeps as they are,   b = x - a, at most largest / 254,
///   rounded 254 times finer.
/// x [n, width] -> out [2 n, width], rows a and b of a token one after the other. Throws ModelError for a weight whose
/// activations are not rounded.
void split_activations(const LinearSpec& spec, const float* x, int64_t n, float* out);

/// y[t] = pairs[2 t] + pairs[2 t + 1] (+ bias); y [n, width], pairs [2 n, width].
void join_pairs(const float* pairs, const float* bias, int64_t n, int64_t width, float* y);

}  // namespace lighten::runtime
