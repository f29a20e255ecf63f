// GPTQ's asymmetric target and the low-bit head against direct least squares.
#include "lighten/compress/gptq.h"

#include <gtest/gtest.h>

#include "lighten/compress/calibration.h"
#include "lighten/compress/head.h"
#include "lighten/compress/quantizer.h"
#include "lighten/compress/test_model.h"

namespace lighten {
namespace {

CalibrationRows random_rows(const ModelConfig& config, int64_t count, int64_t row) {
  CalibrationRows rows;
  rows.row = row;
  for (int64_t r = 0; r < count; ++r)
    rows.rows.push_back(test::random_ids(config, static_cast<size_t>(row), 40 + static_cast<uint64_t>(r)));
  return rows;
}

TensorReader reader_of(const ModelConfig& config, uint64_t seed) {
  const auto tensors = std::make_shared<test::Tensors>(test::random_tensors(config, seed));
  return [tensors](const std::string& name) { return tensors->at(name); };
}

torch::Tensor index_of(const CalibrationRows& rows) {
  std::vector<int64_t> ids;
  for (const auto& row : rows.rows) ids.insert(ids.end(), row.begin(), row.end());
  return torch::tensor(ids).reshape({static_cast<int64_t>(rows.rows.size()), rows.row});
}

TEST(Gptq, AsymmetricTargetIsTheLeastSquaresFitToTheFloatOutputs) {
  // At 8 bits rounding hardly matters, so q_proj must come out as the ridge solution of min_V ||X_q V^T - X_f W^T||^2 +
  // ridge ||V - W||^2, here with a quantized stream whose embedding is far off.
  torch::NoGradGuard no_grad;
  const ModelConfig config = test::tiny_llama_linear();
  const TensorReader read = reader_of(config, 3);
  const Decoder model = load_decoder(config, read);
  const torch::Tensor disturbed = model->embedding + 0.3 * torch::randn_like(model->embedding);
  const CalibrationRows rows = random_rows(config, 20, 32);
  Block block = load_block(config, read, 0);
  BlockView view = view_block(block, 0);
  const GptqOptions options{.damping = 1e-4, .asymmetric = true, .asymmetric_damping = 0.02};
  const std::unique_ptr<Rounding> method = make_gptq(options);
  CalibrationStreams streams =
      start_streams(config, model->embedding, disturbed, rows, method->needs(), std::make_shared<SpillBudget>());
  BlockCalibration calibration(view, streams);
  const torch::Tensor w = view.linear("self_attn.q_proj").module->weight.detach().to(torch::kDouble).clone();
  const auto inputs = [&](const torch::Tensor& embedding) {
    return block->input_norm->forward(torch::embedding(embedding, index_of(rows))).flatten(0, 1).to(torch::kDouble);
  };
  const torch::Tensor xf = inputs(model->embedding), xq = inputs(disturbed);
  const torch::Tensor gram = xq.t().mm(xq), eye = torch::eye(gram.size(0), torch::kDouble);
  const torch::Tensor ridge = 0.02 * gram.diagonal().mean() * eye;
  const torch::Tensor expected = torch::linalg_solve(gram + ridge, xq.t().mm(xf).mm(w.t()) + ridge.mm(w.t())).t();
  const auto codes = method->round(view, calibration, {.bits = 8, .group_size = 32});
  const torch::Tensor got = dequantized(codes.at("self_attn.q_proj")).to(torch::kDouble);
  EXPECT_LT(((got - expected).norm() / expected.norm()).item<double>(), 0.01);
  EXPECT_GT(((w - expected).norm() / expected.norm()).item<double>(), 0.05);
}

TEST(Head, HessianIsThatOfTheFinalNormsOutputs) {
  torch::NoGradGuard no_grad;
  for (const ModelConfig& config : test::tiny_configs()) {
    const TensorReader read = reader_of(config, 4);
    Decoder model = load_decoder(config, read);
    const CalibrationRows rows = random_rows(config, 5, 24);
    const torch::Tensor hidden = model->hidden_states(index_of(rows).slice(0, 0, 3));
    const torch::Tensor x = model->final_norm->forward(hidden).flatten(0, 1).to(torch::kDouble);
    const torch::Tensor expected = x.t().mm(x) * (2.0 / static_cast<double>(x.size(0)));
    int64_t steps = 0;
    const torch::Tensor got = head_hessian(load_ends(config, read), read, rows, 3, [&] { ++steps; });
    EXPECT_EQ(steps, config.layers);
    EXPECT_LT(((got - expected).norm() / expected.norm()).item<double>(), 1e-5) << config.name;
  }
}

TEST(Head, RoundingAimsAtTheLogitsAndSlicesMakeNoDifference) {
  torch::NoGradGuard no_grad;
  torch::manual_seed(5);
  const int64_t width = 64, vocabulary = 40000;  // more rows than are rounded at once
  const torch::Tensor w = torch::randn({vocabulary, width});
  const torch::Tensor x = torch::randn({500, 8}).mm(torch::randn({8, width})) + 0.3 * torch::randn({500, width});
  const torch::Tensor hessian = x.t().mm(x).to(torch::kDouble) * (2.0 / 500);
  const GridOptions grid{.bits = 4, .group_size = 32};
  const HeadOptions options;
  int64_t all_steps = 0;
  const QuantTensor head = round_head(w, hessian, grid, options, [&] { ++all_steps; });
  EXPECT_EQ(all_steps, head_steps(vocabulary));
  const QuantTensor nearest = round_head(w, {}, grid, options);
  const auto logit_error = [&](const QuantTensor& tensor) {
    return ((dequantized(tensor) - w).mm(x.t()).norm() / w.mm(x.t()).norm()).item<double>();
  };
  EXPECT_LT(logit_error(head), 0.7 * logit_error(nearest));
  int64_t steps = 0;
  const QuantTensor last = round_head(w.slice(0, 39000), hessian, grid, options, [&] { ++steps; });
  EXPECT_EQ(steps, head_steps(1000));
  EXPECT_TRUE(torch::equal(dequantized(last), dequantized(head).slice(0, 39000)));
}

}  // namespace
}  // namespace lighten
