// The embedding and the head in few bits: one matrix with two duties when they are tied.
#pragma once
#include <torch/torch.h>

#include <functional>

#include "lighten/compress/calibration.h"
#include "lighten/compress/head_bands.h"
#include "lighten/compress/method.h"
#include "lighten/nn/decoder.h"
#include "lighten/runtime/light_model.h"

namespace lighten {

/// Told of every piece of work that is done: config.layers times by head_hessian(), head_steps() times by the others. May
/// throw.
using HeadStep = std::function<void()>;
/// Calls for so many rows; `bands`: as round_bands() has them (empty: round_head()).
int64_t head_steps(int64_t rows, const std::vector<HeadBand>& bands = {});

/// H = (2 / n) sum_t x_t x_t^T of the head's inputs (the final norm's outputs): the first `count` rows run through the float
/// model, one block in memory at a time.
torch::Tensor head_hessian(Decoder ends, const TensorReader& read, const CalibrationRows& rows, int64_t count,
                           const HeadStep& step = {});

struct HeadOptions {
  /// Times mean(diag H); with a tied head this is the weight of the embedding's own error beside the logits'.
  double damping = 0.1;
  bool mse = true;  ///< range search when a group's grid is found
  int passes = 4;   ///< coordinate-descent passes after the sweep
};

/// Rounds the head [vocab, hidden], tied or not: GPTQ on its Hessian, or (undefined Hessian) to nearest with a range search
/// (100 steps, L2).
QuantTensor round_head(const torch::Tensor& weight, const torch::Tensor& hessian, const GridOptions& grid,
                       const HeadOptions& options = {}, const HeadStep& step = {});

/// round_head() of the rows `order` in bands: the first bands[0].tokens of them in bands[0].bits, and so on. The bands must
/// cover all rows.
BandedTensor round_bands(const torch::Tensor& weight, const torch::Tensor& hessian, const GridOptions& grid,
                         const std::vector<HeadBand>& bands, const std::vector<int32_t>& order, const HeadStep& step = {});

}  // namespace lighten
