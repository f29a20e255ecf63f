// The reproduction: clothes (10 classes) and letters of unseen fonts (62), learnt from labels of which a share is wrong.
#include "lighten/systems/labels/nested_coteaching/recipe.h"

#include "lighten/base/error.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/inject.h"
#include "lighten/eval/classification.h"
#include "lighten/evidence/seeds.h"
#include "lighten/systems/labels/nested_coteaching/nested_coteaching.h"

namespace lighten {
namespace {

using Metrics = std::map<std::string, double>;

/// A data set, the share of its labels that are wrong, and what learns it.
struct Case {
  std::string data;  ///< "letters" or "fashion"
  int percent = 0;
  std::string net = {};
  int64_t width = 0, features = 0;
  int64_t train = 0, validation = 0, test = 0;  ///< samples
  int64_t epochs = 0, finetune_epochs = 0;
  std::string name() const { return fmt::format("{}, {} %", data, percent); }
};

/// How large each size of the run is.
struct Extent {
  int seeds;
  std::vector<Case> cases;
};

/// An MLP on clothes: its steps are cheap, and a batch trains only the features that its k keeps.
Case fashion(int percent, int64_t train) { return {"fashion", percent, "mlp", 256, 256, train, train / 3, 4000, 40, 3}; }

Extent extent_of(RecipeSize size) {
  if (size == RecipeSize::smoke) return {1, {{"letters", 40, "conv3", 4, 32, 400, 200, 200, 2, 1}}};
  if (size == RecipeSize::standard) return {3, {fashion(40, 3000)}};
  return {3, {fashion(20, 6000), fashion(40, 6000), {"letters", 40, "conv3", 12, 256, 1500, 800, 3000, 24, 3}}};
}

constexpr int64_t kWatched = 800;  // samples that are looked at after every epoch
constexpr double kWarmup = 0.1;    // share of the steps in which the rate rises (the paper: 6,000 of some 55,000)

/// What an arm can choose between on validation data: the learning rate, and for taught pairs stage 2's share of it.
const std::vector<double> kRates = {0.003, 0.01, 0.05}, kTeachingShares = {0.02, 0.2};

/// One draw of everything: which fonts are held out, which labels are wrong.
class Trial {
 public:
  Trial(const Case& of, uint64_t seed)
      : set_(image_set(of.data == "letters" ? "glyph-latin" : of.data, {.limit = of.train, .split_seed = seed})) {
    trim(of);
    const auto classes = static_cast<int32_t>(set_.class_names.size());
    const uint64_t drawn = derived_seed(seed, 20);
    noise_ = symmetric_flip(set_.labels, classes, of.percent / 100.0, drawn);
    data_ = classify_data(set_, noise_.noisy);
    for (const int64_t i : data_.train)
      if (noise_.noisy[i] != set_.labels[i]) wrong_.push_back(i);
    watched_wrong_ = first(wrong_, kWatched);
    watched_test_ = first(data_.test, kWatched);
  }
  const ClassifyData& data() const { return data_; }
  const InjectionAudit& audit() const { return noise_.audit; }

  double test_accuracy(const torch::Tensor& logits) const { return accuracy_of(logits, set_.labels, data_.test); }
  /// Share of the wrong training labels that a net gives back, and its accuracy on a part of the test side.
  Json watch(VisionNetImpl& net, int64_t k) const {
    const auto logits = [&](const std::vector<int64_t>& samples) {
      return nested_logits(features_of(net, data_, samples), net.head->weight, k);
    };
    return {{"memorised", accuracy_of(logits(watched_wrong_), noise_.noisy, watched_wrong_)},
            {"test", accuracy_of(logits(watched_test_), set_.labels, watched_test_)}};
  }
  /// How well a pair of nets tells wrong labels from right ones.
  Metrics cleaning(const NestedPair& pair) const {
    const torch::Tensor probabilities = torch::softmax(pair_logits(pair, data_, data_.train), 1);
    const torch::Tensor given = probabilities.gather(1, label_batch(noise_.noisy, data_.train).unsqueeze(1)).squeeze(1);
    std::vector<double> scores;
    std::vector<uint8_t> wrong;
    for (size_t i = 0; i < data_.train.size(); ++i) {
      scores.push_back(1 - given[static_cast<int64_t>(i)].item<double>());
      wrong.push_back(noise_.noisy[data_.train[i]] != set_.labels[data_.train[i]]);
    }
    const std::vector<Suspect> found = suspects(pair_logits(pair, data_, data_.train), noise_.noisy, data_.train);
    int64_t caught = 0, corrected = 0;
    for (const Suspect& suspect : found) {
      caught += suspect.given != set_.labels[suspect.sample];
      corrected += suspect.suggested == set_.labels[suspect.sample];
    }
    const auto share = [](int64_t part, size_t whole) {
      return static_cast<double>(part) / static_cast<double>(std::max<size_t>(whole, 1));
    };
    return {{"suspect_auc", auc(wrong, scores)},
            {"suspect_precision", share(caught, found.size())},
            {"suspect_recall", share(caught, wrong_.size())},
            {"suspect_corrected", share(corrected, wrong_.size())}};
  }

 private:
  ImageSet set_;
  NoisyLabels noise_;
  ClassifyData data_;
  std::vector<int64_t> wrong_, watched_wrong_, watched_test_;

  static std::vector<int64_t> first(const std::vector<int64_t>& samples, int64_t number) {
    return {samples.begin(), samples.begin() + std::min<int64_t>(number, static_cast<int64_t>(samples.size()))};
  }
  /// Fewer validation and test samples than training samples, spread over the fonts.
  void trim(const Case& of) {
    std::vector<int64_t> kept = samples_of(set_.splits, Split::train);
    for (const auto& [split, wanted] : {std::pair(Split::validation, of.validation), std::pair(Split::test, of.test)}) {
      const std::vector<int64_t> all = samples_of(set_.splits, split);
      const int64_t number = std::min<int64_t>(wanted, static_cast<int64_t>(all.size()));
      for (int64_t i = 0; i < number; ++i) kept.push_back(all[i * static_cast<int64_t>(all.size()) / number]);
    }
    set_ = subset(set_, kept);
  }
};

NestedCoteachingOptions options_of(const Case& of) {
  NestedCoteachingOptions options;
  options.classify.architecture = of.net;
  options.classify.base_width = of.width;
  options.classify.feature_size = of.features;
  options.classify.train.epochs = of.epochs;
  options.classify.train.batch_size = 64;  // small sets: more steps
  const int64_t steps = of.epochs * (of.train / options.classify.train.batch_size);
  options.classify.train.warmup_steps = std::llround(kWarmup * static_cast<double>(steps));
  options.finetune_epochs = of.finetune_epochs;
  options.forget = of.percent / 100.0;
  return options;
}

/// The candidate with the best validation score, the first of equals, and what was made with it.
template <class Make>
auto best_of(const std::vector<double>& candidates, const Make& make) {
  auto best = make(candidates.at(0));
  for (size_t i = 1; i < candidates.size(); ++i)
    if (auto other = make(candidates[i]); other.pair.validation > best.pair.validation) best = std::move(other);
  return best;
}

/// Where trainings are kept until the run is complete; sizes do not share them.
fs::path trainings_of(const Bench& bench) { return bench.folder() / ("trainings-" + to_string(bench.size())); }

/// The trainings that the arms of one noise and seed are made of; each is done once and then loaded.
class Trainings {
 public:
  Trainings(const Bench& bench, const Case& of, uint64_t seed)
      : trial_(of, seed),
        options_(options_of(of)),
        folder_(trainings_of(bench) / fmt::format("{}-{}", of.data, of.percent) / std::to_string(seed)),
        seed_(seed) {
    options_.classify.train.seed = seed;
  }
  const Trial& trial() const { return trial_; }

  struct One {
    NestedPair pair;  ///< of one net
    double rate = 0;
    EpochLog last;
    std::vector<double> curve;
  };
  /// Net 1 of a kind ("ce", "dropout", "nested") with the best of some learning rates.
  One net(const std::string& kind, const std::vector<double>& rates) const {
    return best_of(rates, [&](double rate) { return net(kind, 1, rate); });
  }
  struct Two {
    NestedPair pair;
    double share = 0;  ///< of the learning rate, in stage 2
  };
  /// Both nets of a kind, taught by each other if there are shares to choose from.
  Two pair(const std::string& kind, double rate, const std::vector<double>& shares) const {
    const auto both = [&] {
      Two two;
      for (const uint64_t number : {1, 2}) {
        const One one = net(kind, number, rate);
        two.pair.nets.push_back(one.pair.nets[0]);
        two.pair.features.push_back(one.pair.features[0]);
      }
      return two;
    };
    if (shares.empty()) {
      Two two = both();
      two.pair.validation = accuracy_of(pair_logits(two.pair, trial_.data(), trial_.data().validation), trial_.data().labels,
                                        trial_.data().validation);
      return two;
    }
    return best_of(shares, [&](double share) {
      Two two = both();
      two.share = share;
      NestedCoteachingOptions options = options_;
      options.nested = kind == "nested";
      options.classify.train.learning_rate = rate;
      options.finetune_rate = share;
      coteach(two.pair, trial_.data(), options, folder_ / fmt::format("{}-taught-{}", kind, share));
      return two;
    });
  }

 private:
  Trial trial_;
  NestedCoteachingOptions options_;
  fs::path folder_;
  uint64_t seed_;

  One net(const std::string& kind, uint64_t number, double rate) const {
    NestedCoteachingOptions options = options_;
    options.nested = kind == "nested";
    options.classify.train.learning_rate = rate;
    if (kind == "dropout") options.classify.dropout = 0.3;
    const std::string name = fmt::format("{}-{}-{}", kind, number, rate);
    auto [trained, k] = train_nested(trial_.data(), options, derived_seed(seed_, 10, number), name, folder_ / name,
                                     [&](VisionNetImpl& net, int64_t features) { return trial_.watch(net, features); });
    One one;
    one.pair.nets = {trained.net};
    one.pair.features = {k};
    one.pair.validation = trained.result.best_score;
    one.rate = rate;
    one.last = trained.result.history.back();
    for (const EpochLog& log : trained.result.history) one.curve.push_back(log.observed.at("test"));
    return one;
  }
};

Metrics measure_net(const Trainings& trainings, const std::string& kind, const std::vector<double>& rates) {
  const Trainings::One one = trainings.net(kind, rates);
  const Trial& trial = trainings.trial();
  return {{"accuracy", trial.test_accuracy(pair_logits(one.pair, trial.data(), trial.data().test))},
          {"accuracy_last", one.last.observed.at("test")},
          {"memorised", one.last.observed.at("memorised")},
          {"rate", one.rate},
          {"validation", one.pair.validation},
          {"features", static_cast<double>(one.pair.features[0])}};
}

Metrics measure_pair(const Trainings& trainings, const std::string& kind, double rate, const std::vector<double>& shares) {
  const auto [pair, share] = trainings.pair(kind, rate, shares);
  const Trial& trial = trainings.trial();
  Metrics metrics = trial.cleaning(pair);
  metrics["accuracy"] = trial.test_accuracy(pair_logits(pair, trial.data(), trial.data().test));
  metrics["validation"] = pair.validation;
  metrics["features"] = static_cast<double>(pair.features[0] + pair.features[1]) / 2;
  metrics["rate"] = rate;
  if (!shares.empty()) metrics["share"] = share;
  return metrics;
}

/// An arm: one net, a pair, or a pair whose nets teach each other, of a kind of stage 1.
struct Arm {
  std::string name, kind;
  bool pair = false, taught = false;
};

const std::vector<Arm>& arms() {
  static const std::vector<Arm> all = {{"ce", "ce"},
                                       {"dropout", "dropout"},
                                       {"nested", "nested"},
                                       {"ce pair", "ce", true},
                                       {"nested pair", "nested", true},
                                       {"co-teaching", "ce", true, true},
                                       {"nested+co-teaching", "nested", true, true}};
  return all;
}

std::string arm_name(const std::string& arm, const Case& of) { return arm + ", " + of.name(); }

/// What validation chose with the first seed is kept for the others.
std::vector<double> to_try(const Bench& bench, const std::string& arm, const Case& of, const std::string& metric,
                           const std::vector<double>& candidates) {
  const std::vector<double> chosen = bench.values(arm_name(arm, of), metric);
  return chosen.empty() ? candidates : std::vector<double>{chosen[0]};
}

Metrics measure(const Bench& bench, const Trainings& trainings, const Arm& arm, const Case& of) {
  const std::vector<double> rates = to_try(bench, arm.kind, of, "rate", kRates);
  if (!arm.pair) return measure_net(trainings, arm.kind, rates);
  const double rate = rates.at(0);  // the single net of this kind, measured before, chose it
  if (!arm.taught) return measure_pair(trainings, arm.kind, rate, {});
  return measure_pair(trainings, arm.kind, rate, to_try(bench, arm.name, of, "share", kTeachingShares));
}

void describe_metrics(Bench& bench) {
  bench.describe_metric("accuracy", "test accuracy");
  bench.describe_metric("accuracy_last", "test accuracy, last epoch");
  bench.describe_metric("memorised", "wrong labels memorised, last epoch");
  bench.describe_metric("features", "features used");
  bench.describe_metric("validation", "accuracy on noisy validation labels");
  bench.describe_metric("rate", "learning rate (by validation)");
  bench.describe_metric("share", "stage 2: share of that rate (by validation)");
  bench.describe_metric("suspect_auc", "AUC of suspect scores");
  bench.describe_metric("suspect_precision", "suspects that are wrong");
  bench.describe_metric("suspect_recall", "wrong labels found");
  bench.describe_metric("suspect_corrected", "wrong labels corrected");
}

void claims(Bench& bench, const Case& of) {
  const auto claim = [&](const std::string& text, const std::string& better, const std::string& worse) {
    claim_higher(bench, fmt::format("{} ({})", text, of.name()), arm_name(better, of), arm_name(worse, of), "accuracy");
  };
  claim("nested dropout beats plain cross-entropy", "nested", "ce");
  claim("nested dropout beats dropout", "nested", "dropout");
  claim("co-teaching makes nested pairs better", "nested+co-teaching", "nested pair");
  claim("nested dropout with co-teaching beats a pair of plain nets", "nested+co-teaching", "ce pair");
  claim("nested dropout with co-teaching beats co-teaching alone", "nested+co-teaching", "co-teaching");
}

void run(Bench& bench) {
  at::set_num_threads(bench.threads() > 0 ? bench.threads() : at::get_num_threads());
  describe_metrics(bench);
  const Extent extent = extent_of(bench.size());
  const std::vector<uint64_t> seeds = bench.seeds(extent.seeds);
  std::map<std::string, std::vector<double>> curves;
  for (const uint64_t seed : seeds)
    for (const Case& of : extent.cases) {
      std::optional<Trainings> trainings;  // made when an arm is missing
      for (const Arm& arm : arms())
        bench.arm(arm_name(arm.name, of), seed, [&] {
          if (!trainings) trainings.emplace(bench, of, seed);
          return measure(bench, *trainings, arm, of);
        });
      if (trainings && seed == seeds[0] && of.percent == 40 && curves.empty())
        for (const std::string kind : {"ce", "dropout", "nested"})
          curves[kind] = trainings->net(kind, to_try(bench, kind, of, "rate", kRates)).curve;
    }
  for (const Case& of : extent.cases) claims(bench, of);
  std::vector<SweepLine> lines;
  for (const Arm& arm : arms())
    lines.push_back({arm.name, {{20, arm_name(arm.name, {"fashion", 20})}, {40, arm_name(arm.name, {"fashion", 40})}}});
  if (extent.cases.size() > 1)
    plot_sweep(bench, "Fashion-MNIST: test accuracy against symmetric noise", "wrong labels, %", "accuracy", lines, 100,
               "test accuracy, %");
  plot_curves(bench, fmt::format("Learning {}, 40 % wrong labels, first seed", extent.cases[0].data), "test accuracy", curves);
  bench.note(
      "Fashion-MNIST (10 classes) and letters (62), a share of all labels exchanged for another class at random. Training and "
      "validation labels are noisy alike; epoch, number of features, learning rate and that of stage 2 (these two with the "
      "first seed, then kept) are chosen on the noisy validation labels, never on test data; all arms warm up for a tenth of "
      "the steps. Pairs predict with the mean of two nets, so they are compared with pairs. 'Memorised' is the share of "
      "wrong training labels that a net gives back after its last epoch: a net that cannot memorise would prove nothing.");
  bench.setting("data", "fashion; glyph-latin, fonts of training, validation and test disjoint, another split for every seed");
  for (const Case& of : extent.cases)
    bench.setting(
        of.name(),
        {{"net", of.net}, {"width", of.width}, {"features", of.features}, {"train_samples", of.train}, {"epochs", of.epochs}});
  bench.setting("rates", kRates);
  bench.setting("teaching_shares", kTeachingShares);
  NestedCoteachingOptions options = options_of(extent.cases[0]);
  bench.setting("nested-coteaching", to_json(describe(options)));
  fs::remove_all(trainings_of(bench));
}

}  // namespace

Recipe nested_coteaching_recipe() {
  return {
      .id = "nested-coteaching",
      .claim =
          "With wrong labels in the training data, a classifier whose features are ordered by nested dropout and cut where "
          "validation says is more accurate on clean test data than one with dropout or plain cross-entropy; co-teaching of "
          "two such nets is best.",
      .run = run};
}

}  // namespace lighten
