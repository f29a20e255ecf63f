// The blocked optimal-brain-surgeon sweep of GPTQ, with a pluggable quantizer of columns.
#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <functional>

#include "lighten/compress/hessian.h"
#include "lighten/compress/quantizer.h"

namespace lighten {

/// One column of a few neighbouring rows, about to be rounded.
struct ColumnSlice {
  int64_t position;  ///< in the order of the sweep
  int64_t column;    ///< in W
  int64_t first_row, rows;
  const float*
      ahead;  ///< [ahead_columns, rows]: present weights at positions position, position + 1, ... to the end of the lazy block
  int64_t ahead_columns;
};

/// Chooses the values of columns. Called from several threads, each with its own rows; for given rows the positions come in
/// order.
class ColumnQuantizer {
 public:
  virtual ~ColumnQuantizer() = default;
  /// Lazy blocks are multiples of this (a group's weights are then all in `ahead` when its first column comes).
  virtual int64_t column_multiple() const { return 1; }
  /// Slices hold multiples of this many rows (groups along outputs, vector codebooks).
  virtual int64_t row_multiple() const { return 1; }
  /// Writes the rounded values of slice.ahead[0 .. rows) and keeps their codes.
  virtual void quantize(const ColumnSlice& slice, float* values) = 0;
};

/// For every column j in order: q = Q(w_j); e = (w_j - q) / U_jj; W[:, j:] -= e U[j, j:], in lazy blocks of `block` columns.
/// W [rows, columns] float32 in W's own column order; on return it holds the rounded values. Dead columns are set to zero
/// first. Source: arXiv 2210.17323, algorithm 1.
void obs_sweep(torch::Tensor& weight, const HessianFactor& factor, ColumnQuantizer& quantizer, int64_t block = 128);

/// Scalar groups. Along inputs the grid is found when the sweep enters the group (dynamic), or before the sweep from the
/// weights as they are (static: needed when the factor's order is not the identity). Along outputs every column gets its grids
/// when it is rounded.
class GroupColumnQuantizer : public ColumnQuantizer {
 public:
  GroupColumnQuantizer(const torch::Tensor& weight, const GridOptions& grid, GroupAxis axis = GroupAxis::input,
                       bool static_groups = false, const RangeSearch& search = {}, const torch::Tensor& importance = {});
  int64_t column_multiple() const override;
  int64_t row_multiple() const override;
  void quantize(const ColumnSlice& slice, float* values) override;
  const QuantTensor& result() const { return tensor_; }
  QuantTensor take() { return std::move(tensor_); }

 private:
  QuantTensor tensor_;
  GridOptions grid_;
  bool static_groups_;
  RangeSearch search_;
  std::vector<float> importance_;
};

/// Cyclic coordinate descent on tr((W - Q) H (W - Q)^T) over the codes: every code in turn moves to the level nearest its
/// conditional optimum; with `scales` every group's scale moves first (rounded to binary16). Groups along inputs. Returns the
/// number of codes that moved in the last pass. The objective never rises.
int64_t refine_codes(QuantTensor& tensor, const torch::Tensor& weight, const torch::Tensor& hessian, int passes,
                     bool scales = false);

/// tr((W - Q) H (W - Q)^T) / tr(W H W^T).
double relative_objective(const torch::Tensor& weight, const torch::Tensor& rounded, const torch::Tensor& hessian);

}  // namespace lighten
