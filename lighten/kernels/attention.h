// Attention over a KV cache, without a score matrix; and the small float operations of a decoder.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "lighten/base/half.h"
#include "lighten/base/threads.h"

namespace lighten {

/// Positions in a page of a KV cache: as many as the kernels meet at a time.
inline constexpr int64_t kPagePositions = 64;

enum class KvFormat : uint8_t { f32, f16, i8 };

/// One layer's keys and values of one sequence, in pages: position p stands in page p / 64. A page holds from byte `keys` on
/// [kv_heads, 64, head_dim] keys and from byte `values` on as many values: what a head reads lies side by side. i8: x = scale *
/// q, and each of the two is followed by its float32 scales [kv_heads, 64] (see kv_scales).
struct KvView {
  const std::byte* const* pages = nullptr;
  size_t keys = 0, values = 0;
  KvFormat format = KvFormat::f16;
};

/// Bytes of one element, and of the keys (or the values) of one layer's page, scales included; a multiple of 64.
size_t kv_element_bytes(KvFormat format);
size_t kv_page_bytes(KvFormat format, int64_t kv_heads, int64_t head_dim);

/// Rounds and stores the heads [kv_heads, head_dim] of position `slot` of a page whose keys (or values) begin at `page`. i8:
/// scale = max|x| / 127 per head; q = round(x / scale).
void kv_store(KvFormat format, int64_t kv_heads, int64_t head_dim, const float* heads, int64_t slot, std::byte* page);

struct AttentionShape {
  int64_t heads, kv_heads, head_dim;
  float scale;         ///< multiplies q . k
  float softcap = 0;   ///< s -> softcap * tanh(s / softcap); 0: none
  int64_t window = 0;  ///< a query at p sees keys in (p - window, p]; 0: all of [0, p]
};

/// Queries of one sequence: `tokens` of them at positions first .. first + tokens - 1, whose keys are in the cache already.
struct AttentionTask {
  const float* q = nullptr;  ///< [tokens, heads, head_dim]
  KvView cache;
  int64_t first = 0, tokens = 0;
  float* out = nullptr;  ///< as q
};

/// out[t] = softmax(scale * q[t] K^T + causal mask) V for every sequence, in one parallel loop. Streaming softmax in float32. A
/// sequence's result depends neither on the others nor on the number of threads. Throws ModelError if the heads do not share
/// the key/value heads evenly.
void attention(const AttentionShape& shape, std::span<const AttentionTask> tasks, ThreadPool& pool);

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
