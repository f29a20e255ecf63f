#include "lighten/compress/head.h"

#include "lighten/base/progress.h"
#include "lighten/compress/gptq.h"
#include "lighten/compress/hessian.h"

namespace lighten {

torch::Tensor head_hessian(const ModelConfig& config, const TensorReader& read, const CalibrationRows& rows,
                           int64_t sample_rows) {
  torch::NoGradGuard no_grad;
  Decoder ends = load_ends(config, read);
  std::vector<torch::Tensor> hidden;
  for (int64_t r = 0; r < std::min<int64_t>(sample_rows, static_cast<int64_t>(rows.rows.size())); ++r) {
    const std::vector<int32_t>& row = rows.rows[static_cast<size_t>(r)];
    hidden.push_back(ends->embed(torch::tensor(std::vector<int64_t>(row.begin(), row.end())).unsqueeze(0)));
  }
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    Block block = load_block(config, read, layer);
    for (torch::Tensor& x : hidden) {
      check_interrupt();
      x = block->forward(x);
    }
  }
  HessianAccumulator sum(config.hidden_size);
  for (const torch::Tensor& x : hidden) sum.add(ends->final_norm->forward(x));
  return sum.hessian();
}

QuantTensor round_head(const torch::Tensor& weight, const torch::Tensor& hessian, const GridOptions& grid,
                       const HeadOptions& options) {
  if (!hessian.defined()) return quantize_groups(weight, grid, GroupAxis::input, {.steps = 100, .norm = 2.0});
  return gptq_round(weight, hessian, grid, {.damping = options.damping, .mse = true});
}

}  // namespace lighten
