// Scalar group quantization: the grid of a group, the codes on it, and whole weights rounded to nearest.
#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <vector>

#include "lighten/compress/method.h"

namespace lighten {

/// The levels of one group: w = scale * (q - zero_point), or scale * q + minimum. Scale and minimum are exactly representable
/// in binary16.
struct GroupGrid {
  float scale = 1;
  float zero_point = 0;  ///< an integer; symmetric: 2^(bits-1)
  float minimum = 0;     ///< ZeroKind::minimum only
  float last = 15;       ///< 2^bits - 1

  int code(float w) const;
  float value(int code) const;
};

/// The grid whose levels span [low, high]; codes are later chosen for the binary16-rounded scale.
///   integer:   low <- min(low, 0), high <- max(high, 0); s = max(high - low, 1e-5) / (2^b - 1); z = clamp(round(-low / s), 0,
///   2^b - 1) minimum:   s = max(high - low, 1e-5) / (2^b - 1), m = low symmetric: s = max(max(|low|, |high|), 1e-5) / (2^(b-1)
///   - 1), z = 2^(b-1)
GroupGrid fit_grid(float low, float high, int bits, ZeroKind zero);

/// How the range of a group is found.
struct RangeSearch {
  int steps = 0;            ///< 0: minimum and maximum as they are; else shrink factors 1 - i/steps are tried
  double max_shrink = 0.8;  ///< i < steps * max_shrink  (GPTQ's published search: 100 steps, 0.8)
  double norm = 2.4;        ///< the loss is sum_j h_j |w_j - q_j|^norm
};
/// The grid of `count` weights; `importance` (h, may be null: ones) weighs their errors in the search.
GroupGrid fit_group(const float* weights, int64_t count, const GridOptions& grid, const RangeSearch& search = {},
                    const float* importance = nullptr);

/// An empty QuantTensor of the right sizes for W [rows, columns].
QuantTensor empty_quant_tensor(int64_t rows, int64_t columns, const GridOptions& grid, GroupAxis axis = GroupAxis::input);
/// Stores a group's grid at index `group` of scales / zero points / minimums; throws ModelError when the scale is not finite in
/// binary16.
void store_grid(QuantTensor& tensor, int64_t index, const GroupGrid& grid);
GroupGrid stored_grid(const QuantTensor& tensor, int64_t index);

/// Rounds W [rows, columns] to nearest, every group on its own grid. `importance` [columns] weighs errors in the range search
/// (axis input only).
QuantTensor quantize_groups(const torch::Tensor& weight, const GridOptions& grid, GroupAxis axis = GroupAxis::input,
                            const RangeSearch& search = {}, const torch::Tensor& importance = {});
/// dequantize(quantize_groups(W)) without making codes: what searches call thousands of times.
torch::Tensor fake_quantize(const torch::Tensor& weight, const GridOptions& grid, GroupAxis axis = GroupAxis::input);
/// dequantize() as a tensor [rows, columns].
torch::Tensor dequantized(const QuantTensor& tensor);

}  // namespace lighten
