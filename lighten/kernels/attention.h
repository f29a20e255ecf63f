// Attention over a KV cache, without a score matrix; and the small float operations of a decoder.
#pragma once
#include <cstdint>

#include "lighten/base/half.h"
#include "lighten/base/threads.h"

namespace lighten {

/// One layer's keys and values for one sequence: [positions, kv_heads, head_dim], f16 or (exact mode) f32; the other pair is
/// null.
struct KvView {
  const Half* k16 = nullptr;
  const Half* v16 = nullptr;
  const float* k32 = nullptr;
  const float* v32 = nullptr;
};

struct AttentionShape {
  int64_t heads, kv_heads, head_dim;
  float scale;         ///< multiplies q . k
  float softcap = 0;   ///< s -> softcap * tanh(s / softcap); 0: none
  int64_t window = 0;  ///< a query at p sees keys in (p - window, p]; 0: all of [0, p]
};

/// out[t] = softmax(scale * q[t] K^T + causal mask) V for `tokens` queries at positions first .. first + tokens - 1, whose keys
/// are already in the cache. q, out: [tokens, heads, head_dim] contiguous. Streaming softmax in float32.
void attention(const AttentionShape& shape, const float* q, const KvView& cache, int64_t first, int64_t tokens, float* out,
               ThreadPool& pool);

/// y = x / sqrt(mean(x^2) + epsilon) * weight, row by row; x, y [n, width] (may be the same).
void rms_norm(const float* x, const float* weight, float epsilon, int64_t n, int64_t width, float* y);
/// Rotates pairs (i, i + d/2) of each head (Hugging Face order). cos, sin: [head_dim / 2] for this position.
void rope(float* heads, int64_t n_heads, int64_t head_dim, const float* cos, const float* sin);
/// gate = act(gate) * up, elementwise.
void silu_mul(float* gate, const float* up, int64_t n);
void gelu_tanh_mul(float* gate, const float* up, int64_t n);
/// out += x
void add(float* out, const float* x, int64_t n);
void to_half(const float* x, Half* out, int64_t n);
/// log(sum(exp(x))) in a numerically safe way, double accumulation; and the index of the largest value (smallest index on
/// ties).
double log_sum_exp(const float* x, int64_t n);
int64_t argmax(const float* x, int64_t n);

}  // namespace lighten
