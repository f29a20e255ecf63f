// The multi-layer perceptron on feature vectors: what most systems on frozen features train.
#pragma once
#include <torch/torch.h>

#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/json.h"
#include "lighten/nn/norm.h"

namespace lighten {

struct FeatureNetConfig {
  int64_t inputs = 0;
  std::vector<int64_t> widths = {256};  ///< of the hidden layers; none: a linear classifier
  int64_t outputs = 0;
  double dropout = 0;       ///< after every hidden layer
  bool batch_norm = false;  ///< between a hidden layer's product and its ReLU
};
Json to_json(const FeatureNetConfig& config);
FeatureNetConfig feature_net_config_from(const Json& json, const std::string& where);

/// inputs - [linear - (batch norm) - ReLU - dropout] per width - linear(outputs). x [n, inputs] -> logits [n, outputs].
/// Hidden weights: uniform in +-sqrt(6 / fan in); the last layer: +-1 / sqrt(fan in); biases 0.
struct FeatureNetImpl : torch::nn::Module {
  FeatureNetImpl(FeatureNetConfig config, uint64_t seed);
  /// What the last layer sees, [n, last width].
  torch::Tensor hidden(const torch::Tensor& x);
  torch::Tensor forward(const torch::Tensor& x);
  FeatureNetConfig config;
  std::vector<torch::Tensor> weights, biases;  ///< [out, in], [out]; the last pair is the output layer
  std::vector<ChannelNorm> norms;
};
TORCH_MODULE(FeatureNet);

/// Logits of all rows in evaluation mode without gradients, `batch` at a time.
torch::Tensor predict(FeatureNet& net, const torch::Tensor& x, int64_t batch = 4096);

/// config.json and model.safetensors in `folder` (which exists).
void save_feature_net(const FeatureNet& net, const fs::path& folder, const Json& more = {});
/// Throws FileError or FormatError that names file and field.
FeatureNet load_feature_net(const fs::path& folder);

}  // namespace lighten
