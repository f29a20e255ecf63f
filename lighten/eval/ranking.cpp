#include "lighten/eval/ranking.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lighten/base/error.h"

namespace lighten {
namespace {

bool is_in(const std::vector<int32_t>& sorted, int32_t id) { return std::binary_search(sorted.begin(), sorted.end(), id); }

/// Mean of one(ranked ids cut at k, relevant ids) over the samples that have a relevant id.
template <typename One>
double mean_over(const IdLists& ranked, const IdLists& relevant, int64_t k, const One& one) {
  if (ranked.size() != relevant.size()) throw_error<OptionError>("{} rankings for {} samples", ranked.size(), relevant.size());
  if (k < 1) throw_error<OptionError>("k is {}; it must be at least 1", k);
  double sum = 0;
  int64_t samples = 0;
  for (size_t i = 0; i < ranked.size(); ++i) {
    if (relevant[i].empty()) continue;
    ++samples;
    sum += one(std::span(ranked[i]).first(std::min(ranked[i].size(), static_cast<size_t>(k))), relevant[i]);
  }
  if (samples == 0) throw OptionError("no sample has a relevant id");
  return sum / static_cast<double>(samples);
}

int64_t hits(std::span<const int32_t> ids, const std::vector<int32_t>& right) {
  return std::count_if(ids.begin(), ids.end(), [&](int32_t id) { return is_in(right, id); });
}

}  // namespace

double average_precision(std::span<const uint8_t> labels, std::span<const double> scores) {
  if (labels.size() != scores.size()) throw_error<OptionError>("{} labels, but {} scores", labels.size(), scores.size());
  std::vector<size_t> order(labels.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (const double score : scores)
    if (std::isnan(score)) throw OptionError("average precision: a score is not a number");
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  const auto positives =
      static_cast<double>(std::count_if(labels.begin(), labels.end(), [](uint8_t label) { return label != 0; }));
  if (positives == 0) throw OptionError("average precision: no sample is positive");
  double area = 0, right = 0;
  for (size_t at = 0; at < order.size();) {
    const double score = scores[order[at]], before = right;
    for (; at < order.size() && scores[order[at]] == score; ++at) right += labels[order[at]] != 0;
    area += (right - before) / positives * (right / static_cast<double>(at));
  }
  return area;
}

double mean_average_precision(std::span<const uint8_t> labels, std::span<const double> scores, int64_t columns) {
  if (columns < 1 || labels.size() != scores.size() || labels.size() % static_cast<size_t>(columns) != 0)
    throw_error<OptionError>("mAP: {} labels and {} scores are no rows of {}", labels.size(), scores.size(), columns);
  const auto width = static_cast<size_t>(columns), rows = labels.size() / width;
  std::vector<uint8_t> column_labels(rows);
  std::vector<double> column_scores(rows);
  double sum = 0;
  int64_t counted = 0;
  for (size_t c = 0; c < width; ++c) {
    bool any = false;
    for (size_t r = 0; r < rows; ++r) {
      column_labels[r] = labels[r * width + c];
      column_scores[r] = scores[r * width + c];
      any = any || column_labels[r];
    }
    if (!any) continue;
    sum += average_precision(column_labels, column_scores);
    ++counted;
  }
  if (counted == 0) throw OptionError("mAP: no column holds a positive");
  return sum / static_cast<double>(counted);
}

double precision_at(const IdLists& ranked, const IdLists& relevant, int64_t k) {
  return mean_over(ranked, relevant, k,
                   [&](auto ids, const auto& right) { return static_cast<double>(hits(ids, right)) / static_cast<double>(k); });
}

double recall_at(const IdLists& ranked, const IdLists& relevant, int64_t k) {
  return mean_over(ranked, relevant, k, [](auto ids, const auto& right) {
    return static_cast<double>(hits(ids, right)) / static_cast<double>(right.size());
  });
}

double ndcg_at(const IdLists& ranked, const IdLists& relevant, int64_t k) {
  return mean_over(ranked, relevant, k, [&](auto ids, const auto& right) {
    double dcg = 0, best = 0;
    for (size_t i = 0; i < ids.size(); ++i)
      if (is_in(right, ids[i])) dcg += 1 / std::log2(static_cast<double>(i) + 2);
    for (size_t i = 0; i < std::min(right.size(), static_cast<size_t>(k)); ++i)
      best += 1 / std::log2(static_cast<double>(i) + 2);
    return dcg / best;
  });
}

double reciprocal_rank(const IdLists& ranked, const IdLists& relevant) {
  return mean_over(ranked, relevant, INT32_MAX, [](auto ids, const auto& right) {
    for (size_t i = 0; i < ids.size(); ++i)
      if (is_in(right, ids[i])) return 1 / (static_cast<double>(i) + 1);
    return 0.0;
  });
}

std::vector<double> propensities(const IdLists& training_labels, int64_t labels, double a, double b) {
  std::vector<double> count(static_cast<size_t>(labels));
  for (const auto& list : training_labels)
    for (const int32_t label : list) {
      if (label < 0 || label >= labels) throw_error<OptionError>("label {} lies outside 0 to {}", label, labels - 1);
      ++count[static_cast<size_t>(label)];
    }
  const double c = (std::log(static_cast<double>(training_labels.size())) - 1) * std::pow(b + 1, a);
  for (double& n : count) n = 1 / (1 + c * std::pow(n + b, -a));
  return count;
}

double propensity_precision_at(const IdLists& ranked, const IdLists& relevant, std::span<const double> propensity, int64_t k) {
  double got = 0, best = 0;
  mean_over(ranked, relevant, k, [&](auto ids, const auto& right) {
    for (const int32_t id : ids)
      if (is_in(right, id)) got += 1 / propensity[static_cast<size_t>(id)];
    std::vector<double> gains;
    for (const int32_t id : right) gains.push_back(1 / propensity[static_cast<size_t>(id)]);
    std::sort(gains.begin(), gains.end(), std::greater<>());
    for (size_t i = 0; i < std::min(gains.size(), static_cast<size_t>(k)); ++i) best += gains[i];
    return 0.0;
  });
  return got / best;
}

std::vector<int32_t> top_k(std::span<const float> scores, int64_t k) {
  std::vector<int32_t> ids(scores.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto count = std::min(static_cast<std::ptrdiff_t>(k), std::ssize(ids));
  std::partial_sort(ids.begin(), ids.begin() + count, ids.end(), [&](int32_t a, int32_t b) {
    const float x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  ids.resize(static_cast<size_t>(count));
  return ids;
}

IdLists top_k_rows(std::span<const float> scores, int64_t columns, int64_t k) {
  if (columns < 1 || scores.size() % static_cast<size_t>(columns) != 0)
    throw_error<OptionError>("{} scores are no rows of {}", scores.size(), columns);
  IdLists lists;
  for (size_t row = 0; row < scores.size(); row += static_cast<size_t>(columns))
    lists.push_back(top_k(scores.subspan(row, static_cast<size_t>(columns)), k));
  return lists;
}

}  // namespace lighten
