// Training a picture classifier by cross-entropy: the baseline of several systems, and what they share.
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "lighten/base/ranks.h"
#include "lighten/nn/vision.h"
#include "lighten/train/loader.h"
#include "lighten/train/loop.h"

namespace lighten {

struct ClassifyOptions {
  std::string architecture = "conv3";
  int64_t base_width = 0;    ///< 0: the architecture's own (nn/vision.h)
  int64_t feature_size = 0;  ///< 0: the architecture's own
  double dropout = 0;
  std::string augment =
      "none";  ///< "none", "shift" (2 pixels), "crop" (area 0.7 to 1, turned by 10 degrees), "flip" (crop, mirrored)
  TrainOptions train;
};
OptionList describe(ClassifyOptions& options, const std::string& source = "Lighten");

/// The augmentation of that name. Throws OptionError.
AugmentOptions augmentation(const std::string& name);

/// A set, the labels to learn from (those of the set, or noisy ones), and what follows from its training side.
struct ClassifyData {
  const ImageSet* set = nullptr;
  std::vector<int32_t> labels;  ///< of every sample; training and validation look at these
  std::vector<int64_t> train = {}, validation = {}, test = {};
  Normalization normalization = {};
};
/// `labels` empty: those of the set. Throws OptionError if there is no training or no validation sample, or fewer than two
/// classes among the training labels (one class only cannot be learnt).
ClassifyData classify_data(const ImageSet& set, std::vector<int32_t> labels = {});

/// A net of these options for the data, weights from `seed`.
VisionNet make_net(const ClassifyOptions& options, const ClassifyData& data, uint64_t seed, bool head_bias = true);

/// features() of samples in evaluation mode without gradients, [samples, feature_size]; and logits [samples, classes].
torch::Tensor features_of(VisionNetImpl& net, const ClassifyData& data, std::span<const int64_t> samples);
torch::Tensor logits_of(VisionNetImpl& net, const ClassifyData& data, std::span<const int64_t> samples);
/// Share of samples whose largest logit is at the label (of `labels`, indexed by sample).
double accuracy_of(const torch::Tensor& logits, const std::vector<int32_t>& labels, std::span<const int64_t> samples);

/// Cross-entropy on the training side, the best epoch by accuracy on the validation side (both on data.labels). `observe`:
/// TrainTask's. With a `folder` resumable. Over several `ranks` every batch is shared out (train/over_ranks.h).
struct TrainedNet {
  VisionNet net;
  TrainResult result;
};
TrainedNet train_classifier(const ClassifyData& data, const ClassifyOptions& options, const std::string& title,
                            const fs::path& folder = {},
                            const std::function<Json(VisionNetImpl& net, int64_t epoch)>& observe = {}, Ranks* ranks = nullptr);

/// What a checkpoint of a training on this data must agree on: hashes of labels and pictures, and the net.
Json identity_of(const ClassifyData& data, const VisionNetImpl& net);

/// The net with what its input must look like, to be saved.
Classifier classifier_from(VisionNet net, const ClassifyData& data, Json training);

}  // namespace lighten
