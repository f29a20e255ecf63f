// AWQ's search for the clipping limit of every group.
#pragma once
#include <torch/torch.h>

#include "lighten/compress/quantizer.h"

namespace lighten {

struct ClipOptions {
  int steps = 20;           ///< limit = max|w| (1 - i / steps)
  double max_shrink = 0.5;  ///< i < steps * max_shrink
};

/// For every (output row, group of inputs) the limit l of [rows, groups] that minimises the squared error of the group's
/// partial output,
///   || X_g (w_g - Q(clamp(w_g, -l, l))) ||^2,
/// computed as delta^T (X_g^T X_g) delta. X [..., in]: the linear's inputs. W [out, in].
/// Source: arXiv 2306.00978 (official auto_clip.py: order of steps).
torch::Tensor search_clip(const torch::Tensor& weight, const torch::Tensor& inputs, const GridOptions& grid,
                          const ClipOptions& options = {});
/// Clamps W in place to the limits [rows, groups].
void apply_clip(torch::Tensor& weight, const torch::Tensor& limits, const GridOptions& grid);

}  // namespace lighten
