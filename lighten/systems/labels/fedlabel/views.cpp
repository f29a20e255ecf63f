#include "lighten/systems/labels/fedlabel/views.h"

#include <ATen/CPUGeneratorImpl.h>

namespace lighten {
namespace {

constexpr double kDropped = 0.1;  // of the strong view of features
constexpr AugmentOptions kWeak = {.shift = 1};
constexpr AugmentOptions kStrong = {.shift = 2, .least_area = 0.85, .rotation = 10};
constexpr int64_t kBatch = 1024;

}  // namespace

torch::Tensor scaled_rows(const torch::Tensor& x) {
  const torch::Tensor norm = x.norm(2, 1, true);
  return x * (std::sqrt(static_cast<double>(x.size(1))) / torch::where(norm > 0, norm, torch::ones_like(norm)));
}

void use_features(FederatedTask& task, const torch::Tensor& x, int64_t width, uint64_t seed) {
  const FeatureNetConfig config = {.inputs = x.size(1), .widths = {width}, .outputs = task.classes};
  task.make_net = [config, seed] {
    FeatureNet net(config, seed);
    return FederatedNet{net.ptr(), [net](const torch::Tensor& rows) mutable { return net->forward(rows); }};
  };
  task.batch = [x](std::span<const int64_t> samples, View view, uint64_t batch_seed) {
    const torch::Tensor rows = x.index_select(0, torch::tensor(std::vector<int64_t>(samples.begin(), samples.end())));
    if (view != View::strong) return rows;
    auto generator = torch::make_generator<at::CPUGeneratorImpl>(batch_seed);
    const torch::Tensor kept = torch::empty_like(rows).bernoulli_(1 - kDropped, generator);
    return rows * kept / (1 - kDropped);
  };
}

void use_pictures(FederatedTask& task, const ImageSet& set, const Normalization& normalization, int64_t width, uint64_t seed) {
  VisionConfig config;
  config.architecture = "conv3";
  config.channels = set.channels;
  config.height = set.height;
  config.width = set.width;
  config.classes = task.classes;
  config.base_width = width;
  config.feature_size = 8 * width;
  config.norm = "group";
  task.make_net = [config, seed] {
    const VisionNet net = make_vision_net(config, seed);
    return FederatedNet{net, [net](const torch::Tensor& x) { return net->forward(x); }};
  };
  task.batch = [&set, normalization](std::span<const int64_t> samples, View view, uint64_t batch_seed) {
    const AugmentOptions augment = view == View::plain ? AugmentOptions{} : view == View::weak ? kWeak : kStrong;
    return image_batch(set, samples, normalization, augment, batch_seed);
  };
}

torch::Tensor federated_logits(const FederatedTask& task, const FederatedNet& net, const std::vector<int64_t>& samples) {
  const torch::NoGradGuard no_gradients;
  const bool training = net.module->is_training();
  net.module->eval();
  std::vector<torch::Tensor> parts = {torch::empty({0, task.classes})};
  const std::span<const int64_t> all(samples);
  for (size_t at = 0; at < all.size(); at += kBatch)
    parts.push_back(net.logits(task.batch(all.subspan(at, std::min<size_t>(kBatch, all.size() - at)), View::plain, 0)));
  net.module->train(training);
  return torch::cat(parts);
}

double federated_accuracy(const FederatedTask& task, const FederatedNet& net, const std::vector<int64_t>& samples,
                          const std::vector<int32_t>& labels) {
  if (samples.empty()) return 0;
  return (federated_logits(task, net, samples).argmax(1) == label_batch(labels, samples))
      .to(torch::kDouble)
      .mean()
      .item<double>();
}

}  // namespace lighten
