// Cuts attention into parts of (tokens) x (heads of one key/value head) x (keys), runs them in parallel and joins parts that
// share rows.
#include "lighten/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lighten/base/error.h"
#include "lighten/kernels/kernel_table.h"

namespace lighten {
namespace kernels {
namespace {

constexpr int64_t kSplitKeys = 256;  // with few queries, the keys are shared out in pieces of this many
constexpr int64_t kSplitTokens = 4;  // few

/// How one call is cut. Depends on the shape alone, never on the number of threads.
struct Plan {
  int64_t tokens_per_part, heads_per_part, head_parts, token_parts, key_parts;
  int64_t first_key;
  int64_t parts() const { return token_parts * head_parts * key_parts; }
};

Plan plan_of(const AttentionShape& s, int64_t first, int64_t tokens) {
  Plan plan{};
  const int64_t group = s.heads / s.kv_heads;
  plan.heads_per_part = std::min<int64_t>(group, kAttentionRows);
  while (group % plan.heads_per_part != 0) --plan.heads_per_part;
  plan.tokens_per_part = std::max<int64_t>(1, kAttentionRows / plan.heads_per_part);
  plan.head_parts = s.heads / plan.heads_per_part;
  plan.token_parts = (tokens + plan.tokens_per_part - 1) / plan.tokens_per_part;
  plan.first_key = s.window > 0 ? std::max<int64_t>(0, first - s.window + 1) : 0;
  plan.key_parts = tokens <= kSplitTokens ? (first + tokens - plan.first_key + kSplitKeys - 1) / kSplitKeys : 1;
  return plan;
}

float* thread_scratch(int64_t floats) {
  thread_local std::vector<float> memory;
  if (memory.size() < static_cast<size_t>(floats + 16)) memory.resize(static_cast<size_t>(floats + 16));
  const auto misaligned = reinterpret_cast<uintptr_t>(memory.data()) % 64;
  return memory.data() + (64 - misaligned) % 64 / sizeof(float);
}

struct Partial {
  std::vector<float> out, max, sum;  // [part][rows][...]
};

AttentionPart part_of(const Plan& plan, const AttentionShape& s, const float* q, const KvView& cache, int64_t first,
                      int64_t tokens, int64_t index) {
  // The last tokens see the most keys: they come first, so that no thread is left with a long part at the end.
  const int64_t token_part = plan.token_parts - 1 - index / (plan.head_parts * plan.key_parts);
  const int64_t head_part = index / plan.key_parts % plan.head_parts, key_part = index % plan.key_parts;
  AttentionPart part{};
  part.shape = &s;
  part.q = q;
  part.cache = cache;
  part.first = first;
  part.token_begin = token_part * plan.tokens_per_part;
  part.token_count = std::min(plan.tokens_per_part, tokens - part.token_begin);
  part.head_begin = head_part * plan.heads_per_part;
  part.head_count = plan.heads_per_part;
  const int64_t last = first + part.token_begin + part.token_count;
  if (plan.key_parts == 1) {
    part.key_begin = s.window > 0 ? std::max<int64_t>(0, first + part.token_begin - s.window + 1) : 0;
    part.key_end = last;
  } else {
    part.key_begin = plan.first_key + key_part * kSplitKeys;
    part.key_end = std::min(last, part.key_begin + kSplitKeys);
  }
  return part;
}

/// out = sum of parts' exp(max - largest) out / the same of sums, for the rows of one (token part, head part).
void join(const AttentionPart& at, int64_t key_parts, const float* outs, const float* maxes, const float* sums, float* out) {
  const AttentionShape& s = *at.shape;
  for (int64_t row = 0; row < at.token_count * at.head_count; ++row) {
    float largest = -std::numeric_limits<float>::infinity();
    for (int64_t k = 0; k < key_parts; ++k) largest = std::max(largest, maxes[k * kAttentionRows + row]);
    float* to = out + ((at.token_begin + row / at.head_count) * s.heads + at.head_begin + row % at.head_count) * s.head_dim;
    std::fill(to, to + s.head_dim, 0.0f);
    float sum = 0;
    for (int64_t k = 0; k < key_parts; ++k) {
      const float weight = std::exp(maxes[k * kAttentionRows + row] - largest);
      if (!(weight > 0)) continue;
      sum += weight * sums[k * kAttentionRows + row];
      const float* from = outs + (k * kAttentionRows + row) * s.head_dim;
      for (int64_t d = 0; d < s.head_dim; ++d) to[d] += weight * from[d];
    }
    const float inverse = 1.0f / sum;
    for (int64_t d = 0; d < s.head_dim; ++d) to[d] *= inverse;
  }
}

}  // namespace
}  // namespace kernels

void attention(const AttentionShape& shape, const float* q, const KvView& cache, int64_t first, int64_t tokens, float* out,
               ThreadPool& pool) {
  using namespace kernels;
  if (shape.heads <= 0 || shape.kv_heads <= 0 || shape.head_dim <= 0 || shape.heads % shape.kv_heads != 0) {
    throw_error<ModelError>(
        "attention: {} heads over {} key/value heads of {}; the heads must be a multiple of the key/value heads", shape.heads,
        shape.kv_heads, shape.head_dim);
  }
  if (tokens <= 0) return;
  const KernelTable& kernels = table();
  const Plan plan = plan_of(shape, first, tokens);
  // Parts that share rows lie side by side: [token part][head part][key part][rows].
  const int64_t slots = plan.key_parts > 1 ? plan.parts() : 0;
  thread_local Partial partial;
  partial.out.resize(static_cast<size_t>(slots * kAttentionRows * shape.head_dim));
  partial.max.resize(static_cast<size_t>(slots * kAttentionRows));
  partial.sum.resize(static_cast<size_t>(slots * kAttentionRows));
  Partial& shared = partial;

  const int64_t scratch = attention_scratch(shape.head_dim), rows_out = kAttentionRows * shape.head_dim;
  pool.parallel_for(plan.parts(), 1, [&](int64_t begin, int64_t end) {
    float* memory = thread_scratch(scratch + rows_out + 2 * kAttentionRows);
    for (int64_t index = begin; index < end; ++index) {
      AttentionPart part = part_of(plan, shape, q, cache, first, tokens, index);
      part.scratch = memory;
      part.out = slots ? shared.out.data() + index * rows_out : memory + scratch;
      part.max = slots ? shared.max.data() + index * kAttentionRows : memory + scratch + rows_out;
      part.sum = slots ? shared.sum.data() + index * kAttentionRows : memory + scratch + rows_out + kAttentionRows;
      kernels.attend(part);
      if (!slots) join(part, 1, part.out, part.max, part.sum, out);
    }
  });
  for (int64_t index = 0; index < slots; index += plan.key_parts) {
    const AttentionPart part = part_of(plan, shape, q, cache, first, tokens, index);
    join(part, plan.key_parts, partial.out.data() + index * rows_out, partial.max.data() + index * kAttentionRows,
         partial.sum.data() + index * kAttentionRows, out);
  }
}

void rms_norm(const float* x, const float* weight, float epsilon, int64_t n, int64_t width, float* y) {
  kernels::table().rms_norm(x, weight, epsilon, n, width, y);
}
void rope(float* heads, int64_t n_heads, int64_t head_dim, const float* cos, const float* sin) {
  kernels::table().rope(heads, n_heads, head_dim, cos, sin);
}
void silu_mul(float* gate, const float* up, int64_t n) { kernels::table().silu_mul(gate, up, n); }
void gelu_tanh_mul(float* gate, const float* up, int64_t n) { kernels::table().gelu_tanh_mul(gate, up, n); }
void add(float* out, const float* x, int64_t n) { kernels::table().add(out, x, n); }
void to_half(const float* x, Half* out, int64_t n) { kernels::table().to_half(x, out, n); }
double log_sum_exp(const float* x, int64_t n) { return kernels::table().log_sum_exp(x, n); }
int64_t argmax(const float* x, int64_t n) { return kernels::table().argmax(x, n); }

}  // namespace lighten
