#include "lighten/compress/calibration.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "lighten/base/error.h"
#include "lighten/compress/fold.h"
#include "lighten/compress/hessian.h"
#include "lighten/compress/quantizer.h"
#include "lighten/compress/test_model.h"

namespace lighten {
namespace {

std::shared_ptr<const Tokenizer> tokenizer() { return Tokenizer::from_json(test::byte_tokenizer(), "test"); }

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const CalibrationError& error) {
    return error.what();
  } catch (const FormatError& error) {  // a file that holds no text
    return error.what();
  }
  return "no error";
}

fs::path text_file(const std::string& name, const std::string& text) {
  const fs::path file = test::scratch("calibration-" + name) / "text.txt";
  write_file(file, text);
  return file;
}

TEST(CalibrationText, RowsAreDistinctPiecesOfTheTextAndFollowTheSeed) {
  const std::string text = test::random_text(3000, 3);
  const fs::path file = text_file("rows", text);
  const auto ids = tokenizer()->encode(text);
  ASSERT_EQ(ids.size(), 3000u);
  const CalibrationRows rows = read_calibration({file}, *tokenizer(), {.tokens = 320, .row = 32, .seed = 5});
  ASSERT_EQ(rows.rows.size(), 10u);
  std::set<ptrdiff_t> starts;
  for (const auto& row : rows.rows) {
    ASSERT_EQ(row.size(), 32u);
    const auto at = std::search(ids.begin(), ids.end(), row.begin(), row.end());
    ASSERT_NE(at, ids.end());
    starts.insert(at - ids.begin());
  }
  ASSERT_EQ(starts.size(), 10u);
  for (auto a = starts.begin(), b = std::next(a); b != starts.end(); ++a, ++b) EXPECT_GE(*b - *a, 32);
  EXPECT_EQ(read_calibration({file}, *tokenizer(), {.tokens = 320, .row = 32, .seed = 5}).rows, rows.rows);
  EXPECT_NE(read_calibration({file}, *tokenizer(), {.tokens = 320, .row = 32, .seed = 6}).rows, rows.rows);
}

TEST(CalibrationText, AShortTextGivesTheRowsItHas) {
  const fs::path file = text_file("short", test::random_text(100, 3));
  EXPECT_EQ(read_calibration({file}, *tokenizer(), {.tokens = 3200, .row = 32}).rows.size(), 3u);
}

TEST(CalibrationText, HoldsNoSpecialTokens) {
  Json json = test::byte_tokenizer();
  json["added_tokens"] = Json::array({{{"id", 96},
                                       {"content", "<s>"},
                                       {"single_word", false},
                                       {"lstrip", false},
                                       {"rstrip", false},
                                       {"normalized", false},
                                       {"special", true}}});
  const auto tokenizer = Tokenizer::from_json(json, "tokenizer.json");
  const std::string text = "a<s>b";
  ASSERT_EQ(tokenizer->encode(text).size(), 3u);
  const CalibrationRows rows = read_calibration({text_file("special", text)}, *tokenizer, {.tokens = 5, .row = 5});
  EXPECT_EQ(rows.rows.at(0), tokenizer->encode(text, /*special=*/false));
}

TEST(CalibrationText, EmptyBinaryAndTooShortTextsAreRefusedByName) {
  const auto reading = [](const fs::path& file) {
    return message_of([&] { read_calibration({file}, *tokenizer(), {.tokens = 1024, .row = 512}); });
  };
  const auto contains = [](const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; };
  const fs::path empty = text_file("empty", ""), blank = text_file("blank", "\n \n"),
                 zero = text_file("nul", std::string("ab\0cd", 5));
  const fs::path latin = text_file("latin", "\xe9\xe8\xff\xfe rest"), tiny = text_file("tiny", test::random_text(100, 3));
  for (const fs::path& file : {empty, blank, zero, latin, tiny})
    EXPECT_TRUE(contains(reading(file), file.string())) << reading(file);
  EXPECT_TRUE(contains(reading(empty), "empty"));
  EXPECT_TRUE(contains(reading(blank), "empty"));
  EXPECT_TRUE(contains(reading(zero), "NUL"));
  EXPECT_TRUE(contains(reading(latin), "UTF-8"));
  EXPECT_TRUE(contains(reading(tiny), "holds 100 tokens"));
  EXPECT_THROW(read_calibration({"/nonexistent/file"}, *tokenizer(), {}), FileError);
  EXPECT_TRUE(contains(message_of([] { read_calibration({}, *tokenizer(), {}); }), "--calib"));
}

CalibrationRows random_rows(const ModelConfig& config, int64_t count, int64_t row) {
  CalibrationRows rows;
  rows.row = row;
  for (int64_t r = 0; r < count; ++r)
    rows.rows.push_back(test::random_ids(config, static_cast<size_t>(row), 100 + static_cast<uint64_t>(r)));
  return rows;
}

torch::Tensor ids_of(const CalibrationRows& rows) {
  std::vector<int64_t> ids;
  for (const auto& row : rows.rows) ids.insert(ids.end(), row.begin(), row.end());
  return torch::tensor(ids).reshape({static_cast<int64_t>(rows.rows.size()), rows.row});
}

TensorReader reader_of(const ModelConfig& config, uint64_t seed) {
  const auto tensors = std::make_shared<test::Tensors>(test::random_tensors(config, seed));
  return [tensors](const std::string& name) { return tensors->at(name); };
}

double relative(const torch::Tensor& a, const torch::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

torch::Tensor joined(const ActivationStore& store) {
  std::vector<torch::Tensor> chunks;
  for (int64_t i = 0; i < store.chunks(); ++i) chunks.push_back(store.at(i));
  return torch::cat(chunks);
}

TEST(BlockCalibration, BothStreamsEndWhereTheFloatAndTheRoundedModelEnd) {
  torch::NoGradGuard no_grad;
  for (const ModelConfig& config : test::tiny_configs()) {
    const TensorReader read = reader_of(config, 3);
    const CalibrationRows rows = random_rows(config, 10, 24);
    Decoder model = load_decoder(config, read), rounded = load_decoder(config, read);
    auto budget = std::make_shared<SpillBudget>();
    CalibrationStreams streams = start_streams(config, model->embedding, model->embedding, rows,
                                               {.float_statistics = true, .quantized_stream = true}, budget);
    const GridOptions grid{4, 32, ZeroKind::integer};
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      Block block = load_block(config, read, layer);
      BlockView view = view_block(block, layer);
      BlockCalibration calibration(view, streams);
      for (LinearView& linear : view.linears) {
        calibration.hessian(linear.name, Stream::quantized);
        install(linear.module, quantize_groups(linear.module->weight, grid));
      }
      calibration.finish();
      BlockView other = view_block(rounded->blocks[static_cast<size_t>(layer)], layer);
      for (LinearView& linear : other.linears) install(linear.module, quantize_groups(linear.module->weight, grid));
    }
    const torch::Tensor ids = ids_of(rows);
    EXPECT_LT(relative(joined(*streams.floating), model->hidden_states(ids)), 1e-5);
    EXPECT_LT(relative(joined(*streams.quantized), rounded->hidden_states(ids)), 1e-5);
    EXPECT_GT(relative(joined(*streams.quantized), joined(*streams.floating)), 1e-3);
  }
}

/// One block of a tiny model with both streams (the quantized one starting from a disturbed embedding).
struct OneBlock {
  ModelConfig config = test::tiny_llama_linear();
  TensorReader read = reader_of(config, 5);
  CalibrationRows rows = random_rows(config, 9, 16);
  Decoder model = load_decoder(config, read);
  Block block = load_block(config, read, 0);
  BlockView view = view_block(block, 0);
  torch::Tensor disturbed = model->embedding + 0.05 * torch::ones_like(model->embedding);
  std::shared_ptr<SpillBudget> budget = std::make_shared<SpillBudget>();
  CalibrationStreams streams;
  explicit OneBlock(StreamNeeds needs) { streams = start_streams(config, model->embedding, disturbed, rows, needs, budget); }

  /// Inputs of a linear for residual inputs x, by the observer inside the float modules.
  torch::Tensor inputs(const std::string& name, const torch::Tensor& x) {
    Linear module = view.linear(name).module;
    torch::Tensor seen;
    module->observer = [&](const torch::Tensor& in) { seen = in.clone(); };
    block->forward(x);
    module->observer = {};
    return seen;
  }
};

TEST(BlockCalibration, StatisticsSamplesAndHessiansEqualDirectOnes) {
  torch::NoGradGuard no_grad;
  OneBlock one({.float_inputs = true, .quantized_stream = true});
  const torch::Tensor x = torch::embedding(one.model->embedding, ids_of(one.rows)),
                      xq = torch::embedding(one.disturbed, ids_of(one.rows));
  BlockCalibration calibration(one.view, one.streams);
  for (const LinearView& linear : one.view.linears) {
    const torch::Tensor direct = one.inputs(linear.name, x), direct_q = one.inputs(linear.name, xq);
    const torch::Tensor flat = direct.flatten(0, 1);
    EXPECT_LT(relative(calibration.mean_abs(linear.name), flat.abs().mean(0)), 1e-5);
    EXPECT_LT(relative(calibration.max_abs(linear.name), flat.abs().amax(0)), 1e-6);
    EXPECT_LT(relative(calibration.sample_inputs(linear.name), direct), 1e-6);
    EXPECT_LT(relative(calibration.sample_outputs(linear.name),
                       linear.module->weight.defined() ? torch::linear(direct, linear.module->weight) : direct),
              1e-5);
    EXPECT_EQ(calibration.relative_error(linear.name), 0.0);
    const auto gram = [](const torch::Tensor& in) {
      const torch::Tensor rows = in.flatten(0, 1).to(torch::kDouble);
      return rows.t().mm(rows) * (2.0 / static_cast<double>(rows.size(0)));
    };
    EXPECT_LT(relative(calibration.hessian(linear.name, Stream::floating), gram(direct)), 1e-5);
    EXPECT_LT(relative(calibration.hessian(linear.name, Stream::quantized), gram(direct_q)), 1e-5);
    std::vector<torch::Tensor> a, b;
    calibration.for_each_pair(linear.name, [&](const torch::Tensor& f, const torch::Tensor& q) {
      a.push_back(f.clone());
      b.push_back(q.clone());
    });
    EXPECT_LT(relative(torch::cat(a), direct), 1e-5);
    EXPECT_LT(relative(torch::cat(b), direct_q), 1e-5);
  }
  EXPECT_LT(relative(calibration.run_module("self_attn", calibration.module_inputs("self_attn")),
                     calibration.module_outputs("self_attn")),
            1e-6);
  EXPECT_LT(relative(calibration.run_module("mlp", calibration.module_inputs("mlp")), calibration.module_outputs("mlp")), 1e-6);
}

TEST(BlockCalibration, StatisticsCoverAllRowsAndSearchesTheSampleOnly) {
  torch::NoGradGuard no_grad;
  const ModelConfig config = test::tiny_configs().front();
  const TensorReader read = reader_of(config, 3);
  const Decoder model = load_decoder(config, read);
  const int64_t row = 16, sample = kSampleTokens / row, all = 3 * sample;
  const CalibrationRows rows = random_rows(config, all, row);
  // Rows after the sample come from another distribution: a statistic of the sample alone would miss them.
  const torch::Tensor embedding =
      torch::cat({model->embedding, model->embedding * torch::linspace(0.1, 3, config.hidden_size)});
  CalibrationRows shifted = rows;
  for (int64_t r = sample; r < all; ++r)
    for (int32_t& id : shifted.rows[static_cast<size_t>(r)]) id += static_cast<int32_t>(config.vocab_size);
  const torch::Tensor x = torch::embedding(embedding, ids_of(shifted));
  Block block = load_block(config, read, 0);
  BlockView view = view_block(block, 0);
  for (const bool all_statistics : {true, false}) {
    CalibrationStreams streams =
        start_streams(config, embedding, embedding, shifted, {.float_statistics = all_statistics, .quantized_stream = true},
                      std::make_shared<SpillBudget>());
    BlockCalibration calibration(view, streams);
    const torch::Tensor normed = block->input_norm->forward(x).flatten(0, 1);
    const torch::Tensor sampled = normed.slice(0, 0, sample * row);
    const torch::Tensor expected = (all_statistics ? normed : sampled).abs().mean(0);
    EXPECT_EQ(calibration.tokens(Stream::floating), all_statistics ? all * row : sample * row);
    EXPECT_LT(relative(calibration.mean_abs("self_attn.q_proj"), expected), 1e-5);
    EXPECT_GT(relative(sampled.abs().mean(0), normed.abs().mean(0)), 0.1);
    EXPECT_LT(relative(calibration.sample_inputs("self_attn.q_proj").flatten(0, 1), sampled), 1e-6);
    const torch::Tensor rows_in = normed.to(torch::kDouble);
    EXPECT_LT(relative(calibration.hessian("self_attn.q_proj", Stream::quantized),
                       rows_in.t().mm(rows_in) * (2.0 / static_cast<double>(rows_in.size(0)))),
              1e-5);
  }
}

TEST(BlockCalibration, LaterLinearsSeeTheRoundedOnesBeforeAndThereIsNoWayBack) {
  torch::NoGradGuard no_grad;
  OneBlock one({.quantized_stream = true});
  const torch::Tensor xq = torch::embedding(one.disturbed, ids_of(one.rows));
  BlockCalibration calibration(one.view, one.streams);
  calibration.hessian("self_attn.q_proj", Stream::quantized);
  one.view.linear("self_attn.v_proj").module->weight.mul_(0.5);
  std::vector<torch::Tensor> seen;
  calibration.for_each_input("self_attn.o_proj", Stream::quantized, [&](const torch::Tensor& x) { seen.push_back(x.clone()); });
  EXPECT_LT(relative(torch::cat(seen), one.inputs("self_attn.o_proj", xq)), 1e-5);
  EXPECT_THROW(calibration.hessian("self_attn.q_proj", Stream::quantized), ModelError);
}

TEST(Fold, TheFloatBlockAndTheCalibrationStayInStep) {
  torch::NoGradGuard no_grad;
  OneBlock one({.float_inputs = true, .quantized_stream = true});
  const torch::Tensor x = torch::embedding(one.model->embedding, ids_of(one.rows));
  const torch::Tensor before = one.block->forward(x);
  BlockCalibration calibration(one.view, one.streams);
  torch::manual_seed(1);
  const auto scale = [](int64_t n) { return torch::rand({n}) * 3 + 0.2; };
  fold_input_scale(one.view, calibration, {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
                   scale(one.config.hidden_size));
  fold_input_scale(one.view, calibration, {"mlp.gate_proj", "mlp.up_proj"}, scale(one.config.hidden_size));
  fold_input_scale(one.view, calibration, {"mlp.down_proj"}, scale(one.config.intermediate_size));
  EXPECT_LT(relative(one.block->forward(x), before), 1e-5);
  for (const LinearView& linear : one.view.linears) {
    EXPECT_LT(calibration.relative_error(linear.name), 1e-10) << linear.name;
    EXPECT_LT(relative(calibration.sample_inputs(linear.name), one.inputs(linear.name, x)), 1e-5) << linear.name;
    EXPECT_LT(relative(calibration.mean_abs(linear.name), one.inputs(linear.name, x).flatten(0, 1).abs().mean(0)), 1e-5)
        << linear.name;
  }
  const torch::Tensor in = one.inputs("mlp.down_proj", x).flatten(0, 1).to(torch::kDouble);
  EXPECT_LT(
      relative(calibration.hessian("mlp.down_proj", Stream::floating), in.t().mm(in) * (2.0 / static_cast<double>(in.size(0)))),
      1e-5);
}

TEST(Fold, WhatCannotBeFoldedIsRefused) {
  OneBlock one({});
  BlockCalibration calibration(one.view, one.streams);
  EXPECT_FALSE(can_fold(one.view, "self_attn.o_proj"));  // one key head serves four query heads
  EXPECT_TRUE(can_fold(one.view, "mlp.down_proj"));
  const int64_t hidden = one.config.hidden_size;
  EXPECT_THROW(fold_input_scale(one.view, calibration, {"self_attn.o_proj"}, torch::ones({hidden})), ModelError);
  EXPECT_THROW(fold_input_scale(one.view, calibration, {"self_attn.q_proj"}, torch::ones({hidden})), ModelError);
  EXPECT_THROW(fold_input_scale(one.view, calibration, {"mlp.down_proj"}, torch::ones({hidden + 1})), ModelError);
  EXPECT_THROW(fold_input_scale(one.view, calibration, {"mlp.down_proj"}, torch::zeros({one.config.intermediate_size})),
               ModelError);
}

TEST(ActivationStore, SpilledChunksHoldTheSameValuesAndCanBeWritten) {
  auto budget = std::make_shared<SpillBudget>();
  budget->limit = 100 * sizeof(float);
  budget->folder = test::scratch("spill");
  ActivationStore store(budget);
  const torch::Tensor values = torch::arange(96, torch::kFloat).reshape({2, 4, 12});
  store.append(values);
  store.append(values + 1);
  EXPECT_EQ(budget->used, 96 * sizeof(float));
  EXPECT_EQ(budget->spilled, 96 * sizeof(float));
  torch::Tensor(store.at(1)).mul_(2);
  EXPECT_TRUE(torch::equal(store.at(0), values));
  EXPECT_TRUE(torch::equal(store.at(1), (values + 1) * 2));
  EXPECT_TRUE(fs::is_empty(budget->folder));  // unlinked: nothing is left behind by a crash
  store.clear();
  EXPECT_EQ(budget->used, 0u);
}

}  // namespace
}  // namespace lighten
