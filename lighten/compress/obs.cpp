#include "lighten/compress/obs.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "lighten/base/error.h"
#include "lighten/nn/product.h"

namespace lighten {
namespace {

constexpr int64_t kSliceRows = 32;

bool is_identity(const std::vector<int64_t>& order) {
  for (size_t i = 0; i < order.size(); ++i)
    if (order[i] != static_cast<int64_t>(i)) return false;
  return true;
}

/// What one lazy block works on: W and the errors [rows, columns of the block], U's diagonal block.
struct LazyBlock {
  int64_t first, columns;  // positions
  float* weight;           // W at (0, first)
  int64_t weight_stride;
  float* errors;       // [rows, columns]
  const float* upper;  // U at (first, first)
  int64_t upper_stride;
};

/// Rounds rows [begin, begin + rows) of a lazy block; scratch [2, columns, rows].
void sweep_rows(const LazyBlock& block, const HessianFactor& factor, ColumnQuantizer& quantizer, int64_t begin, int64_t rows,
                std::vector<float>& scratch) {
  scratch.resize(static_cast<size_t>((2 * block.columns + 1) * rows));
  float* present = scratch.data();
  float* rounded = present + block.columns * rows;
  float* error = rounded + block.columns * rows;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < block.columns; ++j) present[j * rows + r] = block.weight[(begin + r) * block.weight_stride + j];
  for (int64_t j = 0; j < block.columns; ++j) {
    const float* u = block.upper + j * block.upper_stride;
    float* w = present + j * rows;
    float* q = rounded + j * rows;
    const int64_t position = block.first + j;
    quantizer.quantize({position, factor.order[static_cast<size_t>(position)], begin, rows, w, block.columns - j}, q);
    for (int64_t r = 0; r < rows; ++r) error[r] = (w[r] - q[r]) / u[j];
    for (int64_t k = j + 1; k < block.columns; ++k) {
      const float factor_jk = u[k];
      float* later = present + k * rows;
      for (int64_t r = 0; r < rows; ++r) later[r] -= error[r] * factor_jk;
    }
    for (int64_t r = 0; r < rows; ++r) block.errors[(begin + r) * block.columns + j] = error[r];
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < block.columns; ++j) block.weight[(begin + r) * block.weight_stride + j] = rounded[j * rows + r];
}

}  // namespace

void obs_sweep(torch::Tensor& weight, const HessianFactor& factor, ColumnQuantizer& quantizer, int64_t block) {
  torch::NoGradGuard no_grad;
  const int64_t rows = weight.size(0), columns = weight.size(1);
  if (factor.upper.size(0) != columns)
    throw_error<ModelError>("obs_sweep: the weight has {} inputs, the Hessian {}", columns, factor.upper.size(0));
  const bool plain = is_identity(factor.order);
  torch::Tensor order = plain ? torch::Tensor() : torch::tensor(factor.order);
  torch::Tensor work = plain ? weight.contiguous() : weight.index_select(1, order);
  for (int64_t position = 0; position < columns; ++position)
    if (factor.dead[static_cast<size_t>(factor.order[static_cast<size_t>(position)])]) work.select(1, position).zero_();

  const int64_t multiple = quantizer.column_multiple(), row_multiple = quantizer.row_multiple();
  block = (std::max<int64_t>(block, 1) + multiple - 1) / multiple * multiple;
  const int64_t slice = (kSliceRows + row_multiple - 1) / row_multiple * row_multiple;
  for (int64_t first = 0; first < columns; first += block) {
    const int64_t count = std::min(block, columns - first), end = first + count;
    torch::Tensor errors = torch::empty({rows, count}, torch::kFloat);
    const LazyBlock lazy{first,
                         count,
                         work.data_ptr<float>() + first,
                         columns,
                         errors.data_ptr<float>(),
                         factor.upper.const_data_ptr<float>() + first * columns + first,
                         columns};
    at::parallel_for(0, (rows + slice - 1) / slice, 1, [&](int64_t begin_slice, int64_t end_slice) {
      std::vector<float> scratch;
      for (int64_t s = begin_slice; s < end_slice; ++s)
        sweep_rows(lazy, factor, quantizer, s * slice, std::min(slice, rows - s * slice), scratch);
    });
    if (end < columns) work.slice(1, end).sub_(product(errors, factor.upper.slice(0, first, end).slice(1, end).t()));
  }
  if (!plain)
    weight.index_copy_(1, order, work);
  else if (!work.is_same(weight))
    weight.copy_(work);
}

GroupColumnQuantizer::GroupColumnQuantizer(const torch::Tensor& weight, const GridOptions& grid, GroupAxis axis,
                                           bool static_groups, const RangeSearch& search, const torch::Tensor& importance)
    : grid_(grid), static_groups_(static_groups || (axis == GroupAxis::input && grid.group_size == 0)), search_(search) {
  if (importance.defined()) {
    const torch::Tensor h = importance.to(torch::kFloat).contiguous();
    importance_.assign(h.const_data_ptr<float>(), h.const_data_ptr<float>() + h.numel());
  }
  if (axis == GroupAxis::input && static_groups_)
    tensor_ = quantize_groups(weight, grid, axis, search, importance);
  else
    tensor_ = empty_quant_tensor(weight.size(0), weight.size(1), grid, axis);
}

int64_t GroupColumnQuantizer::column_multiple() const {
  return tensor_.axis == GroupAxis::input && !static_groups_ ? tensor_.group_size : 1;
}

int64_t GroupColumnQuantizer::row_multiple() const {
  if (tensor_.axis == GroupAxis::input) return 1;
  return tensor_.group_size == 0 ? tensor_.rows : tensor_.group_size;
}

void GroupColumnQuantizer::quantize(const ColumnSlice& slice, float* values) {
  const int64_t rows = slice.rows;
  const auto keep = [&](int64_t r, const GroupGrid& g) {
    const int code = g.code(slice.ahead[r]);
    tensor_.codes[static_cast<size_t>((slice.first_row + r) * tensor_.columns + slice.column)] = static_cast<uint8_t>(code);
    values[r] = g.value(code);
  };
  if (tensor_.axis == GroupAxis::output) {
    const int64_t size = row_multiple(), groups = (tensor_.rows + size - 1) / size;
    for (int64_t first = 0; first < rows; first += size) {
      const GroupGrid g = fit_group(slice.ahead + first, std::min(size, rows - first), grid_, search_);
      const int64_t index = slice.column * groups + (slice.first_row + first) / size;
      store_grid(tensor_, index, g);
      for (int64_t r = first; r < std::min(first + size, rows); ++r) keep(r, stored_grid(tensor_, index));
    }
    return;
  }
  const int64_t size = tensor_.group_size == 0 ? tensor_.columns : tensor_.group_size;
  const int64_t groups = tensor_.groups_per_row(), group = slice.column / size;
  if (!static_groups_ && slice.column % size == 0) {
    const int64_t count = std::min(size, slice.ahead_columns);
    std::vector<float> weights(static_cast<size_t>(count));
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < count; ++j) weights[static_cast<size_t>(j)] = slice.ahead[j * rows + r];
      const float* importance = importance_.empty() ? nullptr : importance_.data() + slice.column;
      store_grid(tensor_, (slice.first_row + r) * groups + group, fit_group(weights.data(), count, grid_, search_, importance));
    }
  }
  for (int64_t r = 0; r < rows; ++r) keep(r, stored_grid(tensor_, (slice.first_row + r) * groups + group));
}

namespace {

constexpr int64_t kDescentColumns = 128;

/// Coordinate descent on tr(D H D^T), D = W - Q: the state is the codes and the gradient D H [rows, columns].
class Descent {
 public:
  Descent(QuantTensor& tensor, const torch::Tensor& weight, const torch::Tensor& hessian)
      : tensor_(tensor),
        hessian_(hessian.to(torch::kFloat).contiguous()),
        gradient_(product(weight.to(torch::kFloat) - dequantized(tensor), hessian_)),
        size_(tensor.group_size == 0 ? tensor.columns : tensor.group_size) {}

  /// Every group's scale moves to its optimum, rounded to binary16, where that lowers the objective.
  void scales() {
    for (int64_t first = 0; first < tensor_.columns; first += size_) {
      const int64_t end = std::min(first + size_, tensor_.columns);
      const torch::Tensor v = steps(first, end), g = gradient_.slice(1, first, end);
      const torch::Tensor curvature = (product(v, hessian_.slice(0, first, end).slice(1, first, end)) * v).sum(1);
      torch::Tensor change = ((g * v).sum(1) / curvature.clamp_min(1e-30)).contiguous();
      const float* k = curvature.const_data_ptr<float>();
      float* d = change.data_ptr<float>();
      for (int64_t row = 0; row < tensor_.rows; ++row) {
        Half& stored = tensor_.scales[static_cast<size_t>(row * tensor_.groups_per_row() + first / size_)];
        const float old = half_to_float(stored), moved = round_to_half(old + d[row]);
        const float step = moved - old;  // changes the objective by step^2 k - 2 step (step that is best) k
        const bool better = k[row] > 0 && moved > 0.5f * old && moved < 2 * old && step * step < 2 * step * d[row];
        if (better) stored = float_to_half(moved);
        d[row] = better ? step : 0.0f;
      }
      gradient_.sub_(product(v * change.unsqueeze(1), hessian_.slice(1, first, end)));
    }
  }

  /// Every code in turn moves to the level nearest its conditional optimum. Returns how many moved.
  int64_t codes() {
    int64_t moved = 0;
    for (int64_t group = 0; group < tensor_.columns; group += size_)
      for (int64_t first = group; first < std::min(group + size_, tensor_.columns); first += kDescentColumns)
        moved += block(first, std::min({first + kDescentColumns, group + size_, tensor_.columns}));
    return moved;
  }

 private:
  /// q - z of the columns [first, end): what a scale multiplies.
  torch::Tensor steps(int64_t first, int64_t end) const {
    torch::Tensor v = torch::empty({tensor_.rows, end - first});
    float* out = v.data_ptr<float>();
    for (int64_t row = 0; row < tensor_.rows; ++row) {
      const float zero = stored_grid(tensor_, row * tensor_.groups_per_row() + first / size_).zero_point;
      for (int64_t j = first; j < end; ++j)
        *out++ = static_cast<float>(tensor_.codes[static_cast<size_t>(row * tensor_.columns + j)]) - zero;
    }
    return v;
  }

  int64_t block(int64_t first, int64_t end) {
    const int64_t count = end - first, columns = tensor_.columns;
    torch::Tensor change = torch::zeros({tensor_.rows, count});
    float* changes = change.data_ptr<float>();
    const float* gradient = gradient_.const_data_ptr<float>() + first;
    const float* h = hessian_.const_data_ptr<float>() + first * columns + first;
    std::atomic<int64_t> moved{0};
    at::parallel_for(0, tensor_.rows, 16, [&](int64_t begin, int64_t last) {
      std::vector<float> g(static_cast<size_t>(count));
      int64_t here = 0;
      for (int64_t row = begin; row < last; ++row) {
        const GroupGrid grid = stored_grid(tensor_, row * tensor_.groups_per_row() + first / size_);
        uint8_t* codes = tensor_.codes.data() + row * columns + first;
        std::copy_n(gradient + row * columns, count, g.begin());
        for (int64_t j = 0; j < count; ++j) {
          const float own = h[j * columns + j];
          if (own <= 0) continue;
          const float value = grid.value(codes[j]);
          const int code = grid.code(value + g[static_cast<size_t>(j)] / own);
          if (code == codes[j]) continue;
          const float step = grid.value(code) - value;
          codes[j] = static_cast<uint8_t>(code);
          changes[row * count + j] = step;
          for (int64_t k = 0; k < count; ++k) g[static_cast<size_t>(k)] -= step * h[j * columns + k];
          ++here;
        }
      }
      moved += here;
    });
    if (moved > 0) gradient_.sub_(product(change, hessian_.slice(1, first, end)));
    return moved;
  }

  QuantTensor& tensor_;
  torch::Tensor hessian_, gradient_;
  int64_t size_;
};

}  // namespace

int64_t refine_codes(QuantTensor& tensor, const torch::Tensor& weight, const torch::Tensor& hessian, int passes, bool scales) {
  torch::NoGradGuard no_grad;
  if (tensor.axis != GroupAxis::input) throw_error<ModelError>("refine_codes: groups along inputs only");
  int64_t moved = 1;
  for (int pass = 0; pass < passes && moved > 0; ++pass) {
    Descent descent(tensor, weight, hessian);
    if (scales) descent.scales();
    moved = descent.codes();
  }
  return moved;
}

double relative_objective(const torch::Tensor& weight, const torch::Tensor& rounded, const torch::Tensor& hessian) {
  const torch::Tensor h = hessian.to(torch::kDouble), w = weight.to(torch::kDouble), d = w - rounded.to(torch::kDouble);
  const double whole = (w.mm(h) * w).sum().item<double>();
  return whole > 0 ? (d.mm(h) * d).sum().item<double>() / whole : 0.0;
}

}  // namespace lighten
