#include "lighten/compress/head.h"

#include <algorithm>

#include "lighten/base/progress.h"
#include "lighten/compress/gptq.h"
#include "lighten/compress/hessian.h"

namespace lighten {
namespace {

constexpr int64_t kRowsAtOnce = 1024;  // of the vocabulary: bounds the work space

template <typename T>
void extend(std::vector<T>& all, const std::vector<T>& part) {
  all.insert(all.end(), part.begin(), part.end());
}

void append_rows(QuantTensor& all, const QuantTensor& part) {
  extend(all.codes, part.codes);
  extend(all.scales, part.scales);
  extend(all.zero_points, part.zero_points);
  extend(all.minimums, part.minimums);
  all.rows += part.rows;
}

void done(const HeadStep& step) {
  check_interrupt();
  if (step) step();
}

int64_t steps_of(int64_t rows) { return (rows + kRowsAtOnce - 1) / kRowsAtOnce; }

}  // namespace

int64_t head_steps(int64_t rows, const std::vector<HeadBand>& bands) {
  if (bands.empty()) return steps_of(rows);
  int64_t steps = 0;
  for (const HeadBand& band : bands) steps += steps_of(band.tokens);
  return steps;
}

torch::Tensor head_hessian(Decoder ends, const TensorReader& read, const CalibrationRows& rows, int64_t count,
                           const HeadStep& step) {
  torch::NoGradGuard no_grad;
  const ModelConfig& config = ends->config;
  std::vector<torch::Tensor> hidden;
  for (int64_t r = 0; r < std::min<int64_t>(std::max<int64_t>(count, 1), static_cast<int64_t>(rows.rows.size())); ++r) {
    const std::vector<int32_t>& row = rows.rows[static_cast<size_t>(r)];
    hidden.push_back(ends->embed(torch::tensor(std::vector<int64_t>(row.begin(), row.end())).unsqueeze(0)));
  }
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    Block block = load_block(config, read, layer);
    for (torch::Tensor& x : hidden) {
      check_interrupt();
      x = block->forward(x);
    }
    done(step);
  }
  HessianAccumulator sum(config.hidden_size);
  for (const torch::Tensor& x : hidden) sum.add(ends->final_norm->forward(x));
  return sum.hessian();
}

QuantTensor round_head(const torch::Tensor& weight, const torch::Tensor& hessian, const GridOptions& grid,
                       const HeadOptions& options, const HeadStep& step) {
  const GptqOptions gptq{.damping = options.damping, .mse = options.mse, .passes = options.passes};
  HessianFactor factor;
  if (hessian.defined()) factor = factor_hessian(hessian, {.damping = options.damping});
  QuantTensor all;
  for (int64_t first = 0; first < weight.size(0); first += kRowsAtOnce) {
    const torch::Tensor rows = weight.slice(0, first, std::min(first + kRowsAtOnce, weight.size(0)));
    const QuantTensor part = hessian.defined() ? gptq_round(rows, hessian, factor, grid, gptq)
                                               : quantize_groups(rows, grid, GroupAxis::input, {.steps = 100, .norm = 2.0});
    if (first == 0)
      all = part;
    else
      append_rows(all, part);
    done(step);
  }
  return all;
}

BandedTensor round_bands(const torch::Tensor& weight, const torch::Tensor& hessian, const GridOptions& grid,
                         const std::vector<HeadBand>& bands, const std::vector<int32_t>& order, const HeadStep& step) {
  BandedTensor result;
  result.places.resize(order.size());
  for (size_t place = 0; place < order.size(); ++place)
    result.places[static_cast<size_t>(order[place])] = static_cast<int32_t>(place);
  const torch::Tensor rows = torch::tensor(std::vector<int64_t>(order.begin(), order.end()));
  int64_t first = 0;
  for (const HeadBand& band : bands) {
    GridOptions own = grid;
    own.bits = band.bits;
    const torch::Tensor part = weight.index_select(0, rows.slice(0, first, first + band.tokens));
    result.bands.push_back(round_head(part, hessian, own, {}, step));
    first += band.tokens;
  }
  return result;
}

}  // namespace lighten
