#include "lighten/nn/decoder.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"
#include "lighten/nn/tiny_model.h"

namespace lighten {
namespace {

Decoder tiny_decoder(Architecture architecture, uint64_t seed = 1) {
  const ModelConfig config = tiny_config(architecture);
  const TensorTable table = random_tensors(config, seed);
  return load_decoder(config, [&](const std::string& name) { return table.at(name); });
}

double largest_difference(const torch::Tensor& a, const torch::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(Rotary, TablesHoldTheCosineAndSineOfPositionTimesFrequency) {
  const RotaryTables tables = rotary_tables({.base = 100}, 4, 6, torch::kFloat64);
  ASSERT_EQ(tables.cos.sizes(), (std::vector<int64_t>{6, 4}));
  for (int64_t t = 0; t < 6; ++t) {
    const double slow = 0.1 * static_cast<double>(t);  // 100^(-2/4)
    const std::vector<double> angles = {static_cast<double>(t), slow, static_cast<double>(t), slow};
    for (int64_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(tables.cos[t][i].item<double>(), std::cos(angles[static_cast<size_t>(i)]), 1e-15);
      EXPECT_NEAR(tables.sin[t][i].item<double>(), std::sin(angles[static_cast<size_t>(i)]), 1e-15);
    }
  }
}

TEST(Rotary, ScoresDependOnDistanceOnlyAndLengthsStay) {
  const RotaryTables tables = rotary_tables({.base = 10000}, 8, 40, torch::kFloat64);
  const auto q = torch::randn({8}, torch::kFloat64), k = torch::randn({8}, torch::kFloat64);
  const auto turned_q = rotate(q.expand({40, 8}), tables), turned_k = rotate(k.expand({40, 8}), tables);
  const double near_start = (turned_q[7] * turned_k[2]).sum().item<double>();
  const double far_out = (turned_q[39] * turned_k[34]).sum().item<double>();
  EXPECT_NEAR(near_start, far_out, 1e-12);
  EXPECT_NEAR(turned_q[23].norm().item<double>(), q.norm().item<double>(), 1e-12);
}

TEST(Rotary, Llama3ScalingGivesTheFrequenciesOfLlama32) {
  // transformers' inv_freq for Llama 3.2 (head 64, base 500,000, factor 32, low 1, high 4, original context 8,192).
  const std::map<size_t, double> reference = {{0, 1.0},
                                              {1, 0.663601279258728},
                                              {14, 0.0032114461064338684},  // short waves stay
                                              {15, 0.0012905480107292533},  // interpolated
                                              {16, 0.000429556705057621},
                                              {17, 9.708286233944818e-05},
                                              {18, 1.9461638657958247e-05},  // long waves are divided by 32
                                              {31, 9.418306490260875e-08}};
  const auto frequencies = rotary_frequencies({.base = 500000,
                                               .scaling = RopeConfig::Scaling::llama3,
                                               .factor = 32,
                                               .low_freq_factor = 1,
                                               .high_freq_factor = 4,
                                               .original_context = 8192},
                                              64);
  ASSERT_EQ(frequencies.size(), 32u);
  for (const auto& [pair, value] : reference) EXPECT_NEAR(frequencies[pair] / value, 1, 2e-6) << pair;
}

TEST(Rotary, LinearScalingStretchesPositions) {
  const RopeConfig plain{.base = 10000}, stretched{.base = 10000, .scaling = RopeConfig::Scaling::linear, .factor = 4};
  const RotaryTables a = rotary_tables(plain, 16, 4, torch::kFloat64), b = rotary_tables(stretched, 16, 13, torch::kFloat64);
  EXPECT_LT(largest_difference(a.cos[3], b.cos[12]), 1e-14);
  EXPECT_LT(largest_difference(a.sin[3], b.sin[12]), 1e-14);
}

TEST(RmsNorm, DividesByTheRootMeanSquare) {
  RmsNorm norm(torch::tensor({1.0, 2.0, -1.0, 0.5}, torch::kFloat64), 0.25);
  const auto y = norm->forward(torch::tensor({{1.0, -2.0, 3.0, 1.0}}, torch::kFloat64));  // mean square 3.75, + 0.25 = 4
  EXPECT_LT(largest_difference(y, torch::tensor({{0.5, -2.0, -1.5, 0.25}}, torch::kFloat64)), 1e-15);
}

TEST(Attention, SlidingWindowSeesTheLastTokensOnly) {
  // Block 0 of the tiny Gemma has a window of 4: token 6 sees 3..6, so a change at 2 reaches 5 and not 6.
  Decoder decoder = tiny_decoder(Architecture::gemma3);
  Block& block = decoder->blocks[0];
  const auto x = torch::randn({1, 7, 12});
  auto changed = x.clone();
  changed[0][2] += 1;
  const auto moved = (block->forward(changed) - block->forward(x)).abs().amax(-1)[0];
  for (int64_t t = 0; t < 7; ++t) {
    if (t >= 2 && t <= 5) {
      EXPECT_GT(moved[t].item<double>(), 1e-4) << t;
    } else {
      EXPECT_EQ(moved[t].item<double>(), 0) << t;
    }
  }
}

TEST(Attention, WindowAsLongAsTheTextIsFullAttention) {
  ModelConfig config = tiny_config(Architecture::gemma3);
  config.attention_softcap = 0;
  const TensorTable table = random_tensors(config, 3);
  const auto read = [&](const std::string& name) { return table.at(name); };
  const auto x = torch::randn({2, 9, 12});
  const auto windowed = [&](int64_t window) {
    config.sliding_window = window;
    return load_block(config, read, 0)->forward(x);
  };
  const auto fused = windowed(9),
             masked = windowed(8);  // 9: the fused kernel; 8: our softmax, where only token 8 loses token 0
  EXPECT_LT(largest_difference(fused.slice(1, 0, 8), masked.slice(1, 0, 8)), 1e-5);
  EXPECT_GT(largest_difference(fused.slice(1, 8, 9), masked.slice(1, 8, 9)), 1e-4);
}

TEST(Linear, ObserverHearsTheInputOfEveryLinear) {
  Decoder decoder = tiny_decoder(Architecture::gemma3);
  Block& block = decoder->blocks[1];
  std::vector<torch::Tensor> heard;
  const auto listen = [&](const torch::Tensor& x) { heard.push_back(x); };
  AttentionImpl& attention = *block->attention;
  MlpImpl& mlp = *block->mlp;
  for (Linear linear :
       {attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj}) {
    linear->observer = listen;
  }
  const auto x = torch::randn({2, 5, 12});
  block->forward(x);
  ASSERT_EQ(heard.size(), 7u);
  for (Linear linear :
       {attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj}) {
    linear->observer = nullptr;
  }
  const auto normed = block->input_norm->forward(x);
  const auto context = attention.context(normed, block->rotary(5));
  const auto middle = x + block->attention_out_norm->forward(attention.o_proj->forward(context));
  const auto before_mlp = block->post_attention_norm->forward(middle);
  const std::vector<torch::Tensor> expected = {normed, normed, normed, context, before_mlp, before_mlp, mlp.hidden(before_mlp)};
  for (size_t i = 0; i < 7; ++i) EXPECT_TRUE(torch::equal(heard[i], expected[i])) << i;
}

class Gradient : public testing::TestWithParam<Architecture> {};

TEST_P(Gradient, EqualsFiniteDifferencesForEveryTensor) {
  Decoder decoder = tiny_decoder(GetParam());
  for (const NamedTensor& entry : tensors(decoder)) {
    *entry.tensor = entry.tensor->to(torch::kFloat64).requires_grad_();
  }
  if (decoder->config.tied_head) decoder->head_weight = decoder->embedding;
  const auto ids = torch::tensor({{4, 9, 30, 2, 9, 17, 8}}, torch::kInt64);
  const auto loss = [&] {
    const auto logits = decoder->forward(ids.slice(1, 0, 6));
    return torch::cross_entropy_loss(logits[0], ids[0].slice(0, 1, 7));
  };
  loss().backward();
  torch::NoGradGuard no_grad;
  for (const NamedTensor& entry : tensors(decoder)) {
    ASSERT_TRUE(entry.tensor->grad().defined()) << entry.name;
    const auto flat = entry.tensor->view(-1);
    const auto gradient = entry.tensor->grad().view(-1);
    const int64_t at = gradient.abs().argmax().item<int64_t>();
    const double value = flat[at].item<double>(), step = 1e-5;
    flat[at].fill_(value + step);
    const double above = loss().item<double>();
    flat[at].fill_(value - step);
    const double below = loss().item<double>();
    flat[at].fill_(value);
    const double slope = gradient[at].item<double>();
    EXPECT_NEAR((above - below) / (2 * step), slope, 1e-6 * std::abs(slope) + 1e-9) << entry.name;
    EXPECT_NE(slope, 0) << entry.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, Gradient,
                         testing::Values(Architecture::llama, Architecture::qwen2, Architecture::qwen3, Architecture::gemma3));

TEST(Loader, WeightsCarryNoGradientAndATiedHeadIsOneTensor) {
  Decoder decoder = tiny_decoder(Architecture::qwen3);
  for (const NamedTensor& entry : tensors(decoder)) EXPECT_FALSE(entry.tensor->requires_grad()) << entry.name;
  EXPECT_TRUE(decoder->head_weight.is_same(decoder->embedding));
  EXPECT_FALSE(tiny_decoder(Architecture::llama)->head_weight.is_same(decoder->embedding));
}

TEST(Loader, ListsExactlyTheExpectedTensorsWithTheirShapes) {
  for (const auto architecture : {Architecture::llama, Architecture::qwen2, Architecture::qwen3, Architecture::gemma3}) {
    Decoder decoder = tiny_decoder(architecture);
    std::map<std::string, std::vector<int64_t>> listed, expected;
    for (const NamedTensor& entry : tensors(decoder)) listed[entry.name] = entry.tensor->sizes().vec();
    for (const TensorShape& shape : expected_tensors(decoder->config)) expected[shape.name] = shape.shape;
    EXPECT_EQ(listed, expected);
  }
}

TEST(Loader, OneBlockEqualsTheSameBlockOfTheWholeModel) {
  const ModelConfig config = tiny_config(Architecture::gemma3);
  const TensorTable table = random_tensors(config, 5);
  const auto read = [&](const std::string& name) { return table.at(name); };
  Decoder whole = load_decoder(config, read);
  const auto x = torch::randn({1, 8, 12});
  EXPECT_TRUE(torch::equal(load_block(config, read, 2)->forward(x), whole->blocks[2]->forward(x)));
  EXPECT_TRUE(load_ends(config, read)->blocks.empty());
  EXPECT_TRUE(torch::equal(load_ends(config, read)->head(x), whole->head(x)));
}

TEST(Loader, RefusesATensorOfTheWrongSizeAndNamesIt) {
  const ModelConfig config = tiny_config(Architecture::qwen2);
  TensorTable table = random_tensors(config, 5);
  table["model.layers.1.mlp.up_proj.weight"].pop_back();
  try {
    load_decoder(config, [&](const std::string& name) { return table.at(name); });
    FAIL() << "loaded";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("model.layers.1.mlp.up_proj.weight has 239 values"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(load_block(
                   config, [&](const std::string& name) { return table.at(name); }, 3),
               ModelError);
}

TEST(Decoder, RefusesIdsOutsideTheVocabulary) {
  Decoder decoder = tiny_decoder(Architecture::qwen2);
  EXPECT_THROW(decoder->forward(torch::tensor({{0, 31}}, torch::kInt64)), ModelError);
  EXPECT_THROW(decoder->forward(torch::tensor({{-1, 3}}, torch::kInt64)), ModelError);
}

}  // namespace
}  // namespace lighten
