#include "lighten/systems/labels/nested_coteaching/nested_coteaching.h"

#include <numeric>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"

namespace lighten {

namespace {

constexpr double kPricePerFeature = 1e-5;

int64_t draw_features(const std::vector<double>& distribution, uint64_t seed) {
  Random random(seed);
  double u = random.uniform();
  for (size_t i = 0; i < distribution.size(); ++i) {
    u -= distribution[i];
    if (u < 0) return static_cast<int64_t>(i) + 1;
  }
  return static_cast<int64_t>(distribution.size());
}

/// What is validated and remembered between epochs: the net, and its k as a buffer, so that checkpoints hold it.
struct CountedNetImpl : torch::nn::Module {
  explicit CountedNetImpl(VisionNet net) : net(register_module("net", std::move(net))) {
    features = register_buffer("features", torch::full({1}, this->net->feature_size, torch::kInt64));
  }
  int64_t count() const { return features.item<int64_t>(); }
  /// Chooses k on the validation side (if `nested`) and returns its accuracy there.
  double choose(const ClassifyData& data, bool nested) {
    const torch::Tensor z = features_of(*net, data, data.validation), y = label_batch(data.labels, data.validation);
    if (!nested)
      return (nested_logits(z, net->head->weight, net->feature_size).argmax(1) == y).to(torch::kFloat64).mean().item<double>();
    const std::vector<double> accuracy = accuracy_by_features(z, net->head->weight, y);
    const int64_t best = best_feature_count(accuracy);
    features.fill_(best);
    return accuracy[best - 1];
  }
  VisionNet net;
  torch::Tensor features;
};
using CountedNet = std::shared_ptr<CountedNetImpl>;

torch::Tensor loss_of_counted(const torch::Tensor& z, const CountedNetImpl& counted, int64_t k, const torch::Tensor& labels,
                              bool mean) {
  return torch::cross_entropy_loss(nested_logits(z, counted.net->head->weight, k), labels, {},
                                   mean ? at::Reduction::Mean : at::Reduction::None);
}

/// The loss of one net on what the other one chose from its half.
torch::Tensor taught_loss(CountedNetImpl& pupil, CountedNetImpl& teacher, const torch::Tensor& x, const torch::Tensor& y,
                          double forget, int64_t k) {
  torch::Tensor losses;
  {
    const torch::NoGradGuard no_grad;
    losses = loss_of_counted(teacher.net->features(x), teacher, teacher.count(), y, false);
  }
  const torch::Tensor chosen = torch::tensor(small_losses(losses, forget));
  return loss_of_counted(pupil.net->features(x.index_select(0, chosen)), pupil, k, y.index_select(0, chosen), true);
}

double sigma_of(const NestedCoteachingOptions& options, const VisionNetImpl& net) {
  return options.sigma > 0 ? options.sigma : static_cast<double>(net.config.classes);
}

fs::path below(const fs::path& folder, const char* name) { return folder.empty() ? fs::path() : folder / name; }

}  // namespace

OptionList describe(NestedCoteachingOptions& o) {
  OptionList options = {
      Option("nested", o.nested, "stage 1 drops the last features of each batch", "paper"),
      option("sigma", o.sigma, range(0, 1e6), "spread of the number of features kept in training; 0: the number of classes",
             "paper: 10 for 10 classes, 100 for 100"),
      Option("coteaching", o.coteaching, "stage 2: two nets choose each other's samples", "paper"),
      option("finetune-epochs", o.finetune_epochs, range(1, 10000), "epochs of stage 2", "Lighten"),
      option("finetune-rate", o.finetune_rate, range(1e-6, 1), "learning rate of stage 2 as a share of stage 1's",
             "official scripts: about 0.01"),
      option("forget", o.forget, range(0, 0.95), "share of samples that stage 2 leaves out: the noise rate, if known",
             "official scripts"),
  };
  for (Option& more : describe(o.classify)) options.push_back(std::move(more));
  return options;
}

std::vector<double> nested_distribution(int64_t features, double sigma) {
  if (features < 1 || !(sigma > 0)) throw_error<OptionError>("nested dropout: {} features, sigma {}", features, sigma);
  std::vector<double> p;
  for (int64_t k = 1; k <= features; ++k) p.push_back(std::exp(-std::pow(static_cast<double>(k) / sigma, 2)));
  // A sigma far below 1 would leave nothing of k = 1 either.
  if (p[0] == 0) p[0] = 1;
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
  return p;
}

torch::Tensor nested_logits(const torch::Tensor& features, const torch::Tensor& weight, int64_t k) {
  if (k >= features.size(1)) return torch::linear(features, weight);
  return torch::linear(features.narrow(1, 0, k), weight.narrow(1, 0, k));
}

std::vector<double> accuracy_by_features(const torch::Tensor& features, const torch::Tensor& weight,
                                         const torch::Tensor& labels) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor z = features.t().contiguous(), w = weight.t().contiguous();  // [d, n], [d, classes]
  torch::Tensor logits = torch::zeros({features.size(0), weight.size(0)});
  std::vector<double> accuracy;
  for (int64_t k = 0; k < features.size(1); ++k) {
    logits.addr_(z[k], w[k]);
    accuracy.push_back((logits.argmax(1) == labels).to(torch::kFloat64).mean().item<double>());
  }
  return accuracy;
}

int64_t best_feature_count(const std::vector<double>& accuracy) {
  int64_t best = 1;
  for (size_t i = 1; i < accuracy.size(); ++i)
    if (accuracy[i] - kPricePerFeature * static_cast<double>(i + 1) >
        accuracy[best - 1] - kPricePerFeature * static_cast<double>(best))
      best = static_cast<int64_t>(i) + 1;
  return best;
}

std::vector<int64_t> small_losses(const torch::Tensor& losses, double forget) {
  const int64_t n = losses.size(0), kept = std::max<int64_t>(std::llround((1 - forget) * static_cast<double>(n)), 1);
  const torch::Tensor order = losses.argsort(/*stable=*/true, /*dim=*/0).narrow(0, 0, kept).contiguous();
  std::vector<int64_t> chosen(order.data_ptr<int64_t>(), order.data_ptr<int64_t>() + kept);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::pair<TrainedNet, int64_t> train_nested(const ClassifyData& data, const NestedCoteachingOptions& options, uint64_t seed,
                                            const std::string& title, const fs::path& folder, const Observer& observe) {
  const CountedNet counted = std::make_shared<CountedNetImpl>(make_net(options.classify, data, seed, false));
  VisionNetImpl& net = *counted->net;
  const std::vector<double> distribution = nested_distribution(net.feature_size, sigma_of(options, net));
  const AugmentOptions augment = augmentation(options.classify.augment);
  TrainTask task;
  task.title = title;
  task.modules = {{.name = "net", .module = counted.get()}};
  task.samples = data.train;
  task.loss = [&](const TrainStep& step) {
    const torch::Tensor z = net.features(image_batch(*data.set, step.samples, data.normalization, augment, step.seed));
    const torch::Tensor y = label_batch(data.labels, step.samples);
    if (!options.nested) return torch::cross_entropy_loss(net.classify(z), y);
    return loss_of_counted(z, *counted, draw_features(distribution, derived_seed(step.seed, 1)), y, true);
  };
  task.identity = identity_of(data, net);
  task.identity["nested"] = options.nested ? sigma_of(options, net) : 0.0;
  task.validate = [&] { return counted->choose(data, options.nested); };
  if (observe) task.observe = [&](int64_t) { return observe(net, counted->count()); };
  TrainOptions train_options = options.classify.train;
  train_options.seed = seed;
  TrainedNet trained{.net = counted->net, .result = train(task, train_options, folder)};
  return {std::move(trained), counted->count()};
}

void coteach(NestedPair& pair, const ClassifyData& data, const NestedCoteachingOptions& options, const fs::path& folder) {
  std::vector<CountedNet> counted;
  for (size_t i = 0; i < 2; ++i) {
    counted.push_back(std::make_shared<CountedNetImpl>(pair.nets.at(i)));
    counted[i]->features.fill_(pair.features.at(i));
  }
  const std::vector<double> distribution = nested_distribution(pair.nets[0]->feature_size, sigma_of(options, *pair.nets[0]));
  const AugmentOptions augment = augmentation(options.classify.augment);
  TrainTask task;
  task.title = "co-teaching";
  task.modules = {{.name = "first", .module = counted[0].get()}, {.name = "second", .module = counted[1].get()}};
  task.samples = data.train;
  task.before_epoch = [&](int64_t) {
    for (const CountedNet& net : counted) net->eval();  // batch norm stays as stage 1 left it
  };
  task.loss = [&](const TrainStep& step) {
    const torch::Tensor x = image_batch(*data.set, step.samples, data.normalization, augment, step.seed);
    const torch::Tensor y = label_batch(data.labels, step.samples);
    const int64_t half = std::max<int64_t>(x.size(0) / 2, 1), rest = x.size(0) - half;
    const int64_t k = options.nested ? draw_features(distribution, derived_seed(step.seed, 1)) : pair.nets[0]->feature_size;
    torch::Tensor loss = taught_loss(*counted[1], *counted[0], x.narrow(0, 0, half), y.narrow(0, 0, half), options.forget, k);
    if (rest > 0)
      loss = loss + taught_loss(*counted[0], *counted[1], x.narrow(0, half, rest), y.narrow(0, half, rest), options.forget, k);
    return loss;
  };
  const auto both = [&] {
    pair.features = {counted[0]->count(), counted[1]->count()};
    return accuracy_of(pair_logits(pair, data, data.validation), data.labels, data.validation);
  };
  task.validate = [&] {
    for (const CountedNet& net : counted) net->choose(data, options.nested);
    return both();
  };
  task.identity = identity_of(data, *pair.nets[0]);
  task.identity["nested"] = options.nested ? sigma_of(options, *pair.nets[0]) : 0.0;
  task.identity["forget"] = options.forget;
  TrainOptions train_options = options.classify.train;
  train_options.epochs = options.finetune_epochs;
  train_options.learning_rate *= options.finetune_rate;
  train_options.warmup_steps = 0;
  train_options.patience = 0;
  train_options.seed = derived_seed(options.classify.train.seed, 4);
  pair.finetuned = train(task, train_options, folder);
  pair.validation = both();
}

NestedPair nested_coteaching(const ClassifyData& data, const NestedCoteachingOptions& options, const fs::path& folder) {
  NestedCoteachingOptions checked = options;
  validate(describe(checked));
  NestedPair pair;
  for (const uint64_t number : {1, 2}) {
    auto [trained, k] = train_nested(data, options, derived_seed(options.classify.train.seed, 10, number),
                                     fmt::format("net {}", number), below(folder, number == 1 ? "first" : "second"));
    pair.nets.push_back(trained.net);
    pair.features.push_back(k);
    (number == 1 ? pair.first : pair.second) = std::move(trained.result);
  }
  if (options.coteaching)
    coteach(pair, data, options, below(folder, "finetuned"));
  else
    pair.validation = accuracy_of(pair_logits(pair, data, data.validation), data.labels, data.validation);
  return pair;
}

torch::Tensor pair_logits(const NestedPair& pair, const ClassifyData& data, std::span<const int64_t> samples) {
  const torch::NoGradGuard no_grad;
  torch::Tensor sum;
  for (size_t i = 0; i < pair.nets.size(); ++i) {
    const torch::Tensor logits =
        nested_logits(features_of(*pair.nets[i], data, samples), pair.nets[i]->head->weight, pair.features[i]);
    sum = sum.defined() ? sum + logits : logits;
  }
  return sum / static_cast<double>(pair.nets.size());
}

std::vector<Suspect> suspects(const torch::Tensor& logits, const std::vector<int32_t>& labels,
                              std::span<const int64_t> samples) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor probabilities = torch::softmax(logits, 1), preferred = probabilities.argmax(1);
  std::vector<Suspect> found;
  for (size_t i = 0; i < samples.size(); ++i) {
    const int32_t given = labels[samples[i]],
                  suggested = static_cast<int32_t>(preferred[static_cast<int64_t>(i)].item<int64_t>());
    if (given == suggested) continue;
    found.push_back({samples[i], 1 - probabilities[static_cast<int64_t>(i)][given].item<double>(), given, suggested});
  }
  std::stable_sort(found.begin(), found.end(), [](const Suspect& a, const Suspect& b) { return a.score > b.score; });
  return found;
}

}  // namespace lighten
