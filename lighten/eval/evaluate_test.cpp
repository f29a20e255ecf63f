#include "lighten/eval/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/eval/test_models.h"

namespace lighten {
namespace {

const float kNever = -std::numeric_limits<float>::infinity();

float log_of(double p) { return static_cast<float>(std::log(p)); }

TEST(Evaluate, AUniformModelHasThePerplexityOfItsVocabulary) {
  EvaluatedModel model = rule_model(27, [](auto, int32_t) { return 1.5f; });
  const Evaluation result = evaluate(model, nullptr, "thequickbrownfoxjumps", {.window = 5});
  EXPECT_NEAR(result.perplexity, 27, 1e-12);
  EXPECT_NEAR(result.bits_per_byte, std::log2(27), 1e-12);
  EXPECT_EQ(result.windows, 4);
  EXPECT_EQ(result.tokens, 16);  // 4 windows of 5, first token of each not scored
  EXPECT_NEAR(result.perplexity_ci.low, 27, 1e-12);
  EXPECT_NEAR(result.perplexity_ci.high, 27, 1e-12);
}

TEST(Evaluate, PerplexityOfABigramTableIsItsClosedForm) {
  // p(b|a) = 3/4, p(a|a) = 1/4, p(a|b) = p(b|b) = 1/2. Window "aabba": p = 1/4 3/4 1/2 1/2; window "babab": 1/2 3/4 1/2 3/4.
  EvaluatedModel model = rule_model(2, [](std::span<const int32_t> seen, int32_t token) {
    if (seen.back() == 1) return 0.0f;
    return token == 1 ? log_of(0.75) : log_of(0.25);
  });
  const Evaluation result = evaluate(model, nullptr, "aabbababab", {.window = 5});
  const double product = (0.25 * 0.75 * 0.5 * 0.5) * (0.5 * 0.75 * 0.5 * 0.75);
  EXPECT_EQ(result.tokens, 8);
  EXPECT_NEAR(result.perplexity, std::pow(product, -1.0 / 8), 1e-6);
  EXPECT_NEAR(result.bits_per_byte, -std::log2(product) / 8, 1e-6);
  // With two windows a resample is one of three mixtures; the extreme ones (each a quarter) are the interval.
  EXPECT_NEAR(result.perplexity_ci.high, std::pow(0.25 * 0.75 * 0.5 * 0.5, -1.0 / 4), 1e-6);
  EXPECT_NEAR(result.perplexity_ci.low, std::pow(0.5 * 0.75 * 0.5 * 0.75, -1.0 / 4), 1e-6);
}

TEST(Evaluate, BitsPerByteCountsTheBytesOfScoredTokensOnly) {
  // The BOS (26) has no text and is not scored.
  EvaluatedModel model = rule_model(
      27, [](auto, int32_t) { return 0.0f; }, 26);
  const Evaluation result = evaluate(model, nullptr, "abcdefghijkl", {.window = 4});
  EXPECT_EQ(result.windows, 4);  // BOS + 3 letters each
  EXPECT_EQ(result.tokens, 12);  // every letter
  EXPECT_NEAR(result.bits_per_byte, std::log2(27), 1e-12);
}

TEST(Evaluate, KlIsTheClosedFormInNatsFromTheReference) {
  const std::vector<double> p = {0.5, 0.25, 0.25}, q = {0.2, 0.2, 0.6};
  EvaluatedModel model = rule_model(3, [&](auto, int32_t token) { return log_of(q[static_cast<size_t>(token)]) + 7; });
  EvaluatedModel reference = rule_model(3, [&](auto, int32_t token) { return log_of(p[static_cast<size_t>(token)]) - 2; });
  double kl = 0;
  for (size_t i = 0; i < 3; ++i) kl += p[i] * std::log(p[i] / q[i]);
  const Evaluation result = evaluate(model, &reference, "abcabcabc", {.window = 3});
  EXPECT_NEAR(result.kl_mean, kl, 1e-6);
  EXPECT_NEAR(result.kl_p99, kl, 1e-6);
  EXPECT_EQ(result.top1_agreement, 0);
  // Every window scores b and c: perplexities sqrt(1 / (p_b p_c)) and sqrt(1 / (q_b q_c)).
  EXPECT_NEAR(result.against_perplexity, 4, 1e-6);
  EXPECT_NEAR(result.perplexity_rise, std::sqrt(1 / 0.12) / 4 - 1, 1e-6);
  EXPECT_NEAR(result.kl_mean_ci.low, kl, 1e-6);
  EXPECT_NEAR(result.kl_mean_ci.high, kl, 1e-6);
}

TEST(Evaluate, AgreementAndP99CountPositions) {
  // After 'a' the model agrees; after 'b' it swaps the reference's 3/4 and 1/4, which costs KL = (3/4 - 1/4) ln 3.
  const auto lean = [](int32_t token, bool swapped) { return (token == 1) != swapped ? log_of(0.75) : log_of(0.25); };
  EvaluatedModel reference = rule_model(2, [&](auto, int32_t token) { return lean(token, false); });
  EvaluatedModel model =
      rule_model(2, [&](std::span<const int32_t> seen, int32_t token) { return lean(token, seen.back() == 1); });
  const Evaluation result = evaluate(model, &reference, "aaabaaaab", {.window = 9});  // 8 positions, one of them after 'b'
  EXPECT_NEAR(result.top1_agreement, 7.0 / 8, 1e-12);
  EXPECT_NEAR(result.kl_mean, 0.5 * std::log(3) / 8, 1e-6);
  // numpy's quantile: position 0.99 * 7 = 6.93 between the 7th (0) and the 8th value.
  EXPECT_NEAR(result.kl_p99, 0.93 * 0.5 * std::log(3), 1e-6);
}

TEST(Evaluate, AModelAgainstItselfLosesNothing) {
  const auto rule = [](std::span<const int32_t> seen, int32_t token) {
    return static_cast<float>(std::sin(3.0 * token + static_cast<double>(seen.size()) * seen.back())) * 6;
  };
  EvaluatedModel model = rule_model(27, rule), reference = rule_model(27, rule);
  const Evaluation result = evaluate(model, &reference, "packmyboxwithfivedozenliquorjugs", {.window = 8});
  EXPECT_EQ(result.kl_mean, 0);
  EXPECT_EQ(result.kl_p99, 0);
  EXPECT_EQ(result.top1_agreement, 1);
}

TEST(Evaluate, LargeVocabulariesAreFetchedInChunks) {
  const int64_t vocab = 1 << 20;  // 32 rows fill the buffer
  const auto rule = [](std::span<const int32_t> seen, int32_t token) { return token == seen.back() ? 14.0f : 0.0f; };
  EvaluatedModel model = rule_model(vocab, rule);
  const Evaluation result = evaluate(model, nullptr, std::string(40, 'a'), {.window = 40});
  EXPECT_EQ(rule_of(model).chunks, (std::vector<int64_t>{32, 7}));
  EXPECT_NEAR(result.perplexity, 1 + static_cast<double>(vocab - 1) * std::exp(-14.0), 1e-9);
}

TEST(Windows, DoNotOverlapAndTheLastShortOneIsDropped) {
  const std::vector<int32_t> ids = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  using Windows = std::vector<std::vector<int32_t>>;
  EXPECT_EQ(evaluation_windows(ids, -1, {.window = 4}), (Windows{{0, 1, 2, 3}, {4, 5, 6, 7}}));
  EXPECT_EQ(evaluation_windows(ids, 99, {.window = 4}), (Windows{{99, 0, 1, 2}, {99, 3, 4, 5}, {99, 6, 7, 8}}));
  EXPECT_EQ(evaluation_windows(ids, -1, {.window = 4, .max_tokens = 7}), (Windows{{0, 1, 2, 3}}));
  EXPECT_EQ(evaluation_windows(ids, -1, {.window = 4, .max_tokens = 3}), Windows{});
  EXPECT_EQ(evaluation_windows(ids, -1, {.window = 10, .max_tokens = 1000}).size(), 1u);
  EXPECT_THROW(evaluation_windows(ids, -1, {.window = 1}), OptionError);
}

TEST(Windows, AreScoredAloneAndBosGoesFirst) {
  EvaluatedModel model = rule_model(
      27, [](auto, int32_t) { return 0.0f; }, 26);
  evaluate(model, nullptr, "abcdefg", {.window = 4});
  EXPECT_EQ(rule_of(model).windows, (std::vector<std::vector<int32_t>>{{26, 0, 1, 2}, {26, 3, 4, 5}}));
}

TEST(Windows, HoldNoSpecialTokensOfTheText) {
  EvaluatedModel model = rule_model(27, [](auto, int32_t) { return 0.0f; });
  evaluate(model, nullptr, "ab|cd", {.window = 5});
  EXPECT_EQ(rule_of(model).windows, (std::vector<std::vector<int32_t>>{{0, 1, 25, 2, 3}}));
}

TEST(Evaluate, SaysWhatIsWrong) {
  const auto flat = [](auto, int32_t) { return 0.0f; };
  EvaluatedModel model = rule_model(27, flat), narrow = rule_model(20, flat);
  EXPECT_THROW(evaluate(model, nullptr, "short", {.window = 8}), FormatError);
  EXPECT_THROW(evaluate(model, nullptr, "", {.window = 8}), FormatError);
  EXPECT_THROW(evaluate(model, nullptr, "longenough", {.window = 2048}), OptionError);
  EXPECT_THROW(evaluate(model, &narrow, "longenough", {.window = 8}), ModelError);
  EXPECT_THROW(evaluate(narrow, nullptr, "zzzzzzzz", {.window = 8}), ModelError);
  EvaluatedModel broken = rule_model(27, [](auto, int32_t) { return std::nanf(""); });
  EXPECT_THROW(evaluate(broken, nullptr, "longenough", {.window = 8}), ModelError);
}

TEST(Evaluate, JsonCarriesTheNamesThatScriptsRead) {
  EvaluatedModel model = rule_model(3, [](auto, int32_t) { return 0.0f; });
  model.size_bytes = 1234;
  model.bits_per_weight = 4.5;
  const Json alone = evaluate(model, nullptr, "abcabc", {.window = 3}).json();
  for (const char* name : {"perplexity", "tokens", "bits_per_byte", "size_bytes", "bits_per_weight"})
    EXPECT_TRUE(alone.contains(name));
  EXPECT_EQ(alone["size_bytes"], 1234);
  EXPECT_EQ(alone["perplexity_ci"].size(), 2u);
  EXPECT_FALSE(alone.contains("kl_mean"));
  EvaluatedModel reference = rule_model(3, [](auto, int32_t) { return 0.0f; });
  const Json both = evaluate(model, &reference, "abcabc", {.window = 3}).json();
  for (const char* name : {"kl_mean", "kl_p99", "top1_agreement", "kl_mean_ci", "kl_p99_ci", "top1_agreement_ci"}) {
    EXPECT_TRUE(both.contains(name)) << name;
  }
}

TEST(Evaluate, IntervalsAreNullWhereNothingIsKnownOfTheSpread) {
  EvaluatedModel model = rule_model(3, [](auto, int32_t) { return 0.0f; });
  EvaluatedModel reference = rule_model(3, [](auto, int32_t) { return 0.0f; });
  const Json without = evaluate(model, &reference, "abcabc", {.window = 3, .bootstrap = 0}).json();
  const Json one_window = evaluate(model, &reference, "abc", {.window = 3}).json();
  for (const Json* json : {&without, &one_window})
    for (const char* name : {"perplexity_ci", "bits_per_byte_ci", "kl_mean_ci", "kl_p99_ci", "top1_agreement_ci"})
      EXPECT_TRUE(json->at(name).is_null()) << name;
  EXPECT_NEAR(without["perplexity"].get<double>(), 3, 1e-12);
}

TEST(ScorePosition, SurvivesExtremeLogits) {
  const std::vector<float> far = {30000, -30000, 29999}, near = {29999, -30000, 30000};
  const double nll = std::log1p(std::exp(-1.0));
  EXPECT_NEAR(score_position(far, 0).nll, nll, 1e-12);
  EXPECT_NEAR(score_position(far, 1).nll, 60000 + nll, 1e-9);
  const double p = 1 / (1 + std::exp(-1.0));
  EXPECT_NEAR(score_position(far, 0, near).kl, (2 * p - 1) * 1.0, 1e-12);  // p ln(p/q) + q ln(q/p) = (p - q) * 1
}

TEST(ScorePosition, ImpossibleTokensCountAsTheyShould) {
  const std::vector<float> without = {0, 0, kNever}, with = {0, 0, 0};
  EXPECT_NEAR(score_position(with, 0, without).kl, std::log(1.5), 1e-12);
  EXPECT_EQ(score_position(without, 0, with).kl, std::numeric_limits<double>::infinity());
  EXPECT_EQ(score_position(without, 0, without).kl, 0);
}

TEST(ScorePosition, KlOfNearlyEqualLogitsIsHalfTheVariance) {
  // To second order D(p || p + shift d) = Var_p(d) / 2; here d = 1e-3 on one of two equally likely tokens: 1e-6 / 8.
  const std::vector<float> reference = {0, 0}, moved = {0.001f, 0};
  EXPECT_NEAR(score_position(moved, 0, reference).kl / 1.25e-7, 1, 1e-4);
}

TEST(Quantile, IsLinearBetweenNeighboursAsInNumpy) {
  std::vector<double> values = {4, 1, 3, 2};
  EXPECT_DOUBLE_EQ(quantile(values, 0.25), 1.75);
  EXPECT_DOUBLE_EQ(quantile(values, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(values, 1), 4);
  EXPECT_DOUBLE_EQ(quantile(values, 0.99), 3.97);
}

TEST(Bootstrap, OfAMeanIsTheKnownStandardErrorWide) {
  // 400 values with mean 0 and variance 1: standard error 1/20, so the interval is 2 * 1.96 / 20 wide.
  std::vector<double> values(400);
  for (size_t i = 0; i < values.size(); ++i) values[i] = i % 2 == 0 ? 1 : -1;
  const auto mean = [&](const std::vector<size_t>& picked) {
    double sum = 0;
    for (const size_t at : picked) sum += values[at];
    return sum / static_cast<double>(picked.size());
  };
  const Interval interval = bootstrap(values.size(), 4000, 3, mean);
  EXPECT_NEAR(interval.high, 0.098, 0.006);
  EXPECT_NEAR(interval.low, -0.098, 0.006);
  const Interval again = bootstrap(values.size(), 4000, 3, mean), other = bootstrap(values.size(), 4000, 4, mean);
  EXPECT_EQ(again.low, interval.low);
  EXPECT_EQ(again.high, interval.high);
  EXPECT_TRUE(other.low != interval.low || other.high != interval.high);
}

}  // namespace
}  // namespace lighten
