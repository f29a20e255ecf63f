// Nested Co-teaching: features in order of importance, cut where errors would begin; two such nets choose each other's samples.
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "lighten/train/classify.h"

namespace lighten {

/// Options of Nested Co-teaching. Defaults are those of Chen et al. 2022 and their code where `describe` says so; the rest
/// suits small pictures on a processor.
struct NestedCoteachingOptions {
  ClassifyOptions classify;     ///< net and stage 1
  bool nested = true;           ///< stage 1 masks features; false: plain cross-entropy, to see what nesting does
  double sigma = 0;             ///< of the distribution of k; 0: the number of classes
  bool coteaching = true;       ///< stage 2
  int64_t finetune_epochs = 4;  ///< of stage 2
  double finetune_rate = 0.02;  ///< learning rate of stage 2 as a share of stage 1's
  double forget = 0.2;          ///< share of a half-batch that is left out; the noise rate, if it is known
};
OptionList describe(NestedCoteachingOptions& options);

/// p(k) for k = 1..d: exp(-(k / sigma)^2), normalised (mu = 0).
std::vector<double> nested_distribution(int64_t features, double sigma);

/// Logits of features z [n, d] with head weights W [classes, d] cut behind the first k features: z[:, :k] W[:, :k]^T.
torch::Tensor nested_logits(const torch::Tensor& features, const torch::Tensor& weight, int64_t k);

/// Accuracy for every k = 1..d, from one pass over the features. labels int64 [n].
std::vector<double> accuracy_by_features(const torch::Tensor& features, const torch::Tensor& weight,
                                         const torch::Tensor& labels);
/// argmax_k (accuracy_k - 1e-5 k): the smallest of about equally good ones. From 1.
int64_t best_feature_count(const std::vector<double>& accuracy);

/// Indices of the round((1 - forget) n) smallest losses, at least one, ascending.
std::vector<int64_t> small_losses(const torch::Tensor& losses, double forget);

/// Two nets with bias-free heads, and how many features each uses.
struct NestedPair {
  std::vector<VisionNet> nets;    ///< 2
  std::vector<int64_t> features;  ///< k of each; all of them without nesting
  double validation = 0;          ///< accuracy on the validation side, of the mean of their logits
  TrainResult first, second, finetuned;
};

/// Learns from labels that are partly wrong.
///
/// Stage 1, two nets from different seeds: every batch draws one k with p(k) ~ exp(-(k / sigma)^2) and only the first k
/// features reach the head, so that features are ordered and the first ones hold what most samples agree on. After every epoch
/// each k is tried on the validation side; the best epoch is kept. Stage 2: each net, in evaluation mode with its k, sorts one
/// half of the batch by loss; the other net learns from the (1 - forget) share with the smallest losses, with a fresh k. Batch
/// norm stays frozen. Prediction: mean of the two logits.
///
/// Only training and validation labels of `data` are read. With a `folder` resumable (three trainings below it).
/// Source: arXiv 2206.13140 (Compressing Features for Learning with Noisy Labels); yingyichen-cyy/Nested-Co-teaching (read for
/// the order of steps).
NestedPair nested_coteaching(const ClassifyData& data, const NestedCoteachingOptions& options, const fs::path& folder = {});

/// Stage 1 alone, and stage 2 from given nets (which it changes).
using Observer = std::function<Json(VisionNetImpl& net, int64_t features)>;
std::pair<TrainedNet, int64_t> train_nested(const ClassifyData& data, const NestedCoteachingOptions& options, uint64_t seed,
                                            const std::string& title, const fs::path& folder = {},
                                            const Observer& observe = {});
void coteach(NestedPair& pair, const ClassifyData& data, const NestedCoteachingOptions& options, const fs::path& folder = {});

/// Mean logits of the pair, [samples, classes].
torch::Tensor pair_logits(const NestedPair& pair, const ClassifyData& data, std::span<const int64_t> samples);

/// A sample whose label the nets doubt.
struct Suspect {
  int64_t sample = 0;
  double score = 0;  ///< 1 - probability of the given label, mean of the nets
  int32_t given = 0, suggested = 0;
};
/// Those of `samples` for which the nets prefer another label, the most doubtful first (ties: in order of the samples).
std::vector<Suspect> suspects(const torch::Tensor& logits, const std::vector<int32_t>& labels,
                              std::span<const int64_t> samples);

}  // namespace lighten
