#include "lighten/compress/obs.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "lighten/base/error.h"

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
  torch::Tensor work = plain ? weight.contiguous().clone() : weight.index_select(1, order);
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
    if (end < columns) work.slice(1, end).addmm_(errors, factor.upper.slice(0, first, end).slice(1, end), 1, -1);
  }
  if (plain)
    weight.copy_(work);
  else
    weight.index_copy_(1, order, work);
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

/// One row of the coordinate descent: codes, values and the gradient g = (w - q) H.
struct RowDescent {
  QuantTensor& tensor;
  const float* hessian;  // [columns, columns]
  int64_t row, columns, size, groups;
  float* gradient;

  void move(int64_t column, float change) {
    const float* h = hessian + column * columns;
    for (int64_t k = 0; k < columns; ++k) gradient[k] -= change * h[k];
  }

  int64_t pass() {
    int64_t changed = 0;
    uint8_t* codes = tensor.codes.data() + row * columns;
    for (int64_t group = 0; group < groups; ++group) {
      const GroupGrid g = stored_grid(tensor, row * groups + group);
      for (int64_t j = group * size; j < std::min(columns, (group + 1) * size); ++j) {
        const float own = hessian[j * columns + j];
        if (own <= 0) continue;
        const float value = g.value(codes[j]);
        const int code = g.code(value + gradient[j] / own);
        if (code == codes[j]) continue;
        codes[j] = static_cast<uint8_t>(code);
        move(j, g.value(code) - value);
        ++changed;
      }
    }
    return changed;
  }
};

}  // namespace

int64_t refine_codes(QuantTensor& tensor, const torch::Tensor& weight, const torch::Tensor& hessian, int passes) {
  torch::NoGradGuard no_grad;
  if (tensor.axis != GroupAxis::input) throw_error<ModelError>("refine_codes: groups along inputs only");
  if (passes <= 0) return 0;
  const torch::Tensor h = hessian.to(torch::kFloat).contiguous();
  torch::Tensor gradient = (weight.to(torch::kFloat) - dequantized(tensor)).mm(h);
  const int64_t columns = tensor.columns;
  std::atomic<int64_t> last_changes{0};
  at::parallel_for(0, tensor.rows, 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      RowDescent descent{tensor,
                         h.const_data_ptr<float>(),
                         row,
                         columns,
                         tensor.group_size == 0 ? columns : tensor.group_size,
                         tensor.groups_per_row(),
                         gradient.data_ptr<float>() + row * columns};
      int64_t changed = 1;
      for (int pass = 0; pass < passes && changed > 0; ++pass) changed = descent.pass();
      last_changes += changed;
    }
  });
  return last_changes;
}

double relative_objective(const torch::Tensor& weight, const torch::Tensor& rounded, const torch::Tensor& hessian) {
  const torch::Tensor h = hessian.to(torch::kDouble), w = weight.to(torch::kDouble), d = w - rounded.to(torch::kDouble);
  const double whole = (w.mm(h) * w).sum().item<double>();
  return whole > 0 ? (d.mm(h) * d).sum().item<double>() / whole : 0.0;
}

}  // namespace lighten
