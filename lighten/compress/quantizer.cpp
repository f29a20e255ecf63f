#include "lighten/compress/quantizer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "lighten/base/error.h"

namespace lighten {
namespace {

constexpr float kSmallestRange = 1e-5f;
constexpr float kSmallestScale = 0x1p-24f;    // the smallest positive binary16
constexpr float kRoundingBias = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to the nearest even integer

inline float round_even(float x) { return (std::clamp(x, -1048576.0f, 1048576.0f) + kRoundingBias) - kRoundingBias; }

/// x^p for x >= 0 to about 1e-4 relative; branch-free, so that loops over it vectorise.
inline float fast_power(float x, float p) {
  const auto bits = std::bit_cast<int32_t>(x);
  const float mantissa = std::bit_cast<float>((bits & 0x7fffff) | 0x3f800000) - 1.0f;
  const float log2 =
      static_cast<float>((bits >> 23) - 127) +
      mantissa * (1.44254494f +
                  mantissa * (-0.71814525f +
                              mantissa * (0.45754919f +
                                          mantissa * (-0.27734162f + mantissa * (0.12191447f - mantissa * 0.02652159f)))));
  const float y = std::clamp(p * log2, -126.0f, 126.0f);
  const float whole = (y + kRoundingBias) - kRoundingBias;
  const float part = y - whole;
  const float power = 1.0f + part * (0.69314718f + part * (0.24022651f + part * (0.05550411f + part * 0.00961813f)));
  return std::bit_cast<float>(std::bit_cast<int32_t>(power) + (static_cast<int32_t>(whole) << 23));
}

inline float rounded_value(const GroupGrid& g, float w) {
  const float code = std::clamp(round_even((w - g.minimum) / g.scale) + g.zero_point, 0.0f, g.last);
  return g.scale * (code - g.zero_point) + g.minimum;
}

template <bool kSquared, bool kWeighted>
float grid_loss(const GroupGrid& g, const float* w, const float* importance, int64_t count, float norm) {
  float sum = 0;
  for (int64_t j = 0; j < count; ++j) {
    const float error = std::fabs(w[j] - rounded_value(g, w[j]));
    const float loss = kSquared ? error * error : fast_power(error, norm);
    sum += kWeighted ? loss * importance[j] : loss;
  }
  return sum;
}

float grid_loss(const GroupGrid& g, const float* w, const float* importance, int64_t count, double norm) {
  const auto p = static_cast<float>(norm);
  if (norm == 2.0)
    return importance ? grid_loss<true, true>(g, w, importance, count, p) : grid_loss<true, false>(g, w, importance, count, p);
  return importance ? grid_loss<false, true>(g, w, importance, count, p) : grid_loss<false, false>(g, w, importance, count, p);
}

std::pair<float, float> extremes(const float* w, int64_t count) {
  float low = w[0], high = w[0];
  for (int64_t j = 1; j < count; ++j) {
    low = std::min(low, w[j]);
    high = std::max(high, w[j]);
  }
  return {low, high};
}

torch::Tensor as_matrix(const torch::Tensor& weight, const char* who) {
  if (weight.dim() != 2) throw_error<ModelError>("{}: a weight must have two dimensions, this one has {}", who, weight.dim());
  return weight.detach().to(torch::kFloat).contiguous();
}

/// Rounds rows of a matrix whose groups run along its rows' length: visit(row, group, first column, count, grid).
template <typename Visit>
void for_each_group(const torch::Tensor& matrix, const GridOptions& grid, const RangeSearch& search, const float* importance,
                    const Visit& visit) {
  const int64_t rows = matrix.size(0), columns = matrix.size(1);
  const int64_t size = grid.group_size == 0 ? columns : grid.group_size;
  const float* data = matrix.const_data_ptr<float>();
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(columns, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t first = 0, group = 0; first < columns; first += size, ++group) {
        const int64_t count = std::min(size, columns - first);
        const float* w = data + row * columns + first;
        visit(row, group, first, count, w, fit_group(w, count, grid, search, importance ? importance + first : nullptr));
      }
  });
}

}  // namespace

int GroupGrid::code(float w) const {
  return static_cast<int>(std::clamp(round_even((w - minimum) / scale) + zero_point, 0.0f, last));
}
float GroupGrid::value(int code) const { return scale * (static_cast<float>(code) - zero_point) + minimum; }

GroupGrid fit_grid(float low, float high, int bits, ZeroKind zero) {
  GroupGrid g;
  g.last = static_cast<float>((1 << bits) - 1);
  const auto stored = [](float scale) { return std::max(round_to_half(scale), kSmallestScale); };
  switch (zero) {
    case ZeroKind::symmetric:
      g.scale = stored(std::max(std::max(-low, high), kSmallestRange) / static_cast<float>((1 << (bits - 1)) - 1));
      g.zero_point = static_cast<float>(1 << (bits - 1));
      break;
    case ZeroKind::integer:
      low = std::min(low, 0.0f);
      high = std::max(high, 0.0f);
      g.scale = stored(std::max(high - low, kSmallestRange) / g.last);
      g.zero_point = std::clamp(round_even(-low / g.scale), 0.0f, g.last);
      break;
    case ZeroKind::minimum:
      g.minimum = round_to_half(low);
      g.scale = stored(std::max(high - low, kSmallestRange) / g.last);
      break;
  }
  return g;
}

GroupGrid fit_group(const float* weights, int64_t count, const GridOptions& grid, const RangeSearch& search,
                    const float* importance) {
  const auto [low, high] = extremes(weights, count);
  GroupGrid best = fit_grid(low, high, grid.bits, grid.zero);
  if (search.steps <= 0) return best;
  float best_loss = grid_loss(best, weights, importance, count, search.norm);
  const int tried = static_cast<int>(std::lround(search.steps * search.max_shrink));
  for (int step = 1; step < tried; ++step) {
    const float factor = 1.0f - static_cast<float>(step) / static_cast<float>(search.steps);
    const GroupGrid candidate = fit_grid(low * factor, high * factor, grid.bits, grid.zero);
    const float loss = grid_loss(candidate, weights, importance, count, search.norm);
    if (loss < best_loss) {
      best_loss = loss;
      best = candidate;
    }
  }
  return best;
}

QuantTensor empty_quant_tensor(int64_t rows, int64_t columns, const GridOptions& grid, GroupAxis axis) {
  QuantTensor t;
  t.zero = grid.zero;
  t.axis = axis;
  t.bits = grid.bits;
  t.rows = rows;
  t.columns = columns;
  t.group_size = grid.group_size;
  const int64_t lines = axis == GroupAxis::input ? rows : columns, length = axis == GroupAxis::input ? columns : rows;
  const int64_t groups = grid.group_size == 0 ? 1 : (length + grid.group_size - 1) / grid.group_size;
  const auto count = static_cast<size_t>(lines * groups);
  t.codes.resize(static_cast<size_t>(rows * columns));
  t.scales.resize(count);
  if (grid.zero == ZeroKind::integer) t.zero_points.resize(count);
  if (grid.zero == ZeroKind::minimum) t.minimums.resize(count);
  return t;
}

void store_grid(QuantTensor& tensor, int64_t index, const GroupGrid& grid) {
  const auto i = static_cast<size_t>(index);
  if (!(grid.scale <= 65504.0f) || !(std::fabs(grid.minimum) <= 65504.0f))
    throw_error<ModelError>(
        "a group's scale {} or minimum {} does not fit binary16: the weights are too large or not finite; check the model",
        grid.scale, grid.minimum);
  tensor.scales[i] = float_to_half(grid.scale);
  if (tensor.zero == ZeroKind::integer) tensor.zero_points[i] = static_cast<uint8_t>(grid.zero_point);
  if (tensor.zero == ZeroKind::minimum) tensor.minimums[i] = float_to_half(grid.minimum);
}

GroupGrid stored_grid(const QuantTensor& tensor, int64_t index) {
  const auto i = static_cast<size_t>(index);
  GroupGrid g;
  g.last = static_cast<float>((1 << tensor.bits) - 1);
  g.scale = half_to_float(tensor.scales[i]);
  if (tensor.zero == ZeroKind::symmetric) g.zero_point = static_cast<float>(1 << (tensor.bits - 1));
  if (tensor.zero == ZeroKind::integer) g.zero_point = static_cast<float>(tensor.zero_points[i]);
  if (tensor.zero == ZeroKind::minimum) g.minimum = half_to_float(tensor.minimums[i]);
  return g;
}

QuantTensor quantize_groups(const torch::Tensor& weight, const GridOptions& grid, GroupAxis axis, const RangeSearch& search,
                            const torch::Tensor& importance) {
  torch::Tensor matrix = as_matrix(weight, "quantize_groups");
  QuantTensor tensor = empty_quant_tensor(matrix.size(0), matrix.size(1), grid, axis);
  const bool along_inputs = axis == GroupAxis::input;
  if (!along_inputs) matrix = matrix.t().contiguous();
  const int64_t length = matrix.size(1);
  const int64_t groups = grid.group_size == 0 ? 1 : (length + grid.group_size - 1) / grid.group_size;
  torch::Tensor h;
  if (importance.defined() && along_inputs) h = importance.to(torch::kFloat).contiguous();
  for_each_group(matrix, grid, search, h.defined() ? h.const_data_ptr<float>() : nullptr,
                 [&](int64_t row, int64_t group, int64_t first, int64_t count, const float* w, const GroupGrid& g) {
                   store_grid(tensor, row * groups + group, g);
                   for (int64_t j = 0; j < count; ++j) {
                     const int64_t at = along_inputs ? row * length + first + j : (first + j) * tensor.columns + row;
                     tensor.codes[static_cast<size_t>(at)] = static_cast<uint8_t>(g.code(w[j]));
                   }
                 });
  return tensor;
}

torch::Tensor fake_quantize(const torch::Tensor& weight, const GridOptions& grid, GroupAxis axis) {
  torch::Tensor matrix = as_matrix(weight, "fake_quantize");
  if (axis == GroupAxis::output) return fake_quantize(matrix.t(), grid, GroupAxis::input).t().contiguous();
  torch::Tensor result = torch::empty_like(matrix);
  float* out = result.data_ptr<float>();
  const int64_t columns = matrix.size(1);
  for_each_group(matrix, grid, {}, nullptr,
                 [&](int64_t row, int64_t, int64_t first, int64_t count, const float* w, const GroupGrid& g) {
                   float* to = out + row * columns + first;
                   for (int64_t j = 0; j < count; ++j) to[j] = rounded_value(g, w[j]);
                 });
  return result;
}

torch::Tensor dequantized(const QuantTensor& tensor) {
  auto owner = std::make_unique<std::vector<float>>(dequantize(tensor));
  float* data = owner->data();
  torch::Tensor view = torch::from_blob(
      data, {tensor.rows, tensor.columns}, [kept = owner.get()](void*) { delete kept; }, torch::kFloat);
  owner.release();
  return view;
}

void install(Linear& module, const QuantTensor& tensor) {
  torch::NoGradGuard no_grad;
  if (module->weight.size(0) != tensor.rows || module->weight.size(1) != tensor.columns)
    throw_error<ModelError>("install: the linear is [{}, {}], the codes are [{}, {}]", module->weight.size(0),
                            module->weight.size(1), tensor.rows, tensor.columns);
  module->weight.copy_(dequantized(tensor));
}

}  // namespace lighten
