// Light models in both engines: the runtime on packed codes against torch on the same codes dequantized.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lighten/data/packages.h"
#include "lighten/eval/logit_error_test.h"
#include "lighten/eval/scorers.h"
#include "lighten/eval/test_models.h"
#include "lighten/runtime/light_model.h"
#include "lighten/runtime/tiny_model_test.h"

namespace lighten {
namespace {

struct Grid {
  int bits = 4;
  int64_t group_size = 0;  ///< 0: per channel
};

/// W [rows, columns] rounded to nearest: s = (max - min) / (2^bits - 1) in binary16, z = round(-min / s), q = round(w / s) + z.
QuantTensor round_to_nearest(const std::vector<float>& weight, const std::vector<int64_t>& shape, const Grid& grid) {
  QuantTensor tensor;
  tensor.bits = grid.bits;
  tensor.rows = shape[0];
  tensor.columns = shape[1];
  tensor.group_size = grid.group_size;
  const auto group = static_cast<size_t>(grid.group_size == 0 ? shape[1] : grid.group_size);
  const float last = static_cast<float>((1 << grid.bits) - 1);
  for (size_t begin = 0; begin < weight.size(); begin += group) {
    float low = 0, high = 0;
    for (size_t i = begin; i < begin + group; ++i) {
      low = std::min(low, weight[i]);
      high = std::max(high, weight[i]);
    }
    const Half rounded = float_to_half(std::max(high - low, 1e-5f) / last);
    const float scale = half_to_float(rounded), zero = std::clamp(std::round(-low / scale), 0.0f, last);
    tensor.scales.push_back(rounded);
    tensor.zero_points.push_back(static_cast<uint8_t>(zero));
    for (size_t i = begin; i < begin + group; ++i)
      tensor.codes.push_back(static_cast<uint8_t>(std::clamp(std::round(weight[i] / scale) + zero, 0.0f, last)));
  }
  return tensor;
}

/// The float model in `folder` as a light folder in `out`, and what its tensors mean.
struct LightPair {
  ModelConfig config;
  test::Tensors meaning;
  Decoder torch() const {
    return load_decoder(config, [this](const std::string& name) { return meaning.at(name); });
  }
};

LightPair make_light(const WeightSource& source, const fs::path& out, const Grid& grid, bool low_bit_ends,
                     const Tokenizer& tokenizer) {
  LightPair pair{source.config(), {}};
  std::map<std::string, QuantTensor> quantized;
  test::Tensors floats;
  for (const TensorShape& tensor : expected_tensors(source.config())) {
    const bool end = tensor.name == "model.embed_tokens.weight" || tensor.name == "lm_head.weight";
    std::vector<float> values = source.read(tensor.name);
    if (tensor.shape.size() == 2 && (!end || low_bit_ends)) {
      quantized[tensor.name] = round_to_nearest(values, tensor.shape, grid);
      pair.meaning[tensor.name] = dequantize(quantized[tensor.name]);
    } else {
      pair.meaning[tensor.name] = floats[tensor.name] = values;
      if (tensor.shape.size() == 2)  // kept as binary16
        for (float& value : pair.meaning[tensor.name]) value = half_to_float(float_to_half(value));
    }
  }
  LightWriter writer(out, source.config());
  writer.add_piece("all", quantized, floats);
  writer.finish({{"name", "rtn"}}, tokenizer, "");
  return pair;
}

std::vector<float> logits_of(RuntimeModel& model, const std::vector<int32_t>& ids) {
  std::vector<float> logits(ids.size() * static_cast<size_t>(model.config().vocab_size));
  model.forward(*model.new_cache(), ids, logits.data(), static_cast<int64_t>(ids.size()));
  return logits;
}

std::vector<float> logits_of(const Decoder& decoder, const std::vector<int32_t>& ids) {
  std::vector<float> logits(ids.size() * static_cast<size_t>(decoder->config.vocab_size));
  torch_scorer(decoder)->score(ids, logits.data());
  return logits;
}

int32_t best(const float* logits, size_t vocab) {
  return static_cast<int32_t>(std::max_element(logits, logits + vocab) - logits);
}

/// `ids` with `count` greedy tokens of the runtime after them, one step at a time.
std::vector<int32_t> continued(RuntimeModel& model, std::vector<int32_t> ids, int count) {
  const auto cache = model.new_cache();
  const auto vocab = static_cast<size_t>(model.config().vocab_size);
  std::vector<float> logits(vocab);
  model.forward(*cache, ids, logits.data(), 1);
  for (int i = 0; i < count; ++i) {
    ids.push_back(best(logits.data(), vocab));
    model.forward(*cache, std::span(ids).last(1), logits.data(), 1);
  }
  return ids;
}

/// How many of the tokens from position `from` on are torch's greedy choice after those before them. All of them: by induction
/// torch writes the same text.
int choices_shared(const Decoder& decoder, const std::vector<int32_t>& ids, size_t from) {
  const auto vocab = static_cast<size_t>(decoder->config.vocab_size);
  const std::vector<float> logits = logits_of(decoder, ids);
  int shared = 0;
  for (size_t i = from; i < ids.size(); ++i) shared += best(logits.data() + (i - 1) * vocab, vocab) == ids[i];
  return shared;
}

using Case = std::tuple<int, int, int>;  // bits, group size, index among the tiny models

std::string case_name(const Case& which) {
  constexpr const char* names[] = {"llama3", "llama_linear", "qwen2", "qwen3", "gemma3"};
  const auto [bits, group, index] = which;
  return fmt::format("{}_bits_group_{}_{}", bits, group, names[index]);
}

class LightEngines : public testing::TestWithParam<Case> {};

TEST_P(LightEngines, ExactRuntimeEqualsTorchOnTheSameCodes) {
  const auto [bits, group, index] = GetParam();
  const ModelConfig config = test::tiny_configs()[static_cast<size_t>(index)];
  const fs::path folder = test::scratch("light-engines");
  test::write_hf_folder(folder, config, test::random_tensors(config, 21));
  const bool low_bit_ends = (bits + group / 32 + index) % 2 == 0;  // half of the combinations
  const LightPair pair = make_light(*open_weights(folder), folder / "light", {bits, group}, low_bit_ends, LetterTokenizer());
  const Decoder torch_model = pair.torch();
  const auto vocab = static_cast<size_t>(config.vocab_size);
  const std::vector<int32_t> ids = test::random_ids(config, 60, 6);
  const std::vector<float> reference = logits_of(torch_model, ids);

  const auto exact = RuntimeModel::load(folder / "light", {.threads = 2, .exact = true});
  EXPECT_LT(worst_relative_error(logits_of(*exact, ids), reference, vocab), 1e-5);  // float32 sums in another order
  const std::vector<int32_t> prompt(ids.begin(), ids.begin() + 12);
  EXPECT_EQ(choices_shared(torch_model, continued(*exact, prompt, 64), prompt.size()), 64);

  const auto fast = RuntimeModel::load(folder / "light", {.threads = 2});
  EXPECT_LT(worst_relative_error(logits_of(*fast, ids), reference, vocab), 5e-3);  // activations in two 8-bit halves
  fs::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(Every, LightEngines,
                         testing::Combine(testing::Values(2, 3, 4, 8), testing::Values(0, 32, 64), testing::Range(0, 5)),
                         [](const auto& info) { return case_name(info.param); });

TEST(RealLightEngines, SmolLm2AtFourBitsScoresAlikeInTorchAndInTheRuntime) {
  if (!data_present("smollm2-135m") || !data_present("prose")) GTEST_SKIP() << "fetch smollm2-135m and prose first";
  const fs::path folder = test::scratch("light-smollm2");
  const auto source = open_weights(data_path("smollm2-135m", false));
  const LightPair pair = make_light(*source, folder / "light", {4, 64}, true, *source->tokenizer());
  const Decoder torch_model = pair.torch();
  const auto vocab = static_cast<size_t>(pair.config.vocab_size);
  std::vector<int32_t> ids = source->tokenizer()->encode(read_file(data_path("prose", false) / "test.txt").substr(0, 16000));
  ASSERT_GE(ids.size(), 512u);
  ids.resize(512);
  const std::vector<float> reference = logits_of(torch_model, ids);

  const auto exact = RuntimeModel::load(folder / "light", {.exact = true});
  EXPECT_LT(worst_relative_error(logits_of(*exact, ids), reference, vocab), 1e-4);
  const std::vector<int32_t> prompt(ids.begin(), ids.begin() + 32);
  EXPECT_EQ(choices_shared(torch_model, continued(*exact, prompt, 64), prompt.size()), 64);

  const std::vector<float> quick = logits_of(*RuntimeModel::load(folder / "light", {}), ids);
  EXPECT_LT(worst_relative_error(quick, reference, vocab), 5e-3);  // measured 0.0021; the goal is 2e-2
  size_t agreed = 0;
  for (size_t row = 0; row < ids.size(); ++row)
    agreed += best(quick.data() + row * vocab, vocab) == best(reference.data() + row * vocab, vocab);
  EXPECT_GE(static_cast<double>(agreed) / static_cast<double>(ids.size()), 0.99);  // measured 1; the goal is 0.97
  fs::remove_all(folder);
}

}  // namespace
}  // namespace lighten
