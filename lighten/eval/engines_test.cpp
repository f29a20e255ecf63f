// The two engines under one protocol: the runtime's logits against torch's.
#include <gtest/gtest.h>

#include "lighten/data/packages.h"
#include "lighten/eval/logit_error_test.h"
#include "lighten/eval/scorers.h"
#include "lighten/runtime/tiny_model_test.h"

namespace lighten {
namespace {

std::vector<float> logits_of(LogitModel& model, const std::vector<int32_t>& ids) {
  std::vector<float> logits(ids.size() * static_cast<size_t>(model.vocab_size()));
  model.score(ids, logits.data());
  return logits;
}

class Engines : public testing::TestWithParam<int> {};

TEST_P(Engines, AgreeOnTinyModelsOfEveryArchitecture) {
  const ModelConfig config = test::tiny_configs()[static_cast<size_t>(GetParam())];
  const fs::path folder = test::scratch("engines");
  test::write_hf_folder(folder, config, test::random_tensors(config, 11));
  const auto torch_model = torch_scorer(load_decoder(*open_weights(folder)));
  const auto runtime_model =
      runtime_scorer(RuntimeModel::load(folder, {.threads = 2, .exact = true, .storage = FloatStorage::f32}));
  const auto ids = test::random_ids(config, 60, 4), shorter = test::random_ids(config, 23, 5);
  const auto vocab = static_cast<size_t>(config.vocab_size);
  EXPECT_LT(worst_relative_error(logits_of(*runtime_model, ids), logits_of(*torch_model, ids), vocab), 2e-5);
  // A second, shorter window starts from an empty context, fetched in uneven pieces.
  std::vector<float> pieces(shorter.size() * vocab);
  runtime_model->begin(shorter);
  runtime_model->next(5, pieces.data());
  runtime_model->next(18, pieces.data() + 5 * vocab);
  EXPECT_LT(worst_relative_error(pieces, logits_of(*torch_model, shorter), vocab), 2e-5);
  torch_model->begin(shorter);
  torch_model->next(20, pieces.data());
  torch_model->next(3, pieces.data() + 20 * vocab);
  EXPECT_LT(worst_relative_error(pieces, logits_of(*runtime_model, shorter), vocab), 2e-5);
  fs::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(Every, Engines, testing::Range(0, 5));

/// Real prose if it has been fetched, else the licence's.
std::string real_text() {
  return read_file(data_present("prose") ? data_path("prose", false) / "test.txt" : fs::path("LICENSE")).substr(0, 16000);
}

TEST(RealEngines, SmolLm2ScoresAlikeInTorchAndInTheRuntime) {
  if (!data_present("smollm2-135m")) GTEST_SKIP() << "fetch smollm2-135m first";
  const fs::path path = data_path("smollm2-135m", false);
  EvaluatedModel torch_model = open_for_evaluation(path, Engine::torch, 0, true);
  EvaluatedModel exact = open_for_evaluation(path, Engine::runtime, 0, true);
  EvaluatedModel fast = open_for_evaluation(path, Engine::runtime, 0, false);
  // 210 linears in Q4_1 (5 bits a weight), the embedding in Q8_0 (8.5), norms in F32; 134,515,008 parameters.
  EXPECT_NEAR(exact.bits_per_weight, (106168320 * 5 + 28311552 * 8.5 + 35136 * 32) / 134515008, 1e-9);
  EXPECT_EQ(exact.size_bytes, size_on_disk(path));

  const std::vector<int32_t> all = exact.tokenizer->encode(real_text());
  ASSERT_GE(all.size(), 512u);
  const std::vector<int32_t> ids(all.begin(), all.begin() + 512);
  const auto vocab = static_cast<size_t>(exact.config.vocab_size);
  const auto reference = logits_of(*torch_model.scorer, ids);
  EXPECT_LT(worst_relative_error(logits_of(*exact.scorer, ids), reference, vocab), 1e-4);

  const EvaluationOptions one_window{.max_tokens = 512};
  const Evaluation same = evaluate(exact, &torch_model, real_text(), one_window);
  const Evaluation quick = evaluate(fast, &torch_model, real_text(), one_window);
  EXPECT_LT(same.kl_mean, 1e-9);  // measured 4e-11
  EXPECT_GE(same.top1_agreement, 0.998);
  // Activations in two 8-bit halves, a float16 cache: measured 0.0014 at the worst position, KL 4.2e-7, 510 of 511 choices.
  EXPECT_LT(worst_relative_error(logits_of(*fast.scorer, ids), reference, vocab), 5e-3);
  EXPECT_LT(quick.kl_mean, 2e-6);
  EXPECT_GE(quick.top1_agreement, 0.99);
  EXPECT_NEAR(quick.perplexity / same.perplexity, 1, 1e-3);
}

}  // namespace
}  // namespace lighten
