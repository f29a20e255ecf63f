// Metrics of rankings: retrieval and extreme multi-label classification.
//
// `ranked[i]` lists the ids that sample i got, best first; `relevant[i]` the ids that are right, ascending. Samples without a
// relevant id count in none of the means. All throw OptionError on lengths that do not fit.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace lighten {

using IdLists = std::vector<std::vector<int32_t>>;

/// Area under the precision-recall steps: sum over thresholds of (R_n - R_{n-1}) P_n; equal scores are one threshold.
double average_precision(std::span<const uint8_t> labels, std::span<const double> scores);
/// Mean of average_precision over the columns that hold a positive; labels and scores [samples, columns].
double mean_average_precision(std::span<const uint8_t> labels, std::span<const double> scores, int64_t columns);

/// Mean share of right ids among the first k (k is the divisor also where fewer than k were given).
double precision_at(const IdLists& ranked, const IdLists& relevant, int64_t k);
/// Mean share of the relevant ids that are among the first k.
double recall_at(const IdLists& ranked, const IdLists& relevant, int64_t k);
/// Mean of DCG@k / best DCG@k with gains 1 / log2(rank + 1).
double ndcg_at(const IdLists& ranked, const IdLists& relevant, int64_t k);
/// Mean of 1 / rank of the first right id, 0 where none was given.
double reciprocal_rank(const IdLists& ranked, const IdLists& relevant);

/// How likely a true label l was noted: p_l = 1 / (1 + C (N_l + B)^-A), C = (ln N - 1) (B + 1)^A, for N training samples of
/// which N_l carry l. Source: Jain, Prabhu and Varma, "Extreme Multi-label Loss Functions", A = 0.55, B = 1.5 as default there.
std::vector<double> propensities(const IdLists& training_labels, int64_t labels, double a = 0.55, double b = 1.5);
/// sum_i sum_{l right in first k} 1 / p_l over the same sum for the best possible ranking.
double propensity_precision_at(const IdLists& ranked, const IdLists& relevant, std::span<const double> propensity, int64_t k);

/// Ids of the `k` largest of one row's scores, best first; the smaller id first where scores are equal. k above the length:
/// all.
std::vector<int32_t> top_k(std::span<const float> scores, int64_t k);
/// top_k of every row.
IdLists top_k_rows(std::span<const float> scores, int64_t columns, int64_t k);

}  // namespace lighten
