// Small nets that classify pictures: MLP, Conv3, ResNet-8/14/18, ViT. All have the same two halves, features and a linear head,
// and the same file format.
#pragma once
#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/json.h"

namespace lighten {

/// What a net is built from; 0 takes the architecture's own default.
struct VisionConfig {
  std::string architecture = "conv3";  ///< "mlp", "conv3", "resnet8", "resnet14", "resnet18", "vit"
  int64_t channels = 1, height = 28, width = 28;
  int64_t classes = 10;
  int64_t base_width = 0;    ///< mlp 256 (hidden), conv3 32, resnet 16, vit 96 (embedding)
  int64_t feature_size = 0;  ///< mlp 256, conv3 256; resnets and vit: that of their last layer, not to be chosen
  int64_t depth = 0;         ///< vit: blocks (4); mlp: hidden layers (2)
  int64_t patch = 4;         ///< vit: side of a patch; must divide height and width
  double dropout = 0;        ///< before the head
  bool head_bias = true;
  std::string norm = "batch";  ///< conv3, resnets: "batch" or "group" (nn/norm.h)
};

Json to_json(const VisionConfig& config);
/// Throws FormatError that names `where` and the field.
VisionConfig vision_config_from(const Json& json, const std::string& where);
/// "conv3", ...: for options.
const std::vector<std::string>& vision_architectures();

/// A picture classifier. x [n, channels, height, width] float32.
struct VisionNetImpl : torch::nn::Module {
  explicit VisionNetImpl(VisionConfig config);
  /// [n, feature_size], after the last non-linearity, before dropout and head.
  virtual torch::Tensor features(const torch::Tensor& x) = 0;
  /// Logits [n, classes].
  torch::Tensor forward(const torch::Tensor& x);
  /// Logits of features.
  torch::Tensor classify(const torch::Tensor& features);

  VisionConfig config;
  int64_t feature_size = 0;
  torch::nn::Linear head{nullptr};  ///< [classes, feature_size]

 protected:
  void make_head(int64_t size);
};
using VisionNet = std::shared_ptr<VisionNetImpl>;

/// Builds a net with weights drawn from `seed`. Throws OptionError for a config that cannot be.
///
///  mlp       flatten - depth x [linear(base_width) - ReLU] - linear(feature_size) - ReLU
///  conv3     3 x [conv 3x3 (w, 2w, 4w) - batch norm - ReLU - max pool 2] - flatten - linear(feature_size) - ReLU
///  resnet8, resnet14
///            conv 3x3 (w) - batch norm - ReLU - 3 stages (w, 2w, 4w; the 2nd and 3rd halve the size) of 1 or 2 basic blocks -
///            global mean: 6n + 2 layers (He et al. 2016, section 4.2); feature_size 4w
///  resnet18  the same with 4 stages of 2 blocks (w, 2w, 4w, 8w): the layers of ResNet-18 with the stem for small pictures;
///            feature_size 8w
///            Basic block: conv 3x3 - batch norm - ReLU - conv 3x3 - batch norm, plus the input (a 1x1 convolution and batch
///            norm where the shape changes), ReLU.
///  vit       patches of side p by a convolution - class token - learned positions - depth x [layer norm - attention (heads of
///            32) - layer norm - MLP (x 2, GELU)], pre-norm - layer norm of the class token; feature_size base_width
///
/// Convolutions: He normal, fan out; linears: uniform in +-sqrt(6 / fan in) where a ReLU follows, heads: uniform in
/// +-1 / sqrt(fan in); biases 0; norms 1 and 0 (batch norm, or group norm in its place); ViT: truncated normal of deviation
/// 0.02.
VisionNet make_vision_net(const VisionConfig& config, uint64_t seed);

/// Closed form of the number of parameters, for tables and as a check of the above.
int64_t vision_parameters(const VisionConfig& config);
/// The config with every 0 replaced by the architecture's default.
VisionConfig completed(const VisionConfig& config);

/// A trained classifier: the net and what its input must look like.
struct Classifier {
  VisionNet net;
  std::vector<float> mean, deviation;  ///< per channel, of pixels / 255
  std::vector<std::string> class_names;
  Json training;  ///< how it was made; for people
};
/// Writes config.json and model.safetensors into a folder, which is replaced as a whole (an existing one only with `force`).
void save_classifier(const Classifier& classifier, const fs::path& folder, bool force);
/// Throws FileError or FormatError that names file and field.
Classifier load_classifier(const fs::path& folder);

}  // namespace lighten
