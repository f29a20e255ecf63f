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

constexpr int64_t kSplitKeys = 4 * kPagePositions;  // with few queries, the keys are shared out in pieces of this many
constexpr int64_t kSplitTokens = 4;                 // few

static_assert(kAttentionKeys == kPagePositions, "a block of keys is a page");

int64_t page_start(int64_t position) { return position / kPagePositions * kPagePositions; }

/// How one sequence is cut. Depends on its shape alone, never on the number of threads. Parts begin at the start of a page.
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
  plan.first_key = s.window > 0 ? page_start(std::max<int64_t>(0, first - s.window + 1)) : 0;
  plan.key_parts = tokens <= kSplitTokens ? (first + tokens - plan.first_key + kSplitKeys - 1) / kSplitKeys : 1;
  return plan;
}

float* thread_scratch(int64_t floats) {
  thread_local std::vector<float> memory;
  if (memory.size() < static_cast<size_t>(floats + 16)) memory.resize(static_cast<size_t>(floats + 16));
  const auto misaligned = reinterpret_cast<uintptr_t>(memory.data()) % 64;
  return memory.data() + (64 - misaligned) % 64 / sizeof(float);
}

/// One sequence's place in the numbering of all parts, and of the results that wait to be joined.
struct Job {
  const AttentionTask* task;
  Plan plan;
  int64_t first_part, first_slot;
  bool split() const { return plan.key_parts > 1; }
};

struct Partial {
  std::vector<Job> jobs;
  std::vector<float> out, max, sum;  // [slot][rows][...]
};

AttentionPart part_of(const Job& job, const AttentionShape& s, int64_t index) {
  const Plan& plan = job.plan;
  const int64_t first = job.task->first, tokens = job.task->tokens;
  // The last tokens see the most keys: they come first, so that no thread is left with a long part at the end.
  const int64_t token_part = plan.token_parts - 1 - index / (plan.head_parts * plan.key_parts);
  const int64_t head_part = index / plan.key_parts % plan.head_parts, key_part = index % plan.key_parts;
  AttentionPart part{};
  part.shape = &s;
  part.q = job.task->q;
  part.cache = job.task->cache;
  part.first = first;
  part.token_begin = token_part * plan.tokens_per_part;
  part.token_count = std::min(plan.tokens_per_part, tokens - part.token_begin);
  part.head_begin = head_part * plan.heads_per_part;
  part.head_count = plan.heads_per_part;
  const int64_t last = first + part.token_begin + part.token_count;
  if (plan.key_parts == 1) {
    part.key_begin = s.window > 0 ? page_start(std::max<int64_t>(0, first + part.token_begin - s.window + 1)) : 0;
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

/// q = round(x / scale), scale = max|x| / 127, which is returned; all zero where the largest is too small to divide by.
float round_head(const float* x, int64_t n, int8_t* q) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float inverse = largest > kSmallestActivation ? 127.0f / largest : 0.0f;
  for (int64_t i = 0; i < n; ++i) q[i] = static_cast<int8_t>(std::lrint(x[i] * inverse));
  return largest / 127.0f;
}

/// Lays the sequences' parts side by side; returns the number of results that wait to be joined.
int64_t lay_out(const AttentionShape& shape, std::span<const AttentionTask> tasks, std::vector<Job>& jobs) {
  jobs.clear();
  int64_t parts = 0, slots = 0;
  for (const AttentionTask& task : tasks) {
    if (task.tokens <= 0) continue;
    jobs.push_back({&task, plan_of(shape, task.first, task.tokens), parts, slots});
    parts += jobs.back().plan.parts();
    if (jobs.back().split()) slots += jobs.back().plan.parts();
  }
  return slots;
}

}  // namespace
}  // namespace kernels

size_t kv_element_bytes(KvFormat format) { return format == KvFormat::f32 ? 4 : format == KvFormat::f16 ? 2 : 1; }

size_t kv_page_bytes(KvFormat format, int64_t kv_heads, int64_t head_dim) {
  const auto heads = static_cast<size_t>(kPagePositions * kv_heads);
  const size_t scales = format == KvFormat::i8 ? heads * sizeof(float) : 0;
  return kernels::kv_scales(format, kv_heads, head_dim) +
         static_cast<size_t>(kernels::round_up(static_cast<int64_t>(scales), 64));
}

void kv_store(KvFormat format, int64_t kv_heads, int64_t head_dim, const float* heads, int64_t slot, std::byte* page) {
  float* scales = reinterpret_cast<float*>(page + kernels::kv_scales(format, kv_heads, head_dim));
  for (int64_t h = 0; h < kv_heads; ++h, heads += head_dim) {
    const int64_t vector = h * kPagePositions + slot;
    std::byte* out = page + static_cast<size_t>(vector * head_dim) * kv_element_bytes(format);
    if (format == KvFormat::f32) {
      std::memcpy(out, heads, static_cast<size_t>(head_dim) * sizeof(float));
    } else if (format == KvFormat::f16) {
      to_half(heads, reinterpret_cast<Half*>(out), head_dim);
    } else {
      scales[vector] = kernels::round_head(heads, head_dim, reinterpret_cast<int8_t*>(out));
    }
  }
}

void attention(const AttentionShape& shape, std::span<const AttentionTask> tasks, ThreadPool& pool) {
  using namespace kernels;
  if (shape.heads <= 0 || shape.kv_heads <= 0 || shape.head_dim <= 0 || shape.heads % shape.kv_heads != 0) {
    throw_error<ModelError>(
        "attention: {} heads over {} key/value heads of {}; the heads must be a multiple of the key/value heads", shape.heads,
        shape.kv_heads, shape.head_dim);
  }
  const KernelTable& kernels = table();
  thread_local Partial partial;
  Partial& shared = partial;
  const int64_t slots = lay_out(shape, tasks, shared.jobs);
  if (shared.jobs.empty()) return;
  // Results that share rows lie side by side: [token part][head part][key part][rows].
  shared.out.resize(static_cast<size_t>(slots * kAttentionRows * shape.head_dim));
  shared.max.resize(static_cast<size_t>(slots * kAttentionRows));
  shared.sum.resize(static_cast<size_t>(slots * kAttentionRows));

  const int64_t parts = shared.jobs.back().first_part + shared.jobs.back().plan.parts();
  const int64_t scratch = attention_scratch(shape.head_dim), rows_out = kAttentionRows * shape.head_dim;
  pool.parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    float* memory = thread_scratch(scratch + rows_out + 2 * kAttentionRows);
    for (int64_t index = begin; index < end; ++index) {
      const Job& job =
          *std::find_if(shared.jobs.rbegin(), shared.jobs.rend(), [&](const Job& j) { return j.first_part <= index; });
      AttentionPart part = part_of(job, shape, index - job.first_part);
      const int64_t slot = job.first_slot + index - job.first_part;
      part.scratch = memory;
      part.out = job.split() ? shared.out.data() + slot * rows_out : memory + scratch;
      part.max = job.split() ? shared.max.data() + slot * kAttentionRows : memory + scratch + rows_out;
      part.sum = job.split() ? shared.sum.data() + slot * kAttentionRows : memory + scratch + rows_out + kAttentionRows;
      kernels.attend(part);
      if (!job.split()) join(part, 1, part.out, part.max, part.sum, job.task->out);
    }
  });
  for (const Job& job : shared.jobs) {
    for (int64_t index = 0; job.split() && index < job.plan.parts(); index += job.plan.key_parts) {
      const int64_t slot = job.first_slot + index;
      join(part_of(job, shape, index), job.plan.key_parts, shared.out.data() + slot * rows_out,
           shared.max.data() + slot * kAttentionRows, shared.sum.data() + slot * kAttentionRows, job.task->out);
    }
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
