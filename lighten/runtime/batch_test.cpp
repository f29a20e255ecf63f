#include "lighten/runtime/batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "lighten/base/error.h"
#include "lighten/runtime/tiny_model_test.h"

namespace lighten {
namespace {

using namespace test;

std::unique_ptr<RuntimeModel> tiny_model(int index, const RuntimeOptions& options) {
  const ModelConfig config = tiny_configs()[static_cast<size_t>(index)];
  const fs::path folder = scratch("batch-" + std::to_string(index));
  write_hf_folder(folder, config, random_tensors(config, static_cast<uint64_t>(index) + 1));
  return RuntimeModel::load(folder, options);
}

const RuntimeOptions kExact{.threads = 2, .exact = true, .storage = FloatStorage::f32};

std::vector<int32_t> ids_of(const RuntimeModel& model, size_t n, uint64_t seed) { return random_ids(model.config(), n, seed); }

GenerateResult alone(RuntimeModel& model, const std::vector<int32_t>& prompt, const GenerateOptions& options) {
  const auto cache = model.new_cache();
  return generate(model, *cache, prompt, options);
}

std::vector<float> logits_after(RuntimeModel& model, KvCache& cache, std::span<const int32_t> ids) {
  std::vector<float> logits(static_cast<size_t>(model.config().vocab_size));
  model.forward(cache, ids, logits.data());
  return logits;
}

class EveryTiny : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Batch, EveryTiny, testing::Range(0, 5));

TEST_P(EveryTiny, TextsTogetherEqualEachAloneTokenForToken) {
  const auto model = tiny_model(GetParam(), kExact);
  std::vector<std::vector<int32_t>> prompts;
  std::vector<GenerateOptions> options;
  for (size_t i = 0; i < 11; ++i) {
    prompts.push_back(ids_of(*model, 1 + 17 * i, 20 + i));
    options.push_back({.max_tokens = static_cast<int64_t>(3 + 5 * (i % 4)),
                       .sampling = {.temperature = i % 3 == 0 ? 0 : 0.9, .repetition_penalty = i % 2 ? 1.3 : 1, .seed = i},
                       .ignore_end = i % 2 == 0});
  }
  BatchGenerator batch(*model, {.parallel = 4, .prompt_tokens = 40});
  std::vector<size_t> numbers;
  for (size_t i = 0; i < 6; ++i) numbers.push_back(batch.add(prompts[i], options[i]));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(batch.step());
  for (size_t i = 6; i < prompts.size(); ++i) numbers.push_back(batch.add(prompts[i], options[i]));  // they join on the way
  while (batch.step()) {
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    const GenerateResult want = alone(*model, prompts[i], options[i]);
    ASSERT_TRUE(batch.finished(numbers[i]));
    const GenerateResult& got = batch.result(numbers[i]);
    EXPECT_EQ(got.tokens, want.tokens) << i;
    EXPECT_EQ(got.reason, want.reason) << i;
    EXPECT_EQ(got.prompt_tokens, want.prompt_tokens);
  }
}

TEST_P(EveryTiny, AForkIsASequenceOfItsOwn) {
  const auto model = tiny_model(GetParam(), {.threads = 2, .exact = false, .storage = FloatStorage::f32});
  for (const size_t shared : {size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{150}}) {
    const std::vector<int32_t> past = ids_of(*model, shared, 1), left = ids_of(*model, 70, 2), right = ids_of(*model, 70, 3);
    const auto first = model->new_cache(), first_alone = model->new_cache(), second_alone = model->new_cache();
    logits_after(*model, *first, past);
    logits_after(*model, *first_alone, past);
    logits_after(*model, *second_alone, past);
    const auto second = first->fork(static_cast<int64_t>(shared));
    EXPECT_EQ(second->length(), static_cast<int64_t>(shared));
    for (const size_t begin : {size_t{0}, size_t{35}}) {  // by turns, both across the end of a page
      EXPECT_EQ(logits_after(*model, *first, std::span(left).subspan(begin, 35)),
                logits_after(*model, *first_alone, std::span(left).subspan(begin, 35)));
      EXPECT_EQ(logits_after(*model, *second, std::span(right).subspan(begin, 35)),
                logits_after(*model, *second_alone, std::span(right).subspan(begin, 35)));
    }
  }
}

TEST_P(EveryTiny, AForkOfAnEarlierLengthEqualsNeverHavingRunOn) {
  const auto model = tiny_model(GetParam(), kExact);
  const std::vector<int32_t> past = ids_of(*model, 130, 4), next = ids_of(*model, 5, 5);
  const auto whole = model->new_cache(), begun = model->new_cache();
  logits_after(*model, *begun, std::span(past).first(70));
  logits_after(*model, *whole, std::span(past).first(70));
  logits_after(*model, *whole, std::span(past).subspan(70));
  const auto forked = whole->fork(70);
  EXPECT_EQ(logits_after(*model, *forked, next), logits_after(*model, *begun, next));
  EXPECT_THROW(whole->fork(131), OptionError);
}

TEST_P(EveryTiny, EightBitKeysAndValuesStayClose) {
  const auto exact = tiny_model(GetParam(), kExact);
  const auto model =
      tiny_model(GetParam(), {.threads = 2, .exact = false, .storage = FloatStorage::f32, .kv_cache = KvFormat::i8});
  const std::vector<int32_t> ids = ids_of(*exact, 90, 6);
  const auto want_cache = exact->new_cache(), cache = model->new_cache(),
             halves = tiny_model(GetParam(), {.threads = 1})->new_cache();
  const std::vector<float> want = logits_after(*exact, *want_cache, ids), got = logits_after(*model, *cache, ids);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - static_cast<double>(want[i]), 2);
    norm += std::pow(static_cast<double>(want[i]), 2);
  }
  EXPECT_LT(std::sqrt(difference / norm), 2e-2);
  EXPECT_GT(difference, 0) << "it was rounded";
  EXPECT_LT(cache->bytes(), want_cache->bytes() / 2) << "a scale of 4 bytes stands beside 16 or 32 values here";
}

TEST(Batch, LowBitLogitsDoNotDependOnTheCompany) {
  for (const auto& [bits, group] : {std::pair{4, 64}, {3, 64}, {2, 32}, {8, 0}}) {
    const auto model = RuntimeModel::random("smollm2-135m", bits, group, {.threads = 2});
    std::vector<std::vector<int32_t>> texts;
    std::vector<std::unique_ptr<KvCache>> together;
    std::vector<BatchStep> steps;
    std::vector<float> want;
    for (size_t i = 0; i < 7; ++i) {
      texts.push_back(ids_of(*model, i == 3 ? 20 : 1, i));
      const std::vector<int32_t> past = ids_of(*model, 3 * i, 50 + i);
      const auto cache = model->new_cache();
      together.push_back(model->new_cache());
      if (i > 0) logits_after(*model, *cache, past);
      if (i > 0) logits_after(*model, *together.back(), past);
      const std::vector<float> logits = logits_after(*model, *cache, texts.back());
      want.insert(want.end(), logits.begin(), logits.end());
    }
    for (size_t i = 0; i < texts.size(); ++i) steps.push_back({together[i].get(), texts[i], 1});
    std::vector<float> got(want.size());
    model->forward_batch(steps, got.data());
    EXPECT_EQ(got, want) << bits << " bits";
  }
}

TEST(Batch, MoreTokensThanAChunkAndLogitsOfSomeOfThem) {
  const auto model = tiny_model(0, kExact);
  const std::vector<int32_t> a = ids_of(*model, 100, 7), b = ids_of(*model, 200, 8), c = ids_of(*model, 90, 9);
  const auto vocab = static_cast<size_t>(model->config().vocab_size);
  std::vector<float> want, got((60 + 0 + 90) * vocab);
  std::vector<std::unique_ptr<KvCache>> caches, single;
  std::vector<BatchStep> steps;
  for (const auto& [ids, logits_for] : {std::pair(&a, 60), {&b, 0}, {&c, 90}}) {
    std::vector<float> logits(static_cast<size_t>(logits_for) * vocab);
    single.push_back(model->new_cache());
    caches.push_back(model->new_cache());
    model->forward(*single.back(), *ids, logits.data(), logits_for);
    want.insert(want.end(), logits.begin(), logits.end());
    steps.push_back({caches.back().get(), *ids, logits_for});
  }
  model->forward_batch(steps, got.data());
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 2e-4) << i;
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(caches[i]->length(), single[i]->length());
}

TEST(Batch, ASharedBeginningIsComputedOnce) {
  const auto model = tiny_model(0, kExact);
  const std::vector<int32_t> beginning = ids_of(*model, 100, 10);
  std::vector<std::vector<int32_t>> prompts;
  for (size_t i = 0; i < 6; ++i) {
    prompts.push_back(beginning);
    for (const int32_t id : ids_of(*model, 1 + i, 30 + i)) prompts.back().push_back(id);
  }
  const GenerateOptions options{.max_tokens = 6, .ignore_end = true};
  BatchGenerator batch(*model, {.parallel = 3, .prompt_tokens = 30});
  for (const auto& prompt : prompts) batch.add(prompt, options);
  while (batch.step()) {
  }
  EXPECT_GE(batch.reused_tokens(), 5 * (100 - 15)) << "a text joins when at most 15 tokens of what it shares are missing";
  for (size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(batch.result(i).tokens, alone(*model, prompts[i], options).tokens) << i;
}

TEST(Batch, ATextLeavesAtAnyTime) {
  const auto model = tiny_model(0, kExact);
  BatchGenerator batch(*model, {.parallel = 2});
  const GenerateOptions options{.max_tokens = 20, .ignore_end = true};
  const std::vector<int32_t> prompt = ids_of(*model, 5, 11);
  const size_t stays = batch.add(prompt, options), leaves = batch.add(ids_of(*model, 6, 12), options),
               never_joins = batch.add(ids_of(*model, 7, 13), options);
  for (int i = 0; i < 4; ++i) batch.step();
  batch.leave(leaves);
  batch.leave(never_joins);
  batch.leave(leaves);
  EXPECT_TRUE(batch.finished(leaves));
  EXPECT_EQ(batch.result(leaves).reason, "interrupted");
  EXPECT_EQ(batch.result(leaves).tokens.size(), 4u);
  EXPECT_TRUE(batch.finished(never_joins));
  while (batch.step()) {
  }
  EXPECT_EQ(batch.result(stays).tokens, alone(*model, prompt, options).tokens);
  EXPECT_FALSE(batch.step());
}

TEST(Batch, RefusesWhatCannotWorkAndChangesNoCache) {
  const auto model = tiny_model(0, kExact);
  const auto a = model->new_cache(8), b = model->new_cache(8);
  const std::vector<int32_t> four(4, 5), nine(9, 5), outside{96};
  std::vector<float> logits(2 * 96);
  const auto refused = [&](std::vector<BatchStep> steps) {
    EXPECT_THROW(model->forward_batch(steps, logits.data()), OptionError);
    EXPECT_EQ(a->length(), 0);
    EXPECT_EQ(b->length(), 0);
  };
  refused({{a.get(), four, 1}, {a.get(), four, 1}});
  refused({{a.get(), four, 1}, {b.get(), nine, 1}});
  refused({{a.get(), four, 1}, {b.get(), outside, 1}});
  refused({{a.get(), four, 1}, {b.get(), four, 5}});
  EXPECT_THROW(BatchGenerator(*model, {.parallel = 0}), OptionError);
  BatchGenerator batch(*model, {.context = 8});
  EXPECT_THROW(batch.add({}, {}), OptionError);
  EXPECT_THROW(batch.add(nine, {}), OptionError);
  EXPECT_FALSE(batch.step());
}

}  // namespace
}  // namespace lighten
