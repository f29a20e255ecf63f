// The walk that all linears share: activations are laid out in panels of a few tokens, then (tile of 16 rows) x (block of
// tokens) is the unit of parallel work. Every output is summed by one thread in one order.
#include "lighten/kernels/linear.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "lighten/base/error.h"
#include "lighten/kernels/accelerator.h"
#include "lighten/kernels/kernel_table.h"

namespace lighten {
namespace kernels {
namespace {

constexpr int64_t kBatchTokens = 512;   // bounds the panels' memory
constexpr int64_t kBlockTokens = 512;   // tokens at most that meet one expanded piece of a tile
constexpr int64_t kLeastBlock = 64;     // and at least, where there are enough
constexpr int64_t kCodeColumns = 1024;  // expanded codes stay in the first-level cache: 16 KB
constexpr int kItemsPerThread = 8;
constexpr int64_t kFloatColumns = 256;  // the same in float

enum class Path : uint8_t { codes, floats, bfloat16, rounded_floats };

Path path_of(const LinearSpec& spec, Arithmetic arithmetic, const KernelTable& kernels) {
  if (arithmetic == Arithmetic::exact) return Path::floats;
  if (spec.bits <= 8) return Path::codes;
  if (spec.bits == 16 && spec.bfloat) return kernels.multiply_bfloat16 ? Path::bfloat16 : Path::rounded_floats;
  return Path::floats;
}

/// As KernelTable::quantize takes it.
int fine_ratio(Arithmetic arithmetic) {
  if (arithmetic == Arithmetic::adaptive) return kFineRatio;
  return arithmetic == Arithmetic::bits8 ? 127 * 64 : 0;  // the code of the largest alone makes it too much | every block
}

/// Memory that is kept between calls, 64-byte aligned.
class Scratch {
 public:
  std::byte* take(size_t bytes) {
    if (memory_.size() < bytes + 64) memory_.resize(bytes + 64);
    return memory_.data() + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64;
  }

 private:
  std::vector<std::byte> memory_;
};

/// The activations of a batch: groups of up to `lanes` tokens, interleaved.
struct Panels {
  Path path;
  int lanes;
  int block;           // codes only
  bool batch = false;  // codes are expanded, for several tokens at once
  int64_t tokens, columns, padded_columns;
  size_t group_bytes = 0, factor_bytes = 0;  // a panel of codes: q, fine, then factors (scale, sum, q_sum, fine_sum), has_fine
  std::byte* memory = nullptr;

  int64_t groups() const { return (tokens + lanes - 1) / lanes; }
  int lanes_of(int64_t group) const { return static_cast<int>(std::min<int64_t>(lanes, tokens - group * lanes)); }
  int64_t blocks() const { return padded_columns / block; }
  std::byte* group(int64_t g) const { return memory + static_cast<size_t>(g) * group_bytes; }

  void set_sizes() {
    const size_t values = static_cast<size_t>(padded_columns) * static_cast<size_t>(lanes);
    if (path != Path::codes) {
      group_bytes = static_cast<size_t>(round_up(static_cast<int64_t>(values * (path == Path::bfloat16 ? 2 : 4)), 64));
      return;
    }
    factor_bytes = static_cast<size_t>(blocks()) * static_cast<size_t>(lanes) * 4;
    group_bytes = static_cast<size_t>(round_up(static_cast<int64_t>(2 * values + 4 * factor_bytes) + blocks(), 64));
  }
  /// A token's place in its panel.
  CodeLane lane(int64_t g, int lane) const {
    std::byte* at = group(g);
    auto* q = reinterpret_cast<int8_t*>(at) + lane * kChunkInputs;
    std::byte* factors = at + 2 * padded_columns * lanes;
    const auto floats = [&](int i) { return reinterpret_cast<float*>(factors + static_cast<size_t>(i) * factor_bytes) + lane; };
    const auto ints = [&](int i) { return reinterpret_cast<int32_t*>(floats(i)); };
    return {.q = q,
            .fine = q + padded_columns * lanes,
            .scale = floats(0),
            .sum = floats(1),
            .q_sum = ints(2),
            .fine_sum = ints(3),
            .has_fine = reinterpret_cast<uint8_t*>(factors + 4 * factor_bytes),
            .bit = static_cast<uint8_t>(1u << lane)};
  }
  CodePanel codes(int64_t g, int64_t first_block) const {
    const CodeLane first = lane(g, 0);
    const int64_t n = lanes_of(g), values = first_block * block * n, at = first_block * n;
    return {.q = first.q + values,
            .fine = first.fine + values,
            .scale = first.scale + at,
            .sum = first.sum + at,
            .q_sum = first.q_sum + at,
            .fine_sum = first.fine_sum + at,
            .has_fine = first.has_fine + first_block};
  }
};

/// Row `token` of the input; `memory` holds it if it has to be normalized.
const float* input_row(const LinearInput& input, int64_t token, int64_t columns, const KernelTable& kernels,
                       std::vector<float>& memory) {
  const float* row = input.x + token * input.stride;
  if (input.norm == nullptr) return row;
  memory.resize(static_cast<size_t>(columns));
  kernels.rms_norm(row, input.norm, input.epsilon, 1, columns, memory.data());
  return memory.data();
}

void fill_codes(const Panels& p, int64_t g, const LinearInput& input, int64_t first, int fine_ratio,
                const KernelTable& kernels) {
  const int n = p.lanes_of(g);
  thread_local std::vector<float> padded, normalized;
  const uint8_t flip = p.batch ? kernels.code_flip : uint8_t{0};
  std::memset(p.lane(g, 0).has_fine, 0, static_cast<size_t>(p.blocks()));
  for (int lane = 0; lane < n; ++lane) {
    const float* row = input_row(input, first + g * p.lanes + lane, p.columns, kernels, normalized);
    if (p.columns != p.padded_columns) {
      padded.assign(static_cast<size_t>(p.padded_columns), 0.0f);
      std::copy(row, row + p.columns, padded.begin());
      row = padded.data();
    }
    kernels.quantize(row, p.blocks(), p.block, n, fine_ratio, flip, p.lane(g, lane));
  }
}

void fill_floats(const Panels& p, int64_t g, const LinearInput& input, int64_t first, const KernelTable& kernels) {
  thread_local std::vector<float> normalized;
  const int n = p.lanes_of(g);
  for (int lane = 0; lane < n; ++lane) {
    const float* row = input_row(input, first + g * p.lanes + lane, p.columns, kernels, normalized);
    if (p.path == Path::bfloat16) {
      auto* out = reinterpret_cast<BFloat16*>(p.group(g));
      for (int64_t c = 0; c < p.padded_columns; ++c) {
        out[(c / 2 * n + lane) * 2 + c % 2] = c < p.columns ? float_to_bfloat16(row[c]) : BFloat16{0};
      }
    } else {
      auto* out = reinterpret_cast<float*>(p.group(g)) + lane;
      const bool rounded = p.path == Path::rounded_floats;
      for (int64_t c = 0; c < p.columns; ++c) out[c * n] = rounded ? bfloat16_to_float(float_to_bfloat16(row[c])) : row[c];
    }
  }
}

/// Products of `tiles` neighbouring tiles with the tokens of panel groups [g0, g1); y [tiles][y_stride], of which [tokens][16]
/// are used, zeroed.
void tile_codes(const Layout& l, const uint8_t* first_tile, int tiles, const Panels& p, int64_t g0, int64_t g1,
                const KernelTable& kernels, float* y, int64_t y_stride) {
  if (!p.batch) {
    kernels.multiply_packed(l, first_tile, p.codes(0, 0), static_cast<int>(p.tokens), y);
    return;
  }
  constexpr int64_t factors = kCodeColumns / 32 * kTileRows;
  alignas(64) uint8_t codes[kMostCodeTiles * kCodeColumns * kTileRows];
  alignas(64) int32_t centers[kMostCodeTiles * factors];
  alignas(64) float scale[kMostCodeTiles * factors], offset[kMostCodeTiles * factors];
  const CodeTiles expanded{{codes, centers, scale, offset}, kCodeColumns * kTileRows, factors, l.has_offset()};
  for (int64_t column = 0; column < l.padded_columns; column += kCodeColumns) {
    const int64_t n = std::min(kCodeColumns, l.padded_columns - column);
    const int64_t first = column / l.block, blocks = n / l.block;
    for (int i = 0; i < tiles; ++i) {
      kernels.expand(l, first_tile + static_cast<size_t>(i) * l.tile_bytes, first, blocks,
                     {codes + i * expanded.code_stride, centers + i * factors, scale + i * factors, offset + i * factors});
    }
    for (int64_t g = g0; g < g1; ++g) {
      kernels.multiply_codes(l.product_bits(), expanded, tiles, l.block, blocks, p.codes(g, first), p.lanes_of(g),
                             y + (g - g0) * p.lanes * kTileRows, y_stride);
    }
  }
}

void tile_floats(const Layout& l, const uint8_t* tile, const Panels& p, int64_t g0, int64_t g1, const KernelTable& kernels,
                 float* y) {
  alignas(64) float buffer[kFloatColumns * kTileRows];
  for (int64_t column = 0; column < l.columns; column += kFloatColumns) {
    const int64_t n = std::min(kFloatColumns, l.columns - column);
    const float* w = buffer;
    if (l.bits == 32) {
      w = reinterpret_cast<const float*>(tile) + column * kTileRows;
    } else {
      kernels.dequantize(l, tile, column, n, buffer);
    }
    for (int64_t g = g0; g < g1; ++g) {
      const int lanes = p.lanes_of(g);
      kernels.multiply_floats(w, reinterpret_cast<const float*>(p.group(g)) + column * lanes, n, lanes,
                              y + (g - g0) * p.lanes * kTileRows);
    }
  }
}

void tile_bfloat16(const Layout& l, const uint8_t* tile, const Panels& p, int64_t g0, int64_t g1, const KernelTable& kernels,
                   float* y) {
  for (int64_t g = g0; g < g1; ++g) {
    kernels.multiply_bfloat16(reinterpret_cast<const BFloat16*>(tile), reinterpret_cast<const BFloat16*>(p.group(g)),
                              l.padded_columns / 2, p.lanes_of(g), y + (g - g0) * p.lanes * kTileRows);
  }
}

struct Job {
  LinearTask task;
  Layout layout;
  int64_t first_item = 0;  // in the numbering of all tasks' items, each of up to `width` neighbouring tiles

  int64_t items(int width) const { return (layout.tiles + width - 1) / width; }
};

void run_tiles(const Job& job, int64_t tile, int tiles, const Panels& p, int64_t g0, int64_t g1, int64_t first_token,
               const KernelTable& kernels) {
  constexpr int64_t y_stride = kBlockTokens * kTileRows;
  alignas(64) float y[kMostCodeTiles * y_stride];
  const int64_t t0 = g0 * p.lanes, t1 = std::min(g1 * p.lanes, p.tokens);
  for (int i = 0; i < tiles; ++i) std::memset(y + i * y_stride, 0, static_cast<size_t>(t1 - t0) * kTileRows * sizeof(float));
  const Layout& l = job.layout;
  for (int plane = 0; plane < l.planes; ++plane) {  // all of them into the same sums
    const uint8_t* at = reinterpret_cast<const uint8_t*>(job.task.packed) + static_cast<size_t>(plane) * l.plane_bytes() +
                        static_cast<size_t>(tile) * l.tile_bytes;
    if (p.path == Path::codes) {
      tile_codes(l, at, tiles, p, g0, g1, kernels, y, y_stride);
    } else if (p.path == Path::bfloat16) {
      tile_bfloat16(l, at, p, g0, g1, kernels, y);
    } else {
      tile_floats(l, at, p, g0, g1, kernels, y);
    }
  }
  for (int i = 0; i < tiles; ++i) {
    const int64_t row = (tile + i) * kTileRows, rows = std::min<int64_t>(kTileRows, l.rows - row);
    for (int64_t t = t0; t < t1; ++t) {
      float* out = job.task.y + (first_token + t) * job.task.y_stride + row;
      const float* from = y + i * y_stride + (t - t0) * kTileRows;
      const float* bias = job.task.bias ? job.task.bias + row : nullptr;
      if (!bias && !job.task.add && rows == kTileRows) {
        std::memcpy(out, from, kTileRows * sizeof(float));  // of a size that the compiler knows
        continue;
      }
      for (int64_t r = 0; r < rows; ++r) {
        const float value = bias ? from[r] + bias[r] : from[r];
        out[r] = job.task.add ? out[r] + value : value;
      }
    }
  }
}

void run_batch(std::vector<Job>& jobs, const Panels& p, int64_t first_token, const KernelTable& kernels, ThreadPool& pool) {
  const int width = p.batch ? kernels.code_tiles : 1;
  int64_t job_items = 0;
  for (Job& job : jobs) {
    job.first_item = job_items;
    job_items += job.items(width);
  }
  // Long blocks of tokens expand codes less often, short ones give every thread enough to do.
  int64_t block_tokens = kBlockTokens;
  while (block_tokens > kLeastBlock &&
         job_items * ((p.tokens + block_tokens - 1) / block_tokens) < pool.size() * kItemsPerThread)
    block_tokens /= 2;
  const int64_t groups_per_block = std::max<int64_t>(1, block_tokens / p.lanes);
  const int64_t token_blocks = (p.groups() + groups_per_block - 1) / groups_per_block;
  const int64_t items = job_items * token_blocks;
  const int64_t grain = std::clamp<int64_t>(items / (pool.size() * 6), 1, 32);
  pool.parallel_for(items, grain, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t g0 = item / job_items * groups_per_block, g1 = std::min(g0 + groups_per_block, p.groups());
      const int64_t at = item % job_items;
      const auto job = std::find_if(jobs.rbegin(), jobs.rend(), [&](const Job& j) { return j.first_item <= at; });
      const int64_t tile = (at - job->first_item) * width;
      run_tiles(*job, tile, static_cast<int>(std::min<int64_t>(width, job->layout.tiles - tile)), p, g0, g1, first_token,
                kernels);
    }
  });
}

/// Tasks whose activations take the same form.
void run(std::vector<Job>& jobs, Path path, const LinearInput& input, int64_t tokens, int fine_ratio,
         const KernelTable& kernels, ThreadPool& pool) {
  thread_local Scratch scratch;
  const Layout& l = jobs.front().layout;
  for (int64_t first = 0; first < tokens; first += kBatchTokens) {
    Panels p{.path = path,
             .lanes = 0,
             .block = l.block,
             .tokens = std::min(kBatchTokens, tokens - first),
             .columns = l.columns,
             .padded_columns = l.padded_columns};
    p.batch = path == Path::codes && (p.tokens > kernels.packed_lanes || !l.direct());
    const int64_t widest = p.batch ? kernels.code_lanes : path == Path::codes ? kernels.packed_lanes : kernels.float_lanes;
    const int64_t groups = (p.tokens + widest - 1) / widest;
    p.lanes = static_cast<int>((p.tokens + groups - 1) / groups);  // of equal size, as far as possible
    p.set_sizes();
    p.memory = scratch.take(p.group_bytes * static_cast<size_t>(p.groups()));
    pool.parallel_for(p.groups(), 2, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        if (path == Path::codes) {
          fill_codes(p, g, input, first, fine_ratio, kernels);
        } else {
          fill_floats(p, g, input, first, kernels);
        }
      }
    });
    run_batch(jobs, p, first, kernels, pool);
  }
}

/// Those that a graphics card has; they are `done` then.
void run_on_device(std::span<const LinearTask> tasks, const LinearInput& input, int64_t tokens, std::vector<bool>& done) {
  std::vector<LinearTask> there;
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (tasks[i].device == nullptr) continue;
    there.push_back(tasks[i]);
    done[i] = true;
  }
  if (!there.empty()) device_linear(there, input, tokens);
}

}  // namespace
}  // namespace kernels

void linear(std::span<const LinearTask> tasks, const LinearInput& input, int64_t tokens, Arithmetic arithmetic,
            ThreadPool& pool) {
  using namespace kernels;
  if (tokens <= 0) return;
  const KernelTable& kernels = table();
  for (const LinearTask& task : tasks) {
    check(task.spec);
    if (task.spec.columns != tasks[0].spec.columns)
      throw_error<ModelError>("linear: weights with {} and {} inputs cannot share their input", tasks[0].spec.columns,
                              task.spec.columns);
  }
  std::vector<bool> done(tasks.size(), false);
  if (arithmetic != Arithmetic::exact) run_on_device(tasks, input, tokens, done);
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (done[i]) continue;
    const Path path = path_of(tasks[i].spec, arithmetic, kernels);
    std::vector<Job> jobs;
    for (size_t j = i; j < tasks.size(); ++j) {
      if (done[j] || path_of(tasks[j].spec, arithmetic, kernels) != path) continue;
      const Layout layout = layout_of(tasks[j].spec);
      if (!jobs.empty() && (layout.block != jobs[0].layout.block || layout.padded_columns != jobs[0].layout.padded_columns ||
                            layout.direct() != jobs[0].layout.direct()))
        continue;
      jobs.push_back({tasks[j], layout});
      done[j] = true;
    }
    run(jobs, path, input, tokens, fine_ratio(arithmetic), kernels, pool);
  }
}

void linear(const LinearSpec& spec, const std::byte* packed, const float* x, int64_t x_stride, int64_t tokens, float* y,
            int64_t y_stride, const float* bias, Arithmetic arithmetic, ThreadPool& pool) {
  const LinearTask task{spec, packed, y, y_stride, bias};
  linear(std::span(&task, 1), LinearInput{x, x_stride}, tokens, arithmetic, pool);
}

}  // namespace lighten
