#include "lighten/eval/classification.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lighten/base/error.h"

namespace lighten {
namespace {

void check_lengths(size_t first, size_t second, const char* what) {
  if (first != second) throw_error<OptionError>("{}: {} labels, but {} predictions", what, first, second);
  if (first == 0) throw_error<OptionError>("{}: of no samples at all", what);
}

struct Counts {
  int64_t tp = 0, fp = 0, fn = 0;
  double f1() const {
    const int64_t all = 2 * tp + fp + fn;
    return all == 0 ? 0 : 2 * static_cast<double>(tp) / static_cast<double>(all);
  }
  bool seen() const { return tp + fp + fn > 0; }
};

F1Scores summary(const std::vector<Counts>& counts, bool only_seen) {
  F1Scores scores;
  Counts all;
  int64_t classes = 0;
  for (const Counts& c : counts) {
    scores.per_class.push_back(c.f1());
    all.tp += c.tp;
    all.fp += c.fp;
    all.fn += c.fn;
    if (only_seen && !c.seen()) continue;
    scores.macro += c.f1();
    ++classes;
  }
  if (classes > 0) scores.macro /= static_cast<double>(classes);
  scores.micro = all.f1();
  return scores;
}

}  // namespace

double accuracy(std::span<const int32_t> labels, std::span<const int32_t> predictions) {
  check_lengths(labels.size(), predictions.size(), "accuracy");
  size_t right = 0;
  for (size_t i = 0; i < labels.size(); ++i) right += labels[i] == predictions[i];
  return static_cast<double>(right) / static_cast<double>(labels.size());
}

std::vector<std::vector<int64_t>> confusion_matrix(std::span<const int32_t> labels, std::span<const int32_t> predictions,
                                                   int32_t classes) {
  check_lengths(labels.size(), predictions.size(), "confusion matrix");
  std::vector<std::vector<int64_t>> matrix(static_cast<size_t>(classes), std::vector<int64_t>(static_cast<size_t>(classes)));
  for (size_t i = 0; i < labels.size(); ++i) {
    for (const int32_t value : {labels[i], predictions[i]})
      if (value < 0 || value >= classes)
        throw_error<OptionError>("sample {}: class {} lies outside 0 to {}", i, value, classes - 1);
    ++matrix[static_cast<size_t>(labels[i])][static_cast<size_t>(predictions[i])];
  }
  return matrix;
}

F1Scores f1_scores(std::span<const int32_t> labels, std::span<const int32_t> predictions, int32_t classes) {
  const auto matrix = confusion_matrix(labels, predictions, classes);
  std::vector<Counts> counts(matrix.size());
  for (size_t a = 0; a < matrix.size(); ++a)
    for (size_t b = 0; b < matrix.size(); ++b) {
      if (a == b) {
        counts[a].tp += matrix[a][a];
      } else {
        counts[a].fn += matrix[a][b];
        counts[b].fp += matrix[a][b];
      }
    }
  return summary(counts, true);
}

F1Scores f1_multilabel(std::span<const uint8_t> labels, std::span<const uint8_t> predictions, int64_t columns) {
  check_lengths(labels.size(), predictions.size(), "F1");
  const auto width = static_cast<size_t>(columns);
  if (columns < 1 || labels.size() % width != 0)
    throw_error<OptionError>("F1: {} entries are no rows of {} labels", labels.size(), columns);
  std::vector<Counts> counts(width);
  for (size_t i = 0; i < labels.size(); ++i) {
    Counts& c = counts[i % width];
    c.tp += labels[i] && predictions[i];
    c.fp += !labels[i] && predictions[i];
    c.fn += labels[i] && !predictions[i];
  }
  return summary(counts, false);
}

double hamming_loss(std::span<const uint8_t> labels, std::span<const uint8_t> predictions) {
  check_lengths(labels.size(), predictions.size(), "Hamming loss");
  size_t wrong = 0;
  for (size_t i = 0; i < labels.size(); ++i) wrong += (labels[i] != 0) != (predictions[i] != 0);
  return static_cast<double>(wrong) / static_cast<double>(labels.size());
}

double subset_accuracy(std::span<const uint8_t> labels, std::span<const uint8_t> predictions, int64_t columns) {
  check_lengths(labels.size(), predictions.size(), "subset accuracy");
  const auto width = static_cast<size_t>(columns);
  if (columns < 1 || labels.size() % width != 0)
    throw_error<OptionError>("subset accuracy: {} entries are no rows of {} labels", labels.size(), columns);
  size_t right = 0;
  for (size_t row = 0; row < labels.size(); row += width)
    right += std::equal(
        labels.begin() + static_cast<std::ptrdiff_t>(row), labels.begin() + static_cast<std::ptrdiff_t>(row + width),
        predictions.begin() + static_cast<std::ptrdiff_t>(row), [](uint8_t a, uint8_t b) { return (a != 0) == (b != 0); });
  return static_cast<double>(right) / (static_cast<double>(labels.size()) / static_cast<double>(columns));
}

double auc(std::span<const uint8_t> labels, std::span<const double> scores) {
  check_lengths(labels.size(), scores.size(), "AUC");
  std::vector<size_t> order(labels.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (const double score : scores)
    if (std::isnan(score)) throw OptionError("AUC: a score is not a number");
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  double below = 0, area = 0, positives = 0;  // below: negatives with a smaller score
  for (size_t at = 0; at < order.size();) {
    double p = 0, n = 0;
    const double score = scores[order[at]];
    for (; at < order.size() && scores[order[at]] == score; ++at) (labels[order[at]] ? p : n) += 1;
    area += p * (below + n / 2);
    below += n;
    positives += p;
  }
  if (positives == 0 || below == 0)
    throw_error<OptionError>("AUC: all {} samples are {}; both kinds are needed", labels.size(),
                             below == 0 ? "positive" : "negative");
  return area / (positives * below);
}

McNemar mcnemar(std::span<const uint8_t> first_right, std::span<const uint8_t> second_right) {
  check_lengths(first_right.size(), second_right.size(), "McNemar's test");
  McNemar test;
  for (size_t i = 0; i < first_right.size(); ++i) {
    test.only_first += first_right[i] && !second_right[i];
    test.only_second += !first_right[i] && second_right[i];
  }
  const int64_t n = test.only_first + test.only_second, low = std::min(test.only_first, test.only_second);
  if (n == 0) return test;
  const double gap = std::max(0.0, std::abs(static_cast<double>(test.only_first - test.only_second)) - 1);
  test.chi_squared = gap * gap / static_cast<double>(n);
  // 2 P(X <= low), X ~ Binomial(n, 1/2); the two tails meet when low = n / 2.
  double tail = 0;
  const auto log_factorial = [](int64_t k) { return std::lgamma(static_cast<double>(k) + 1); };
  for (int64_t k = 0; k <= low; ++k)
    tail += std::exp(log_factorial(n) - log_factorial(k) - log_factorial(n - k) - static_cast<double>(n) * std::log(2.0));
  test.p_exact = std::min(1.0, 2 * tail);
  return test;
}

PairedDifference paired_difference(std::span<const double> first, std::span<const double> second, int resamples,
                                   uint64_t seed) {
  check_lengths(first.size(), second.size(), "paired difference");
  const auto mean_of = [&](const auto& places) {
    double sum = 0;
    for (const size_t i : places) sum += first[i] - second[i];
    return sum / static_cast<double>(places.size());
  };
  std::vector<size_t> all(first.size());
  std::iota(all.begin(), all.end(), size_t{0});
  return {mean_of(all),
          bootstrap(first.size(), resamples, seed, [&](const std::vector<size_t>& picked) { return mean_of(picked); })};
}

std::vector<int32_t> argmax_rows(std::span<const float> scores, int64_t columns) {
  if (columns < 1 || scores.size() % static_cast<size_t>(columns) != 0)
    throw_error<OptionError>("{} scores are no rows of {}", scores.size(), columns);
  std::vector<int32_t> best;
  for (size_t row = 0; row < scores.size(); row += static_cast<size_t>(columns)) {
    const auto begin = scores.begin() + static_cast<std::ptrdiff_t>(row);
    best.push_back(static_cast<int32_t>(std::max_element(begin, begin + columns) - begin));
  }
  return best;
}

}  // namespace lighten
