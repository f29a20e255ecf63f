// Attention and the small operations, one plain loop each; and the scalar table.
#include <algorithm>
#include <cmath>
#include <limits>

#include "lighten/kernels/scalar.h"

namespace lighten::kernels {
namespace scalar {
namespace {

/// Dimension d of the key or value of a position in its block and of a head.
float cached(const KvBlock& block, const AttentionShape& s, int64_t position, int64_t head, int64_t d) {
  const int64_t vector = head * kPagePositions + position, at = vector * s.head_dim + d;
  if (block.format == KvFormat::f32) return reinterpret_cast<const float*>(block.data)[at];
  if (block.format == KvFormat::f16) return half_to_float(reinterpret_cast<const Half*>(block.data)[at]);
  return static_cast<float>(reinterpret_cast<const int8_t*>(block.data)[at]) * block.scales[vector];
}

float score(const AttentionShape& s, const float* q, const KvBlock& keys, int64_t position, int64_t head) {
  float dot = 0;
  for (int64_t d = 0; d < s.head_dim; ++d) dot += q[d] * cached(keys, s, position, head, d);
  dot *= s.scale;
  return s.softcap > 0 ? s.softcap * std::tanh(dot / s.softcap) : dot;
}

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

}  // namespace

void attend(const AttentionPart& p) {
  const AttentionShape& s = *p.shape;
  const int64_t kv_head = p.head_begin / (s.heads / s.kv_heads);
  for (int64_t row = 0; row < p.token_count * p.head_count; ++row) {
    const int64_t token = p.token_begin + row / p.head_count, head = p.head_begin + row % p.head_count;
    const float* q = p.q + (token * s.heads + head) * s.head_dim;
    float* out = p.out + row * s.head_dim;
    std::fill(out, out + s.head_dim, 0.0f);
    p.max[row] = -std::numeric_limits<float>::infinity();
    p.sum[row] = 0;
    const int64_t position = p.first + token;
    const int64_t begin = s.window > 0 ? std::max(p.key_begin, position - s.window + 1) : p.key_begin;
    for (int64_t key = begin; key < std::min(p.key_end, position + 1); ++key) {
      const KvBlock keys = kv_block(p, key, p.cache.keys), values = kv_block(p, key, p.cache.values);
      const int64_t slot = key % kPagePositions;
      const float x = score(s, q, keys, slot, kv_head);
      if (x > p.max[row]) {  // all that was summed so far was relative to a smaller maximum
        const float shrink = std::exp(p.max[row] - x);
        p.sum[row] *= shrink;
        for (int64_t d = 0; d < s.head_dim; ++d) out[d] *= shrink;
        p.max[row] = x;
      }
      const float weight = std::exp(x - p.max[row]);
      p.sum[row] += weight;
      for (int64_t d = 0; d < s.head_dim; ++d) out[d] += weight * cached(values, s, slot, kv_head, d);
    }
  }
}

void rms_norm(const float* x, const float* weight, float epsilon, int64_t n, int64_t width, float* y) {
  for (int64_t i = 0; i < n; ++i, x += width, y += width) {
    double squares = 0;
    for (int64_t j = 0; j < width; ++j) squares += static_cast<double>(x[j]) * static_cast<double>(x[j]);
    const float scale = 1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(width)) + epsilon);
    for (int64_t j = 0; j < width; ++j) y[j] = x[j] * scale * weight[j];
  }
}

void rope(float* heads, int64_t n_heads, int64_t head_dim, const float* cos, const float* sin) {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < n_heads; ++h, heads += head_dim) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = heads[i], b = heads[i + half];
      heads[i] = a * cos[i] - b * sin[i];
      heads[i + half] = b * cos[i] + a * sin[i];
    }
  }
}

void silu_mul(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

void gelu_tanh_mul(float* gate, const float* up, int64_t n) {
  // (1 + tanh(u)) / 2 = sigmoid(2u), which keeps its digits where tanh is close to -1.
  for (int64_t i = 0; i < n; ++i) {
    const float x = gate[i];
    gate[i] = x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x)) * up[i];
  }
}

void add(float* out, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] += x[i];
}

void to_half(const float* x, Half* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = float_to_half(x[i]);
}

double log_sum_exp(const float* x, int64_t n) {
  const double largest = x[argmax(x, n)];
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - largest);
  return largest + std::log(sum);
}

int64_t argmax(const float* x, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    if (x[i] > x[best]) best = i;
  }
  return best;
}

}  // namespace scalar

KernelTable scalar_table() {
  return {.code_lanes = 4,
          .code_tiles = 1,
          .code_flip = 0,
          .packed_lanes = 0,
          .float_lanes = 4,
          .quantize = scalar::quantize,
          .expand = scalar::expand,
          .multiply_codes = scalar::multiply_codes,

          .multiply_packed = nullptr,
          .dequantize = scalar::dequantize,
          .multiply_floats = scalar::multiply_floats,
          .multiply_bfloat16 = nullptr,
          .attend = scalar::attend,
          .rms_norm = scalar::rms_norm,
          .rope = scalar::rope,
          .silu_mul = scalar::silu_mul,
          .gelu_tanh_mul = scalar::gelu_tanh_mul,
          .add = scalar::add,
          .to_half = scalar::to_half,
          .log_sum_exp = scalar::log_sum_exp,
          .argmax = scalar::argmax};
}

}  // namespace lighten::kernels
