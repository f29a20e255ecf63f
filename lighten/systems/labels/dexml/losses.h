// Losses of dual encoders over many labels. scores [queries, labels] = similarity / temperature; positives as lists.
#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

namespace lighten {

/// Columns of the positives of every row of a score matrix, ascending; a row may have none (it then counts in no loss).
using Positives = std::vector<std::vector<int64_t>>;

/// InfoNCE: -log softmax over all labels of each positive, mean over the positives of a row, mean over rows. Other positives of
/// the row are negatives here.
torch::Tensor infonce_loss(const torch::Tensor& scores, const Positives& positives);
/// Decoupled softmax: -log( e^s_l / (e^s_l + sum of e^s_n over n that are no positive of the row) ): positives never compete.
torch::Tensor decoupled_softmax_loss(const torch::Tensor& scores, const Positives& positives);
/// One-against-rest: binary cross-entropy of every score, summed over labels, mean over rows.
torch::Tensor one_vs_rest_loss(const torch::Tensor& scores, const Positives& positives);

/// Soft top-k membership sigma(a (s_l + t)) of each row with t such that they sum to k: t by 32 bisections, gradient implicit:
/// with g_l the incoming gradient and v_l = a p_l (1 - p_l), ds_l = v_l (g_l - (sum_j g_j v_j) / (sum_j v_j)).
torch::Tensor soft_top_k(const torch::Tensor& scores, double k, double sharpness);
/// -log of the soft membership of the positives, mean over positives, mean over rows. Source: DEXML, section 4.2 (k = 5, a =
/// 2).
torch::Tensor soft_top_k_loss(const torch::Tensor& scores, const Positives& positives, double k = 5, double sharpness = 2);

/// "decoupled", "soft-topk", "infonce", "one-vs-rest".
torch::Tensor match_loss(const std::string& name, const torch::Tensor& scores, const Positives& positives);

}  // namespace lighten
