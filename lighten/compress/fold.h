// Diagonal scales that are multiplied into a weight and divided out of what feeds it.
#pragma once
#include <string>
#include <vector>

#include "lighten/compress/calibration.h"

namespace lighten {

/// W_l <- W_l diag(s) for the linears `names` (which share one input), and 1/s folded into what feeds them: the norm's weight,
/// or the rows (and bias) of the linear before. The float block computes the same as before; the calibration's cached inputs
/// are kept in step.
///
/// Feeders: "input_layernorm" (q, k, v together), "post_attention_layernorm" (gate, up together), "mlp.up_proj" (down),
/// "self_attn.v_proj" (o; only if v has as many rows as o has inputs: with grouped-query attention the scale cannot be folded
/// there and can_fold() is false). Throws ModelError if names leave out a linear of the same feeder, the fold is impossible or
/// s has the wrong length, is not finite or not positive.
void fold_input_scale(BlockView& view, BlockCalibration& calibration, const std::vector<std::string>& names,
                      const torch::Tensor& scale);
bool can_fold(const BlockView& view, const std::string& linear);

}  // namespace lighten
