#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "lighten/base/error.h"
#include "lighten/base/file.h"
#include "lighten/base/json.h"
#include "lighten/base/random.h"
#include "lighten/eval/calibration.h"
#include "lighten/eval/classification.h"
#include "lighten/eval/ranking.h"

namespace lighten {
namespace {

TEST(Classification, F1OfAClassThatNobodyHas) {
  // Class 2 occurs nowhere: it counts in no mean. Class 0: tp 1, fn 1 -> 2/3; class 1: tp 1, fp 1 -> 2/3.
  const std::vector<int32_t> labels = {0, 0, 1}, predictions = {0, 1, 1};
  const F1Scores scores = f1_scores(labels, predictions, 3);
  EXPECT_DOUBLE_EQ(scores.macro, 2.0 / 3);
  EXPECT_DOUBLE_EQ(scores.micro, 2.0 / 3);
  EXPECT_EQ(scores.per_class, (std::vector<double>{2.0 / 3, 2.0 / 3, 0}));
  EXPECT_DOUBLE_EQ(accuracy(labels, predictions), 2.0 / 3);
  EXPECT_THROW(f1_scores(labels, predictions, 1), OptionError);
  EXPECT_THROW(accuracy(labels, std::vector<int32_t>{1}), OptionError);
}

TEST(Classification, AucCountsPairs) {
  Random random(3);
  std::vector<uint8_t> labels;
  std::vector<double> scores;
  for (int i = 0; i < 200; ++i) {
    labels.push_back(random.below(3) == 0);
    scores.push_back(static_cast<double>(random.below(12)) + labels.back());  // many ties
  }
  double good = 0, pairs = 0;
  for (size_t i = 0; i < labels.size(); ++i)
    for (size_t j = 0; j < labels.size(); ++j)
      if (labels[i] && !labels[j]) {
        ++pairs;
        good += scores[i] > scores[j] ? 1 : scores[i] == scores[j] ? 0.5 : 0;
      }
  EXPECT_NEAR(auc(labels, scores), good / pairs, 1e-12);
  EXPECT_THROW(auc(std::vector<uint8_t>{1, 1}, std::vector<double>{0, 1}), OptionError);
}

TEST(Classification, McNemarOfKnownTables) {
  // b = 3, c = 9: exact p = 2 (C(12,0) + ... + C(12,3)) / 4096 = 2 * 299 / 4096; chi^2 = (6 - 1)^2 / 12.
  std::vector<uint8_t> first, second;
  for (int i = 0; i < 12; ++i) {
    first.push_back(i < 3);
    second.push_back(i >= 3);
  }
  for (int i = 0; i < 5; ++i) {  // agreement does not count
    first.push_back(1);
    second.push_back(1);
  }
  const McNemar test = mcnemar(first, second);
  EXPECT_EQ(test.only_first, 3);
  EXPECT_EQ(test.only_second, 9);
  EXPECT_NEAR(test.p_exact, 2 * 299.0 / 4096, 1e-12);
  EXPECT_NEAR(test.chi_squared, 25.0 / 12, 1e-12);
  EXPECT_DOUBLE_EQ(mcnemar(first, first).p_exact, 1);
}

TEST(Classification, PairedDifferenceCoversWhatItShould) {
  // The interval of 40 pairs with a true difference of 1 and deviation 2 holds 1 in about 95 of 100 draws.
  int covered = 0;
  for (uint64_t draw = 0; draw < 200; ++draw) {
    Random random(draw);
    std::vector<double> first, second;
    for (int i = 0; i < 40; ++i) {
      second.push_back(random.normal());
      first.push_back(second.back() + 1 + 2 * random.normal());
    }
    const PairedDifference difference = paired_difference(first, second, 400, draw);
    covered += difference.interval.low <= 1 && 1 <= difference.interval.high;
  }
  EXPECT_GE(covered, 178);  // 200 * 0.95 less four deviations of 3.1
}

TEST(Ranking, HandComputed) {
  const IdLists ranked = {{5, 2, 9}, {1, 3, 4}, {7, 8, 6}}, relevant = {{2, 3}, {1}, {}};  // the third counts nowhere
  EXPECT_DOUBLE_EQ(precision_at(ranked, relevant, 2), 0.5);
  EXPECT_DOUBLE_EQ(recall_at(ranked, relevant, 3), 0.75);
  EXPECT_DOUBLE_EQ(reciprocal_rank(ranked, relevant), 0.75);
  const double best = 1 + 1 / std::log2(3.0);
  EXPECT_NEAR(ndcg_at(ranked, relevant, 3), (1 / std::log2(3.0) / best + 1) / 2, 1e-12);
  EXPECT_DOUBLE_EQ(precision_at({{5}}, {{5}}, 4), 0.25);  // k divides also where fewer were given
  const std::vector<double> propensity = {1, 0.5, 0.25, 1};
  EXPECT_NEAR(propensity_precision_at({{2, 0}, {3, 1}}, {{1, 2}, {3}}, propensity, 1), (4 + 1) / (4.0 + 1), 1e-12);
  EXPECT_NEAR(propensity_precision_at({{1, 0}, {3, 1}}, {{1, 2}, {3}}, propensity, 2), (2 + 1) / (6.0 + 1), 1e-12);
  EXPECT_EQ(top_k(std::vector<float>{1, 3, 3, 2}, 3), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_THROW(precision_at(ranked, relevant, 0), OptionError);
}

TEST(Calibration, TemperatureIsFoundAgain) {
  // Labels drawn from softmax(z): logits 3 z need T = 3.
  Random random(5);
  std::vector<float> logits;
  std::vector<int32_t> labels;
  for (int i = 0; i < 20000; ++i) {
    double z[3], total = 0;
    for (double& value : z) total += std::exp(value = 1.5 * random.normal());
    double u = random.uniform() * total;
    int32_t label = 0;
    while (label < 2 && (u -= std::exp(z[label])) > 0) ++label;
    labels.push_back(label);
    for (const double value : z) logits.push_back(static_cast<float>(3 * value));
  }
  EXPECT_NEAR(fit_temperature(labels, logits, 3), 3, 0.1);
}

TEST(Calibration, BinsHoldTheirUpperEdge) {
  const std::vector<uint8_t> came = {0, 1, 1, 1};
  const std::vector<double> p = {0, 0.5, 0.500001, 1};
  const auto bins = reliability(came, p, 2);
  EXPECT_EQ(bins[0].samples, 2);
  EXPECT_EQ(bins[1].samples, 2);
  EXPECT_NEAR(expected_calibration_error(came, p, 2), 0.5 * 0.25 + 0.5 * (1 - 1.500001 / 2), 1e-12);
  EXPECT_THROW(reliability(came, std::vector<double>{0, 0, 0, 1.1}), OptionError);
  const SetQuality quality = set_quality(came, std::vector<double>{0, 1, 2, 5});
  EXPECT_DOUBLE_EQ(quality.coverage, 0.75);
  EXPECT_DOUBLE_EQ(quality.mean_size, 2);
  EXPECT_DOUBLE_EQ(quality.median_size, 1.5);
  EXPECT_DOUBLE_EQ(quality.empty, 0.25);
}

template <typename T>
std::vector<T> list(const Json& json) {
  return json.get<std::vector<T>>();
}

TEST(MetricsInterop, WritesFigures) {
  const char* folder = std::getenv("LIGHTEN_INTEROP_DIR");
  if (!folder) GTEST_SKIP() << "run by tests/interop/metrics_interop.py";
  const Json in = Json::parse(read_file(fs::path(folder) / "metrics.json"));
  Json out;
  const auto labels = list<int32_t>(in["labels"]), predictions = list<int32_t>(in["predictions"]);
  const auto classes = in["classes"].get<int32_t>();
  out["accuracy"] = accuracy(labels, predictions);
  const F1Scores f1 = f1_scores(labels, predictions, classes);
  out["f1_macro"] = f1.macro;
  out["f1_micro"] = f1.micro;
  out["confusion"] = confusion_matrix(labels, predictions, classes);
  const auto multi = list<uint8_t>(in["multi_labels"]), chosen = list<uint8_t>(in["multi_predictions"]);
  const auto scores = list<double>(in["multi_scores"]);
  const auto columns = in["columns"].get<int64_t>();
  const F1Scores many = f1_multilabel(multi, chosen, columns);
  out["multi_f1_macro"] = many.macro;
  out["multi_f1_micro"] = many.micro;
  out["multi_f1_per_class"] = many.per_class;
  out["hamming"] = hamming_loss(multi, chosen);
  out["subset_accuracy"] = subset_accuracy(multi, chosen, columns);
  out["map"] = mean_average_precision(multi, scores, columns);
  out["auc"] = auc(list<uint8_t>(in["binary_labels"]), list<double>(in["binary_scores"]));
  out["average_precision"] = average_precision(list<uint8_t>(in["binary_labels"]), list<double>(in["binary_scores"]));
  const IdLists ranked = in["ranked"].get<IdLists>(), relevant = in["relevant"].get<IdLists>();
  for (const int64_t k : {1, 3, 5, 10}) {
    const std::string at = fmt::format("@{}", k);
    out["precision" + at] = precision_at(ranked, relevant, k);
    out["recall" + at] = recall_at(ranked, relevant, k);
    out["ndcg" + at] = ndcg_at(ranked, relevant, k);
    const auto propensity = propensities(in["training_labels"].get<IdLists>(), columns);
    out["psp" + at] = propensity_precision_at(ranked, relevant, propensity, k);
  }
  const auto came = list<uint8_t>(in["binary_labels"]);
  const auto probabilities = list<double>(in["probabilities"]);
  out["ece"] = expected_calibration_error(came, probabilities, 15);
  out["brier"] = brier_score(came, probabilities);
  out["log_loss"] = log_loss(labels, list<double>(in["class_probabilities"]), classes);
  const McNemar test = mcnemar(came, list<uint8_t>(in["second_right"]));
  out["mcnemar"] = test.p_exact;
  write_file(fs::path(folder) / "metrics.out.json", json_text(out));
}

}  // namespace
}  // namespace lighten
