#include "lighten/systems/quantization/awq/awq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/compress/fold.h"
#include "lighten/compress/quantizer.h"
#include "lighten/compress/rtn.h"
#include "lighten/data/packages.h"
#include "lighten/nn/tiny_model.h"

namespace lighten {
namespace {

using Matrix = std::vector<std::vector<double>>;

Decoder tiny_decoder(ModelConfig config, uint64_t seed = 3) {
  const TensorTable table = random_tensors(config, seed);
  return load_decoder(config, [&](const std::string& name) { return table.at(name); });
}

CalibrationRows random_rows(int64_t rows, int64_t row, int64_t vocabulary, uint64_t seed) {
  Random random(seed);
  CalibrationRows result;
  result.row = row;
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<int32_t>& ids = result.rows.emplace_back();
    for (int64_t t = 0; t < row; ++t) ids.push_back(static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary))));
  }
  return result;
}

CalibrationStreams streams_for(const Decoder& model, const CalibrationRows& rows) {
  return start_streams(model->config, model->embedding, model->embedding, rows, {.float_statistics = true},
                       std::make_shared<SpillBudget>());
}

double relative_difference(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a - b).to(torch::kDouble).norm() / b.to(torch::kDouble).norm()).item<double>();
}

/// Folds s(alpha) into every set of every block.
void fold_all(Decoder& model, const CalibrationRows& rows, double alpha) {
  CalibrationStreams streams = streams_for(model, rows);
  for (size_t layer = 0; layer < model->blocks.size(); ++layer) {
    BlockView view = view_block(model->blocks[layer], static_cast<int64_t>(layer));
    BlockCalibration calibration(view, streams);
    for (const ScaleSet& set : scale_sets(view))
      fold_input_scale(view, calibration, set.linears, awq_scale(calibration.mean_abs(set.linears.front()), alpha));
    calibration.finish();
  }
}

// ---- The formula, written out with plain loops.

Matrix rows_of(const torch::Tensor& tensor) {
  const torch::Tensor flat = tensor.detach().reshape({-1, tensor.size(-1)}).to(torch::kDouble).contiguous();
  Matrix rows(static_cast<size_t>(flat.size(0)), std::vector<double>(static_cast<size_t>(flat.size(1))));
  for (size_t i = 0; i < rows.size(); ++i)
    for (size_t j = 0; j < rows[i].size(); ++j)
      rows[i][j] = flat[static_cast<int64_t>(i)][static_cast<int64_t>(j)].item<double>();
  return rows;
}

Matrix product(const Matrix& x, const Matrix& w) {
  Matrix y(x.size(), std::vector<double>(w.size(), 0));
  for (size_t t = 0; t < x.size(); ++t)
    for (size_t o = 0; o < w.size(); ++o)
      for (size_t j = 0; j < w[o].size(); ++j) y[t][o] += x[t][j] * w[o][j];
  return y;
}

/// Q(W diag s) diag(1/s) on an asymmetric grid with integer zero points, group by group.
Matrix rounded_with_scale(const Matrix& w, const std::vector<double>& s, int bits, size_t group) {
  Matrix rounded = w;
  const double last = std::pow(2.0, bits) - 1;
  for (auto& row : rounded)
    for (size_t first = 0; first < row.size(); first += group) {
      double low = 0, high = 0;
      for (size_t j = first; j < first + group; ++j) {
        low = std::min(low, row[j] * s[j]);
        high = std::max(high, row[j] * s[j]);
      }
      const double scale = round_to_half(static_cast<float>(std::max(high - low, 1e-5) / last));
      const double zero = std::clamp(std::nearbyint(-low / scale), 0.0, last);
      for (size_t j = first; j < first + group; ++j)
        row[j] = scale * (std::clamp(std::nearbyint(row[j] * s[j] / scale) + zero, 0.0, last) - zero) / s[j];
    }
  return rounded;
}

std::vector<double> scale_of(const std::vector<double>& mean_abs, double alpha) {
  std::vector<double> s;
  for (const double a : mean_abs) s.push_back(std::max(std::pow(a, alpha), 1e-4));
  const double middle = std::sqrt(*std::max_element(s.begin(), s.end()) * *std::min_element(s.begin(), s.end()));
  for (double& v : s) v /= middle;
  return s;
}

std::vector<double> column_mean_abs(const Matrix& x) {
  std::vector<double> mean(x[0].size(), 0);
  for (const auto& row : x)
    for (size_t j = 0; j < row.size(); ++j) mean[j] += std::abs(row[j]) / static_cast<double>(x.size());
  return mean;
}

Matrix swiglu(const Matrix& x, const Matrix& gate, const Matrix& up) {
  Matrix h = product(x, gate);
  const Matrix u = product(x, up);
  for (size_t t = 0; t < h.size(); ++t)
    for (size_t j = 0; j < h[t].size(); ++j) h[t][j] = h[t][j] / (1 + std::exp(-h[t][j])) * u[t][j];
  return h;
}

double mean_squared_difference(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (size_t t = 0; t < a.size(); ++t)
    for (size_t j = 0; j < a[t].size(); ++j) sum += (a[t][j] - b[t][j]) * (a[t][j] - b[t][j]);
  return sum / static_cast<double>(a.size() * a[0].size());
}

/// What search_scale() must have found, given the loss of every alpha.
void expect_choice(const ScaleChoice& choice, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(choice.losses.size(), expected.size());
  size_t best = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] < expected[best]) best = i;
    if (std::isfinite(choice.losses[i])) {
      EXPECT_NEAR(choice.losses[i] / expected[i], 1, tolerance) << "alpha step " << i;
    } else {  // given up: it was above the best so far
      EXPECT_GT(expected[i], *std::min_element(expected.begin(), expected.begin() + static_cast<long>(i)))
          << "alpha step " << i;
    }
  }
  EXPECT_DOUBLE_EQ(choice.alpha, static_cast<double>(best) / static_cast<double>(expected.size()));
  EXPECT_NEAR(choice.loss / expected[best], 1, tolerance);
}

/// A llama block without biases whose input channels differ widely in size, as in trained models.
class SmallBlock : public testing::Test {
 protected:
  SmallBlock() {
    ModelConfig config = tiny_config(Architecture::llama);
    config.attention_bias = config.output_bias = config.mlp_bias = false;
    model = tiny_decoder(config);
    torch::NoGradGuard no_grad;
    for (Block& block : model->blocks) {
      block->input_norm->weight.mul_(torch::logspace(-1, 1, 12).index({torch::tensor({3, 0, 7, 9, 1, 11, 4, 2, 8, 10, 5, 6})}));
      block->post_attention_norm->weight.mul_(torch::logspace(1, -1, 12));
    }
    rows = random_rows(5, 24, config.vocab_size, 7);
    streams = streams_for(model, rows);
    view = view_block(model->blocks[0], 0);
    calibration = std::make_unique<BlockCalibration>(view, streams);
  }
  Matrix weight(const std::string& name) { return rows_of(view.linear(name).module->weight); }
  const GridOptions grid{.bits = 3, .group_size = 4};
  Decoder model{nullptr};
  CalibrationRows rows;
  CalibrationStreams streams;
  BlockView view;
  std::unique_ptr<BlockCalibration> calibration;
};

TEST_F(SmallBlock, ChosenExponentOfGateAndUpIsBruteForcesBest) {
  const Matrix x = rows_of(calibration->sample_inputs("mlp.gate_proj"));
  const Matrix gate = weight("mlp.gate_proj"), up = weight("mlp.up_proj"), down = weight("mlp.down_proj");
  const Matrix wanted = product(swiglu(x, gate, up), down);
  std::vector<double> losses;
  for (int step = 0; step < 20; ++step) {
    const auto s = scale_of(column_mean_abs(x), step / 20.0);
    losses.push_back(mean_squared_difference(
        product(swiglu(x, rounded_with_scale(gate, s, 3, 4), rounded_with_scale(up, s, 3, 4)), down), wanted));
  }
  const ScaleChoice choice = search_scale(view, *calibration, {{"mlp.gate_proj", "mlp.up_proj"}, "mlp"}, grid);
  expect_choice(choice, losses, 1e-4);
  EXPECT_GT(choice.alpha, 0);
  const auto s = scale_of(column_mean_abs(x), choice.alpha);
  for (size_t j = 0; j < s.size(); ++j)
    EXPECT_NEAR(choice.scale[static_cast<int64_t>(j)].item<double>() / s[j], 1, 1e-5) << "channel " << j;
}

TEST_F(SmallBlock, ChosenExponentOfDownIsBruteForcesBest) {
  const Matrix x = rows_of(calibration->sample_inputs("mlp.down_proj")), w = weight("mlp.down_proj");
  std::vector<double> losses;
  for (int step = 0; step < 20; ++step)
    losses.push_back(mean_squared_difference(product(x, rounded_with_scale(w, scale_of(column_mean_abs(x), step / 20.0), 3, 4)),
                                             product(x, w)));
  expect_choice(search_scale(view, *calibration, {{"mlp.down_proj"}, "mlp.down_proj"}, grid), losses, 1e-4);
}

TEST_F(SmallBlock, ChosenExponentOfQueriesKeysAndValuesIsBruteForcesBest) {
  const torch::Tensor input = calibration->sample_inputs("self_attn.q_proj");
  const Matrix x = rows_of(input);
  const RotaryTables rotary = rotary_tables(model->config.rope, 6, 24, torch::kFloat64);
  const auto tensor = [](const Matrix& m) {
    torch::Tensor t = torch::empty({static_cast<int64_t>(m.size()), static_cast<int64_t>(m[0].size())}, torch::kFloat64);
    for (size_t i = 0; i < m.size(); ++i) t[static_cast<int64_t>(i)] = torch::tensor(m[i], torch::kFloat64);
    return t;
  };
  // softmax(q k^T / sqrt(d)) v, head by head, two query heads to a key head.
  const auto attention = [&](const Matrix& wq, const Matrix& wk, const Matrix& wv) {
    const torch::Tensor q = tensor(product(x, wq)).reshape({-1, 24, 4, 6}), k = tensor(product(x, wk)).reshape({-1, 24, 2, 6}),
                        v = tensor(product(x, wv)).reshape({-1, 24, 2, 6});
    torch::Tensor context = torch::zeros({q.size(0), 24, 24}, torch::kFloat64);
    for (int64_t b = 0; b < q.size(0); ++b)
      for (int64_t head = 0; head < 4; ++head) {
        const torch::Tensor turned_q = rotate(q[b].select(1, head), rotary),
                            turned_k = rotate(k[b].select(1, head / 2), rotary);
        for (int64_t t = 0; t < 24; ++t) {
          const torch::Tensor p = torch::softmax(turned_k.slice(0, 0, t + 1).mv(turned_q[t]) / std::sqrt(6.0), 0);
          context[b][t].slice(0, head * 6, head * 6 + 6) = v[b].select(1, head / 2).slice(0, 0, t + 1).t().mv(p);
        }
      }
    return product(rows_of(context), weight("self_attn.o_proj"));
  };
  const Matrix q = weight("self_attn.q_proj"), k = weight("self_attn.k_proj"), v = weight("self_attn.v_proj");
  const Matrix wanted = attention(q, k, v);
  std::vector<double> losses;
  for (int step = 0; step < 5; ++step) {
    const auto s = scale_of(column_mean_abs(x), step / 5.0);
    losses.push_back(mean_squared_difference(
        attention(rounded_with_scale(q, s, 3, 4), rounded_with_scale(k, s, 3, 4), rounded_with_scale(v, s, 3, 4)), wanted));
  }
  const ScaleSet set{{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, "self_attn"};
  expect_choice(search_scale(view, *calibration, set, grid, {.scale_steps = 5}), losses, 1e-3);
}

TEST_F(SmallBlock, SearchLeavesTheWeightsAsTheyWere) {
  const torch::Tensor before = view.linear("mlp.up_proj").module->weight.clone();
  search_scale(view, *calibration, {{"mlp.gate_proj", "mlp.up_proj"}, "mlp"}, grid);
  EXPECT_TRUE(torch::equal(view.linear("mlp.up_proj").module->weight, before));
}

TEST_F(SmallBlock, DuoScalingAlsoDividesByTheWeightsFill) {
  // With alpha 0 alone tried: s = 1 / (w + 1e-4), w_j = mean over rows of |W_ij| / max of its group.
  const Matrix w = weight("mlp.down_proj");
  std::vector<double> s(w[0].size(), 0);
  for (const auto& row : w)
    for (size_t j = 0; j < row.size(); ++j) {
      double most = 0;
      for (size_t i = j / 4 * 4; i < j / 4 * 4 + 4; ++i) most = std::max(most, std::abs(row[i]));
      s[j] += std::abs(row[j]) / most / static_cast<double>(w.size());
    }
  for (double& v : s) v = 1 / (v + 1e-4);
  const double middle = std::sqrt(*std::max_element(s.begin(), s.end()) * *std::min_element(s.begin(), s.end()));
  const ScaleChoice choice =
      search_scale(view, *calibration, {{"mlp.down_proj"}, "mlp.down_proj"}, grid, {.scale_steps = 1, .duo_scaling = true});
  for (size_t j = 0; j < s.size(); ++j)
    EXPECT_NEAR(choice.scale[static_cast<int64_t>(j)].item<double>() * middle / s[j], 1, 1e-5) << "channel " << j;
}

TEST_F(SmallBlock, RoundingClampsEveryLinearButQueriesAndKeys) {
  std::map<std::string, torch::Tensor> plain, before;
  for (const LinearView& linear : view.linears) {
    plain[linear.name] = fake_quantize(linear.module->weight, grid);
    before[linear.name] = linear.module->weight.detach().clone();
  }
  const auto codes = make_awq_rounding()->round(view, *calibration, grid);
  ASSERT_EQ(codes.size(), 7u);
  for (const LinearView& linear : view.linears) {
    const bool product_of_two = linear.name == "self_attn.q_proj" || linear.name == "self_attn.k_proj";
    EXPECT_EQ(torch::equal(linear.module->weight, plain[linear.name]), product_of_two) << linear.name;
    EXPECT_TRUE(torch::equal(linear.module->weight, dequantized(codes.at(linear.name)))) << linear.name;
    // Never worse than plain rounding, group by group, on the tokens it looked at.
    const torch::Tensor x = calibration->sample_inputs(linear.name).flatten(0, 1);
    for (int64_t first = 0; first < x.size(1); first += 4) {
      const auto error = [&](const torch::Tensor& w) {
        return (w - before[linear.name]).slice(1, first, first + 4).mm(x.slice(1, first, first + 4).t()).square().sum(1);
      };
      const torch::Tensor gain = error(plain[linear.name]) * (1 + 1e-4) + 1e-6 - error(linear.module->weight);
      EXPECT_GE(gain.min().item<float>(), 0) << linear.name << ", group at " << first;
    }
  }
}

TEST_F(SmallBlock, TransformThenRoundingBeatsPlainRoundingInEveryInspectedModule) {
  const torch::Tensor mlp_in = calibration->module_inputs("mlp").clone(), mlp_out = calibration->module_outputs("mlp").clone();
  Decoder plain = tiny_decoder(model->config);  // the same seed: the same weights
  for (const LinearView& linear : view.linears) {
    BlockView other = view_block(plain->blocks[0], 0);
    torch::NoGradGuard no_grad;
    other.linear(linear.name).module->weight.copy_(fake_quantize(linear.module->weight, grid));
  }
  const double plain_error = relative_difference(plain->blocks[0]->mlp->forward(mlp_in), mlp_out);
  make_awq()->apply(view, *calibration, grid);
  make_awq_rounding()->round(view, *calibration, grid);
  const double awq_error = relative_difference(calibration->run_module("mlp", calibration->module_inputs("mlp")), mlp_out);
  EXPECT_LT(awq_error, 0.8 * plain_error);
}

TEST(Awq, ScaleHasUnitMiddleAndFollowsThePowerLaw) {
  const torch::Tensor a = torch::tensor({0.01f, 4.0f, 0.25f, 1.0f});
  EXPECT_TRUE(torch::allclose(awq_scale(a, 0), torch::ones({4})));
  const torch::Tensor s = awq_scale(a, 0.5);  // square roots 0.1, 2, 0.5, 1; middle sqrt(0.2)
  EXPECT_TRUE(torch::allclose(s, torch::tensor({0.1f, 2.0f, 0.5f, 1.0f}) / std::sqrt(0.2f)));
  const torch::Tensor dead = awq_scale(torch::tensor({0.0f, 1.0f}), 0.5);  // kept at 1e-4: ratio 10^4
  EXPECT_NEAR((dead[1] / dead[0]).item<double>(), 1e4, 1);
}

TEST(Awq, OutputOfAttentionIsASetOnlyWhereValuesHaveItsWidth) {
  ModelConfig config = tiny_config(Architecture::llama);
  const auto names = [](const ModelConfig& c) {
    Decoder model = tiny_decoder(c);
    std::vector<std::string> inspected;
    for (const ScaleSet& set : scale_sets(view_block(model->blocks[0], 0))) inspected.push_back(set.inspected);
    return inspected;
  };
  EXPECT_EQ(names(config), (std::vector<std::string>{"self_attn", "mlp", "mlp.down_proj"}));
  config.kv_heads = config.heads;
  EXPECT_EQ(names(config), (std::vector<std::string>{"self_attn", "self_attn.o_proj", "mlp", "mlp.down_proj"}));
}

TEST(Awq, ScalesFoldWithoutChangingTheFloatModelOfAnyArchitecture) {
  for (const Architecture architecture : {Architecture::llama, Architecture::qwen2, Architecture::qwen3, Architecture::gemma3})
    for (const bool grouped : {true, false}) {
      ModelConfig config = tiny_config(architecture);
      if (!grouped) config.kv_heads = config.heads;
      Decoder model = tiny_decoder(config);
      const CalibrationRows rows = random_rows(3, 20, config.vocab_size, 5);
      const torch::Tensor ids = torch::randint(config.vocab_size, {2, 30}, torch::kLong);
      torch::NoGradGuard no_grad;
      const torch::Tensor before = model->forward(ids).clone(), norm = model->blocks[0]->input_norm->weight.clone();
      fold_all(model, rows, 0.7);
      EXPECT_GT(relative_difference(model->blocks[0]->input_norm->weight, norm), 0.01) << "nothing was folded";
      EXPECT_LT(relative_difference(model->forward(ids), before), 1e-5)
          << "architecture " << static_cast<int>(architecture) << ", grouped " << grouped;
    }
}

TEST(Awq, OutlierChannelKeepsMorePrecisionThanWithRoundToNearest) {
  // One input channel of down is 50 times the others. Rounding errors of its weights then dominate; with the scale they shrink.
  ModelConfig config = tiny_config(Architecture::llama);
  config.attention_bias = config.output_bias = config.mlp_bias = false;
  Decoder model = tiny_decoder(config);
  {
    torch::NoGradGuard no_grad;
    model->blocks[0]->mlp->up_proj->weight[13].mul_(50);
  }
  CalibrationStreams streams = streams_for(model, random_rows(4, 32, config.vocab_size, 9));
  BlockView view = view_block(model->blocks[0], 0);
  BlockCalibration calibration(view, streams);
  const GridOptions grid{.bits = 3, .group_size = 20};
  const ScaleChoice choice = search_scale(view, calibration, {{"mlp.down_proj"}, "mlp.down_proj"}, grid);
  EXPECT_EQ(choice.scale.argmax().item<int64_t>(), 13);
  EXPECT_LT(choice.loss, 0.25 * choice.losses[0]);
  const torch::Tensor w = view.linear("mlp.down_proj").module->weight.detach();
  const auto channel_error = [&](const torch::Tensor& rounded) { return (rounded - w).select(1, 13).norm().item<double>(); };
  EXPECT_LT(channel_error(fake_quantize(w * choice.scale, grid) / choice.scale), 0.5 * channel_error(fake_quantize(w, grid)));
}

TEST(Awq, AsksForCalibrationText) {
  Decoder model = tiny_decoder(tiny_config(Architecture::qwen3));
  CalibrationStreams streams;
  BlockView view = view_block(model->blocks[0], 0);
  BlockCalibration calibration(view, streams);
  EXPECT_THROW(make_awq()->apply(view, calibration, {.bits = 4, .group_size = 4}), CalibrationError);
}

TEST(Awq, RefusesAGroupSizeThatDoesNotDivideTheWidthAndNamesTheTensor) {
  const ModelConfig config = tiny_config(Architecture::qwen2);
  Decoder model = tiny_decoder(config);
  CalibrationStreams streams = streams_for(model, random_rows(2, 16, config.vocab_size, 5));
  BlockView view = view_block(model->blocks[0], 0);
  BlockCalibration calibration(view, streams);
  try {
    make_awq()->apply(view, calibration, {.bits = 4, .group_size = 8});
    FAIL() << "8 does not divide 12";
  } catch (const OptionError& error) {
    EXPECT_NE(std::string(error.what()).find("self_attn.q_proj"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("12"), std::string::npos) << error.what();
  }
}

TEST(Awq, OnAWholeModelHandsOutWhatTheModelComputesWithAndLosesLessThanRoundToNearest) {
  torch::NoGradGuard no_grad;
  ModelConfig config = tiny_config(Architecture::llama);
  Decoder model = tiny_decoder(config), plain = tiny_decoder(config);
  for (Decoder* each : {&model, &plain})
    for (Block& block : (*each)->blocks) block->post_attention_norm->weight.mul_(torch::logspace(1, -1, config.hidden_size));
  const CalibrationRows rows = random_rows(22, 24, config.vocab_size, 7);
  const GridOptions grid{.bits = 3, .group_size = 4};
  const RoundedModel rounded = awq(model, rows, grid);
  ASSERT_EQ(rounded.tensors.size(), 7 * model->blocks.size());
  for (const auto& [name, tensor] : rounded.tensors) {
    const size_t layer = static_cast<size_t>(name[std::string("model.layers.").size()] - '0');
    const std::string linear = name.substr(15, name.size() - 15 - std::string(".weight").size());
    BlockView view = view_block(model->blocks[layer], static_cast<int64_t>(layer));
    EXPECT_TRUE(torch::equal(view.linear(linear).module->weight, dequantized(tensor))) << name;
  }
  const std::unique_ptr<Rounding> nearest = make_rtn();
  const RoundedModel rounded_plainly = round_in_memory(plain, rows, nullptr, *nearest, grid);
  ASSERT_EQ(rounded.block_errors.size(), model->blocks.size());
  // The norm's weights blow up a few input channels of the MLP: there scales must help.
  EXPECT_LT(rounded.block_errors[0], 0.9 * rounded_plainly.block_errors[0]);
  CalibrationRows few = rows;
  few.rows.resize(1);
  EXPECT_THROW(awq(model, few, grid), CalibrationError);
}

TEST(Awq, OptionsAreBoundToTheEntryAndValidated) {
  const MethodEntry entry = awq_method();
  EXPECT_TRUE(entry.is_transform && entry.is_rounding);
  const auto* options = static_cast<const AwqOptions*>(entry.options.get());
  set_from_json(entry.described, Json{{"scale-steps", 7}, {"clip", false}});
  EXPECT_EQ(options->scale_steps, 7);
  EXPECT_FALSE(entry.rounding()->needs_calibration());
  EXPECT_THROW(set_from_json(entry.described, Json{{"scale-steps", 0}}), OptionError);
}

/// The first blocks of the real model on real text; skipped where the model has not been fetched.
class RealModel : public testing::Test {
 protected:
  void SetUp() override {
    if (!data_present("smollm2-135m") || !data_present("prose"))
      GTEST_SKIP() << "run `lighten data get smollm2-135m` and `prose`";
    source = open_weights(data_path("smollm2-135m", false));
    rows = read_calibration({data_path("prose", false) / "calibration.txt"}, *source->tokenizer(), {.tokens = 2048});
  }
  std::unique_ptr<WeightSource> source;
  CalibrationRows rows;
};

TEST_F(RealModel, ScalesFoldWithoutChangingTheLogitsOn512Tokens) {
  Decoder model = load_decoder(*source);
  const std::string text = read_file(data_path("prose", false) / "test.txt").substr(0, 8000);
  const std::vector<int32_t> ids = source->tokenizer()->encode(text);
  ASSERT_GE(ids.size(), 512u);
  const torch::Tensor index = torch::tensor(std::vector<int64_t>(ids.begin(), ids.begin() + 512)).unsqueeze(0);
  torch::NoGradGuard no_grad;
  const torch::Tensor before = model->forward(index).clone();
  rows.rows.resize(1);
  fold_all(model, rows, 0.5);
  EXPECT_LT(relative_difference(model->forward(index), before), 1e-5);
}

TEST_F(RealModel, FirstBlockLosesLessThanWithRoundToNearestAtThreeBits) {
  Decoder ends = load_ends(source->config(), [&](const std::string& name) { return source->read(name); });
  Block block = load_block(
      source->config(), [&](const std::string& name) { return source->read(name); }, 0);
  CalibrationStreams streams = streams_for(ends, rows);
  BlockView view = view_block(block, 0);
  BlockCalibration calibration(view, streams);
  const GridOptions grid{.bits = 3, .group_size = 64};
  for (const ScaleSet& set : scale_sets(view)) {
    const ScaleChoice choice = search_scale(view, calibration, set, grid, {.scale_steps = 5});
    EXPECT_GT(choice.alpha, 0) << set.inspected;
    EXPECT_LT(choice.loss, 0.9 * choice.losses[0]) << set.inspected;
  }
}

}  // namespace
}  // namespace lighten
