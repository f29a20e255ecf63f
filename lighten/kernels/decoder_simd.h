// Attention and the small operations of a decoder on the sixteen lanes of simd_*.h.
#pragma once
#include <utility>

#include "lighten/kernels/kernel_table.h"
#include "lighten/kernels/unroll.h"

namespace lighten::kernels {
namespace {

inline Floats load_some(const float* p, int64_t n) {
  if (n >= 16) return load(p);
  float lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}
inline void store_some(float* p, Floats v, int64_t n) {
  if (n >= 16) return store(p, v);
  float lanes[16];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

/// e^x: 2^n e^r with |r| <= ln(2)/2 and the series to r^7 (its rest is below 6e-9). 0 below -104, infinity above 88.73, NaN
/// stays.
inline Floats exp(Floats x) {
  x = max(set(-104.0f), min(set(89.0f), x));
  const Floats n = round(x * set(1.44269504088896341f));
  const Floats r =
      fma(n, set(2.12194440e-4f), fma(n, set(-0.693359375f), x));  // ln(2) in two parts, the first exact in products
  Floats p = set(1.0f / 5040);
  p = fma(p, r, set(1.0f / 720));
  p = fma(p, r, set(1.0f / 120));
  p = fma(p, r, set(1.0f / 24));
  p = fma(p, r, set(1.0f / 6));
  p = fma(p, r, set(0.5f));
  p = fma(p * r, r, r) + set(1.0f);
  return scale_by_power(p, n);
}
inline Floats sigmoid(Floats x) { return set(1.0f) / (set(1.0f) + exp(zeros() - x)); }

/// Below 0.625 a minimax polynomial (Cephes), above it by way of e^2x.
inline Floats tanh(Floats x) {
  const Floats magnitude = absolute(x), z = x * x;
  Floats p = set(-5.70498872745e-3f);
  p = fma(p, z, set(2.06390887954e-2f));
  p = fma(p, z, set(-5.37397155531e-2f));
  p = fma(p, z, set(1.33314422036e-1f));
  p = fma(p, z, set(-3.33332819422e-1f));
  const Floats near = fma(p * z, x, x);
  const Floats far = set(1.0f) - set(2.0f) / (exp(magnitude + magnitude) + set(1.0f));
  return select(magnitude < set(0.625f), near, with_sign(far, x));
}

inline void silu_mul(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const Floats x = load_some(gate + i, n - i);
    store_some(gate + i, x * sigmoid(x) * load_some(up + i, n - i), n - i);
  }
}

inline void gelu_tanh_mul(float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const Floats x = load_some(gate + i, n - i);
    // (1 + tanh(u)) / 2 = sigmoid(2u), which keeps its digits where tanh is close to -1.
    const Floats u2 = set(1.5957691216057308f) * fma(set(0.044715f) * x * x, x, x);
    store_some(gate + i, x * sigmoid(u2) * load_some(up + i, n - i), n - i);
  }
}

inline void add(float* out, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) store_some(out + i, load_some(out + i, n - i) + load_some(x + i, n - i), n - i);
}

inline void to_half(const float* x, Half* out, int64_t n) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store_half(out + i, load(x + i));
  if (i == n) return;
  Half lanes[16];
  store_half(lanes, load_some(x + i, n - i));
  for (int64_t j = 0; i < n; ++i, ++j) out[i] = lanes[j];
}

inline void rms_norm(const float* x, const float* weight, float epsilon, int64_t n, int64_t width, float* y) {
  for (int64_t row = 0; row < n; ++row, x += width, y += width) {
    Floats squares[2] = {zeros(), zeros()};
    for (int64_t i = 0; i < width; i += 16) {
      const Floats v = load_some(x + i, width - i);
      squares[i / 16 % 2] = fma(v, v, squares[i / 16 % 2]);
    }
    const float mean = static_cast<float>(double_sum_of(squares[0] + squares[1]) / static_cast<double>(width));
    const Floats scale = set(1.0f / __builtin_sqrtf(mean + epsilon));
    for (int64_t i = 0; i < width; i += 16) {
      store_some(y + i, load_some(x + i, width - i) * scale * load_some(weight + i, width - i), width - i);
    }
  }
}

inline void rope(float* heads, int64_t n_heads, int64_t head_dim, const float* cos, const float* sin) {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < n_heads; ++h, heads += head_dim) {
    for (int64_t i = 0; i < half; i += 16) {
      const Floats a = load_some(heads + i, half - i), b = load_some(heads + half + i, half - i);
      const Floats c = load_some(cos + i, half - i), s = load_some(sin + i, half - i);
      store_some(heads + i, a * c - b * s, half - i);
      store_some(heads + half + i, b * c + a * s, half - i);
    }
  }
}

inline float largest_of(const float* x, int64_t n) {
  Floats largest = set(-__builtin_inff());
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) largest = max(load(x + i), largest);
  float best = max_of(largest);
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

inline int64_t argmax(const float* x, int64_t n) {
  const float largest = largest_of(x, n);
  const Floats wanted = set(largest);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const uint32_t hits = bits_of(load(x + i) == wanted);
    if (hits) return i + __builtin_ctz(hits);
  }
  for (; i < n; ++i) {
    if (x[i] == largest) return i;
  }
  return 0;
}

inline double log_sum_exp(const float* x, int64_t n) {
  const float largest = largest_of(x, n);
  const Floats shift = set(largest);
  double sum = 0;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) sum += double_sum_of(exp(load(x + i) - shift));
  if (i < n) {
    const Mask valid = lanes_between(0, static_cast<int>(n - i));
    sum += double_sum_of(select(valid, exp(load_some(x + i, n - i) - shift), zeros()));
  }
  return static_cast<double>(largest) + __builtin_log(sum);
}

/// c [rows][16 n] (+)= a [rows][k] b [k][16 n].
template <int rows>
void product_rows(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t k, int64_t columns,
                  bool accumulate, float* c, int64_t c_stride) {
  for (int64_t column = 0; column < columns; column += 16) {
    Floats sum[rows];
    repeat<rows>([&](auto r) LIGHTEN_INLINE { sum[r] = accumulate ? load(c + r * c_stride + column) : zeros(); });
    for (int64_t i = 0; i < k; ++i) {
      const Floats v = load(b + i * b_stride + column);
      repeat<rows>([&](auto r) LIGHTEN_INLINE { sum[r] = fma(v, spread(a + r * a_stride + i), sum[r]); });
    }
    repeat<rows>([&](auto r) LIGHTEN_INLINE { store(c + r * c_stride + column, sum[r]); });
  }
}
using ProductRows = void (*)(const float*, int64_t, const float*, int64_t, int64_t, int64_t, bool, float*, int64_t);
template <int... n>
inline ProductRows product_rows_for(int rows, std::integer_sequence<int, n...>) {
  static constexpr ProductRows functions[] = {product_rows<n + 1>...};
  return functions[rows - 1];
}
inline void product(int64_t rows, const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t k,
                    int64_t columns, bool accumulate, float* c, int64_t c_stride) {
  for (int64_t r = 0; r < rows; r += kFloatLanes) {
    const int n = rows - r < kFloatLanes ? static_cast<int>(rows - r) : kFloatLanes;
    product_rows_for(n, std::make_integer_sequence<int, kFloatLanes>{})(a + r * a_stride, a_stride, b, b_stride, k, columns,
                                                                        accumulate, c + r * c_stride, c_stride);
  }
}

/// Sixteen dimensions of the key or value of a position in its block and of a head; 8-bit ones without their scale, which
/// scale_scores brings in.
template <KvFormat format>
LIGHTEN_INLINE inline Floats load_cached(const KvBlock& block, const AttentionShape& s, int64_t position, int64_t head,
                                         int64_t d) {
  const int64_t vector = head * kPagePositions + position, at = vector * s.head_dim + d, n = s.head_dim - d;
  if constexpr (format == KvFormat::f32) {
    return load_some(reinterpret_cast<const float*>(block.data) + at, n);
  } else if constexpr (format == KvFormat::f16) {
    const Half* half = reinterpret_cast<const Half*>(block.data) + at;
    if (n >= 16) return load_half(half);
    Half lanes[16] = {};
    for (int64_t i = 0; i < n; ++i) lanes[i] = half[i];
    return load_half(lanes);
  } else {
    const int8_t* q = reinterpret_cast<const int8_t*>(block.data) + at;
    if (n >= 16) return to_floats(widen_signed_bytes(q));
    int8_t lanes[16] = {};
    for (int64_t i = 0; i < n; ++i) lanes[i] = q[i];
    return to_floats(widen_signed_bytes(lanes));
  }
}

/// Keys of a block, transposed: [padded head_dim][kAttentionKeys]; missing keys are zero.
template <KvFormat format>
inline void load_keys(const AttentionPart& p, int64_t kv_head, int64_t first_key, int64_t n, float* keys) {
  const AttentionShape& s = *p.shape;
  const KvBlock block = kv_block(p, first_key, p.cache.keys);
  for (int64_t d = 0; d < s.head_dim; d += 16) {
    for (int64_t j = 0; j < kAttentionKeys; j += 16) {
      Floats rows[16];
      for (int64_t i = 0; i < 16; ++i) rows[i] = j + i < n ? load_cached<format>(block, s, j + i, kv_head, d) : zeros();
      transpose(rows);
      for (int64_t i = 0; i < 16; ++i) store(keys + (d + i) * kAttentionKeys + j, rows[i]);
    }
  }
}

template <KvFormat format>
inline void load_values(const AttentionPart& p, int64_t kv_head, int64_t first_key, int64_t n, int64_t padded, float* values) {
  const AttentionShape& s = *p.shape;
  const KvBlock block = kv_block(p, first_key, p.cache.values);
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t d = 0; d < s.head_dim; d += 16) store(values + j * padded + d, load_cached<format>(block, s, j, kv_head, d));
  }
}

/// One row of scores -> weights exp(s - max), and the row's maximum, sum and output brought to the new maximum. Keys outside
/// [low, high) are not seen.
inline void soften(const AttentionShape& s, int64_t low, int64_t high, float* scores, float* out, int64_t padded,
                   float& largest, float& sum) {
  constexpr int vectors = kAttentionKeys / 16;
  Floats x[vectors];
  Floats top = set(-__builtin_inff());
  const Floats hidden = top;
  repeat<vectors>([&](auto i) LIGHTEN_INLINE {
    x[i] = load(scores + 16 * i) * set(s.scale);
    if (s.softcap > 0) x[i] = set(s.softcap) * tanh(x[i] / set(s.softcap));
    if (low > 16 * i || high < 16 * i + 16)
      x[i] = select(lanes_between(static_cast<int>(low) - 16 * i, static_cast<int>(high) - 16 * i), x[i], hidden);
    top = max(x[i], top);
  });
  const float before = largest, block_top = max_of(top);
  if (block_top > largest) largest = block_top;
  const Floats shift = set(largest);
  Floats total = zeros();
  repeat<vectors>([&](auto i) LIGHTEN_INLINE {
    const Floats e = exp(x[i] - shift);
    total = total + e;
    store(scores + 16 * i, e);
  });
  if (largest > before) {
    const Floats shrink = exp(set(before) - shift);
    float lanes[16];
    store(lanes, shrink);
    sum *= lanes[0];
    for (int64_t d = 0; d < padded; d += 16) store(out + d, load(out + d) * shrink);
  }
  sum += sum_of(total);
}

/// Where the rows of a part stand while its keys go by, and the memory for a block of keys.
struct AttentionMemory {
  int64_t padded;  ///< head_dim rounded up to 16
  float *q, *out, *keys, *values, *scores;
};

inline AttentionMemory start_rows(const AttentionPart& p) {
  const AttentionShape& s = *p.shape;
  AttentionMemory m{};
  m.padded = round_up(s.head_dim, 16);
  m.q = p.scratch;
  m.out = m.q + kAttentionRows * m.padded;
  m.keys = m.out + kAttentionRows * m.padded;
  m.values = m.keys + kAttentionKeys * m.padded;
  m.scores = m.values + kAttentionKeys * m.padded;
  for (int64_t row = 0; row < p.token_count * p.head_count; ++row) {
    const float* from = p.q + ((p.token_begin + row / p.head_count) * s.heads + p.head_begin + row % p.head_count) * s.head_dim;
    for (int64_t d = 0; d < m.padded; d += 16) {
      store(m.q + row * m.padded + d, load_some(from + d, s.head_dim - d));
      store(m.out + row * m.padded + d, zeros());
    }
    p.max[row] = -__builtin_inff();
    p.sum[row] = 0;
  }
  return m;
}

/// Multiplies the scores (or weights) of every row by the scales of their 8-bit keys (or values).
inline void scale_scores(const AttentionPart& p, const AttentionMemory& m, const KvBlock& block, int64_t kv_head, int64_t n) {
  if (block.format != KvFormat::i8) return;
  alignas(64) float scales[kAttentionKeys] = {};
  __builtin_memcpy(scales, block.scales + kv_head * kPagePositions, static_cast<size_t>(n) * sizeof(float));
  for (int64_t row = 0; row < p.token_count * p.head_count; ++row) {
    float* scores = m.scores + row * kAttentionKeys;
    for (int64_t j = 0; j < kAttentionKeys; j += 16) store(scores + j, load(scores + j) * load(scales + j));
  }
}

/// The block's scores -> weights, row by row.
inline void soften_rows(const AttentionPart& p, const AttentionMemory& m, int64_t first_key, int64_t n) {
  const AttentionShape& s = *p.shape;
  for (int64_t row = 0; row < p.token_count * p.head_count; ++row) {
    const int64_t position = p.first + p.token_begin + row / p.head_count - first_key;  // relative to the block
    const int64_t low = s.window > 0 && position - s.window + 1 > 0 ? position - s.window + 1 : 0;
    const int64_t high = position + 1 < n ? position + 1 : n;
    float* scores = m.scores + row * kAttentionKeys;
    if (low < high) {
      soften(s, low, high, scores, m.out + row * m.padded, m.padded, p.max[row], p.sum[row]);
    } else {
      for (int i = 0; i < kAttentionKeys; i += 16) store(scores + i, zeros());
    }
  }
}

/// out += weights V for `vectors` times sixteen dimensions from d on.
template <KvFormat format, int rows, int vectors>
LIGHTEN_INLINE inline void add_values(const AttentionShape& s, const AttentionMemory& m, const KvBlock& values, int64_t kv_head,
                                      int64_t d, int64_t n, const std::byte* next_keys) {
  constexpr int64_t bytes = 16 * vectors * (format == KvFormat::f32 ? 4 : format == KvFormat::f16 ? 2 : 1);
  Floats sum[rows * vectors];
  const auto out = [&](auto i) LIGHTEN_INLINE { return m.out + i / vectors * m.padded + d + 16 * (i % vectors); };
  repeat<rows * vectors>([&](auto i) LIGHTEN_INLINE { sum[i] = load(out(i)); });
  for (int64_t j = 0; j < n; ++j) {
    Floats value[vectors];
    if (next_keys != nullptr)  // as many bytes as are read
      for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(next_keys + (d / (16 * vectors) * n + j) * bytes + at);
    repeat<vectors>([&](auto v) LIGHTEN_INLINE { value[v] = load_cached<format>(values, s, j, kv_head, d + 16 * v); });
    repeat<rows>([&](auto r) LIGHTEN_INLINE {
      const Floats weight = spread(m.scores + r * kAttentionKeys + j);
      repeat<vectors>([&](auto v) LIGHTEN_INLINE { sum[r * vectors + v] = fma(value[v], weight, sum[r * vectors + v]); });
    });
  }
  repeat<rows * vectors>([&](auto i) LIGHTEN_INLINE { store(out(i), sum[i]); });
}

/// A few rows (decoding): every key and value is used where it lies, as it is converted.
template <KvFormat format, int rows>
void add_keys_to_few(const AttentionPart& p, const AttentionMemory& m, int64_t kv_head, int64_t first_key, int64_t n) {
  const AttentionShape& s = *p.shape;
  const KvBlock keys = kv_block(p, first_key, p.cache.keys), values = kv_block(p, first_key, p.cache.values);
  // What a head reads of a page lies side by side: values are fetched while keys are in use, the next keys while values are.
  const int64_t vector_bytes = static_cast<int64_t>(kv_element_bytes(format)) * s.head_dim;
  const std::byte* next_values = values.data + kv_head * kPagePositions * vector_bytes;
  const std::byte* next_keys = nullptr;
  if (first_key + kAttentionKeys < p.key_end)
    next_keys = kv_block(p, first_key + kAttentionKeys, p.cache.keys).data + kv_head * kPagePositions * vector_bytes;
  for (int64_t j = 0; j < n; j += 16) {
    Floats products[rows][16];
    for (int64_t i = 0; i < 16; i += 2) {  // by twos, so that a query's values are read once for both
      for (int64_t at = 0; at < 2 * vector_bytes; at += 64) __builtin_prefetch(next_values + (j + i) * vector_bytes + at);
      Floats sum[2 * rows];
      repeat<2 * rows>([&](auto r) LIGHTEN_INLINE { sum[r] = zeros(); });
      for (int64_t d = 0; j + i < n && d < s.head_dim; d += 16) {  // the second may lie past n: it is hidden later
        const Floats first = load_cached<format>(keys, s, j + i, kv_head, d),
                     second = load_cached<format>(keys, s, j + i + 1, kv_head, d);
        repeat<rows>([&](auto r) LIGHTEN_INLINE {
          const Floats q = load(m.q + r * m.padded + d);
          sum[r] = fma(first, q, sum[r]);
          sum[rows + r] = fma(second, q, sum[rows + r]);
        });
      }
      repeat<rows>([&](auto r) LIGHTEN_INLINE {
        products[r][i] = sum[r];
        products[r][i + 1] = sum[rows + r];
      });
    }
    repeat<rows>([&](auto r) LIGHTEN_INLINE { store(m.scores + r * kAttentionKeys + j, sums_of(products[r])); });
  }
  scale_scores(p, m, keys, kv_head, n);
  soften_rows(p, m, first_key, n);
  scale_scores(p, m, values, kv_head, n);
  int64_t d = 0;
  for (; d + 16 * kValueVectors <= s.head_dim; d += 16 * kValueVectors)
    add_values<format, rows, kValueVectors>(s, m, values, kv_head, d, n, next_keys);
  for (; d < s.head_dim; d += 16) add_values<format, rows, 1>(s, m, values, kv_head, d, n, next_keys);
}

/// Many rows: a block of keys is transposed and converted once, and meets them in two matrix products.
template <KvFormat format>
void add_keys_to_many(const AttentionPart& p, const AttentionMemory& m, int64_t kv_head, int64_t first_key, int64_t n) {
  const int64_t rows = p.token_count * p.head_count;
  load_keys<format>(p, kv_head, first_key, n, m.keys);
  load_values<format>(p, kv_head, first_key, n, m.padded, m.values);
  product(rows, m.q, m.padded, m.keys, kAttentionKeys, p.shape->head_dim, kAttentionKeys, false, m.scores, kAttentionKeys);
  scale_scores(p, m, kv_block(p, first_key, p.cache.keys), kv_head, n);
  soften_rows(p, m, first_key, n);
  scale_scores(p, m, kv_block(p, first_key, p.cache.values), kv_head, n);
  product(rows, m.scores, kAttentionKeys, m.values, m.padded, n, m.padded, true, m.out, m.padded);
}

template <KvFormat format>
void attend_in(const AttentionPart& p) {
  const AttentionShape& s = *p.shape;
  const AttentionMemory m = start_rows(p);
  const int64_t rows = p.token_count * p.head_count, kv_head = p.head_begin / (s.heads / s.kv_heads);
  const auto add_keys = rows == 1   ? add_keys_to_few<format, 1>
                        : rows == 2 ? add_keys_to_few<format, 2>
                        : rows == 3 ? add_keys_to_few<format, 3>
                        : rows == 4 ? add_keys_to_few<format, 4>
                                    : add_keys_to_many<format>;
  for (int64_t first_key = p.key_begin; first_key < p.key_end; first_key += kAttentionKeys) {
    add_keys(p, m, kv_head, first_key, p.key_end - first_key < kAttentionKeys ? p.key_end - first_key : kAttentionKeys);
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t d = 0; d < s.head_dim; d += 16)
      store_some(p.out + row * s.head_dim + d, load(m.out + row * m.padded + d), s.head_dim - d);
  }
}

inline void attend(const AttentionPart& p) {
  if (p.cache.format == KvFormat::f32) return attend_in<KvFormat::f32>(p);
  if (p.cache.format == KvFormat::f16) return attend_in<KvFormat::f16>(p);
  attend_in<KvFormat::i8>(p);
}

}  // namespace
}  // namespace lighten::kernels
