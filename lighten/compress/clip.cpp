#include "lighten/compress/clip.h"

#include <algorithm>

#include "lighten/base/error.h"

namespace lighten {
namespace {

int64_t group_length(const torch::Tensor& weight, const GridOptions& grid) {
  const int64_t inputs = weight.size(1), size = grid.group_size == 0 ? inputs : grid.group_size;
  if (inputs % size != 0) throw_error<OptionError>("clip search: group size {} does not divide {} inputs", size, inputs);
  return size;
}

}  // namespace

torch::Tensor search_clip(const torch::Tensor& weight, const torch::Tensor& inputs, const GridOptions& grid,
                          const ClipOptions& options) {
  torch::NoGradGuard no_grad;
  const int64_t size = group_length(weight, grid), rows = weight.size(0), groups = weight.size(1) / size;
  const torch::Tensor w = weight.detach().to(torch::kFloat).reshape({rows, groups, size});
  const torch::Tensor x = inputs.reshape({-1, groups, size}).permute({1, 2, 0});  // [groups, size, tokens]
  const torch::Tensor gram = x.bmm(x.transpose(1, 2));                            // [groups, size, size]
  const torch::Tensor largest = w.abs().amax(-1, /*keepdim=*/true);               // [rows, groups, 1]

  torch::Tensor best_limit = largest, best_loss;
  const int tried = static_cast<int>(std::lround(options.steps * options.max_shrink));
  for (int step = 0; step < std::max(tried, 1); ++step) {
    const torch::Tensor limit = largest * (1.0 - static_cast<double>(step) / options.steps);
    const torch::Tensor clamped = torch::minimum(torch::maximum(w, -limit), limit);
    const torch::Tensor rounded = fake_quantize(clamped.reshape({rows, groups * size}), grid).reshape({rows, groups, size});
    const torch::Tensor delta = (rounded - w).transpose(0, 1);                       // [groups, rows, size]
    const torch::Tensor loss = (delta.bmm(gram) * delta).sum(-1).t().unsqueeze(-1);  // [rows, groups, 1]
    if (!best_loss.defined()) {
      best_loss = loss;
      continue;
    }
    const torch::Tensor better = loss < best_loss;
    best_loss = torch::where(better, loss, best_loss);
    best_limit = torch::where(better, limit, best_limit);
  }
  return best_limit.squeeze(-1);
}

void apply_clip(torch::Tensor& weight, const torch::Tensor& limits, const GridOptions& grid) {
  torch::NoGradGuard no_grad;
  const int64_t size = group_length(weight, grid), rows = weight.size(0), groups = weight.size(1) / size;
  const torch::Tensor limit = limits.reshape({rows, groups, 1});
  const torch::Tensor w = weight.reshape({rows, groups, size});
  weight.copy_(torch::minimum(torch::maximum(w, -limit), limit).reshape({rows, groups * size}));
}

}  // namespace lighten
