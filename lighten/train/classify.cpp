#include "lighten/train/classify.h"

#include <set>

#include "lighten/base/error.h"
#include "lighten/train/over_ranks.h"

namespace lighten {

namespace {

constexpr int64_t kEvaluationBatch = 512;

template <typename F>
torch::Tensor in_batches(VisionNetImpl& net, const ClassifyData& data, std::span<const int64_t> samples, int64_t columns,
                         const F& forward) {
  const torch::NoGradGuard no_grad;
  const bool training = net.is_training();
  net.eval();
  torch::Tensor all = torch::empty({static_cast<int64_t>(samples.size()), columns});
  for (int64_t from = 0; from < all.size(0); from += kEvaluationBatch) {
    const int64_t number = std::min(kEvaluationBatch, all.size(0) - from);
    all.narrow(0, from, number).copy_(forward(image_batch(*data.set, samples.subspan(from, number), data.normalization)));
  }
  net.train(training);
  return all;
}

}  // namespace

AugmentOptions augmentation(const std::string& name) {
  if (name == "none") return {};
  if (name == "shift") return {.shift = 2};
  if (name == "crop") return {.least_area = 0.7, .aspect = 1.2, .rotation = 10};
  if (name == "flip") return {.flip = true, .least_area = 0.7, .aspect = 1.2, .rotation = 10};
  throw OptionError(unknown_name_message("augmentation", name, {"none", "shift", "crop", "flip"}));
}

OptionList describe(ClassifyOptions& o, const std::string& source) {
  OptionList options = {
      option("net", o.architecture, one_of(vision_architectures()), "architecture of the net", source),
      option("width", o.base_width, range(0, 4096), "channels of the first stage (mlp, vit: the width); 0: the net's own",
             source),
      option("features", o.feature_size, range(0, 65536), "features before the head (mlp, conv3); 0: the net's own", source),
      option("dropout", o.dropout, range(0, 0.99), "before the head", source),
      option("augment", o.augment, one_of(std::vector<std::string>{"none", "shift", "crop", "flip"}),
             "how pictures are varied; flip: crop and mirror", source),
  };
  for (Option& more : describe(o.train, source)) options.push_back(std::move(more));
  return options;
}

ClassifyData classify_data(const ImageSet& set, std::vector<int32_t> labels) {
  ClassifyData data{.set = &set, .labels = labels.empty() ? set.labels : std::move(labels)};
  if (static_cast<int64_t>(data.labels.size()) != set.size())
    throw_error<OptionError>("{} labels for {} pictures", data.labels.size(), set.size());
  data.train = samples_of(set.splits, Split::train);
  data.validation = samples_of(set.splits, Split::validation);
  data.test = samples_of(set.splits, Split::test);
  if (data.train.empty() || data.validation.empty())
    throw_error<OptionError>(
        "{} training and {} validation pictures: both sides need some (validation chooses the epoch); give more pictures",
        data.train.size(), data.validation.size());
  std::set<int32_t> classes;
  for (const int64_t i : data.train) classes.insert(data.labels[i]);
  if (classes.size() < 2)
    throw_error<OptionError>("all {} training pictures have the class '{}'; a classifier needs two or more", data.train.size(),
                             set.class_names[*classes.begin()]);
  data.normalization = measure_normalization(set, data.train);
  return data;
}

VisionNet make_net(const ClassifyOptions& options, const ClassifyData& data, uint64_t seed, bool head_bias) {
  VisionConfig config;
  config.architecture = options.architecture;
  config.channels = data.set->channels;
  config.height = data.set->height;
  config.width = data.set->width;
  config.classes = static_cast<int64_t>(data.set->class_names.size());
  config.base_width = options.base_width;
  config.feature_size = options.feature_size;
  config.dropout = options.dropout;
  config.head_bias = head_bias;
  return make_vision_net(config, derived_seed(seed, 3));
}

torch::Tensor features_of(VisionNetImpl& net, const ClassifyData& data, std::span<const int64_t> samples) {
  return in_batches(net, data, samples, net.feature_size, [&](const torch::Tensor& x) { return net.features(x); });
}

torch::Tensor logits_of(VisionNetImpl& net, const ClassifyData& data, std::span<const int64_t> samples) {
  return in_batches(net, data, samples, net.config.classes, [&](const torch::Tensor& x) { return net.forward(x); });
}

double accuracy_of(const torch::Tensor& logits, const std::vector<int32_t>& labels, std::span<const int64_t> samples) {
  return (logits.argmax(1) == label_batch(labels, samples)).to(torch::kFloat64).mean().item<double>();
}

TrainedNet train_classifier(const ClassifyData& data, const ClassifyOptions& options, const std::string& title,
                            const fs::path& folder, const std::function<Json(VisionNetImpl& net, int64_t epoch)>& observe,
                            Ranks* ranks) {
  TrainedNet trained{.net = make_net(options, data, options.train.seed), .result = {}};
  VisionNetImpl& net = *trained.net;
  const AugmentOptions augment = augmentation(options.augment);
  TrainTask task;
  task.title = title;
  task.modules = {{.name = "net", .module = &net}};
  task.samples = data.train;
  task.loss = [&](const TrainStep& step) {
    return torch::cross_entropy_loss(net.forward(image_batch(*data.set, step.samples, data.normalization, augment, step.seed)),
                                     label_batch(data.labels, step.samples));
  };
  task.validate = [&] { return accuracy_of(logits_of(net, data, data.validation), data.labels, data.validation); };
  task.identity = identity_of(data, net);
  if (observe) task.observe = [&](int64_t epoch) { return observe(net, epoch); };
  trained.result = train(ranks ? over_ranks(std::move(task), *ranks) : task, options.train, folder);
  return trained;
}

Json identity_of(const ClassifyData& data, const VisionNetImpl& net) {
  const auto hash = [](const void* bytes, size_t size) {
    return fmt::format("{:016x}", stable_hash(std::string_view(static_cast<const char*>(bytes), size)));
  };
  return {{"labels", hash(data.labels.data(), data.labels.size() * sizeof(int32_t))},
          {"pictures", hash(data.set->pixels.data(), data.set->pixels.size())},
          {"architecture", to_json(net.config)}};
}

Classifier classifier_from(VisionNet net, const ClassifyData& data, Json training) {
  return {.net = std::move(net),
          .mean = data.normalization.mean,
          .deviation = data.normalization.deviation,
          .class_names = data.set->class_names,
          .training = std::move(training)};
}

}  // namespace lighten
