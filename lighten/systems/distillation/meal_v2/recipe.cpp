// The reproduction: a small classifier of letters in unseen fonts, two stronger ones, and the same extra epochs for every arm.
#include "lighten/systems/distillation/meal_v2/recipe.h"

#include "lighten/base/error.h"
#include "lighten/data/image_sets.h"
#include "lighten/evidence/seeds.h"
#include "lighten/systems/distillation/meal_v2/meal_v2.h"

namespace lighten {
namespace {

using Metrics = std::map<std::string, double>;

struct Extent {
  int seeds;
  int64_t limit, teacher_epochs, student_epochs, extra_epochs, student_width;
  std::vector<std::pair<std::string, int64_t>> teachers;  ///< architecture, width
};

Extent extent_of(RecipeSize size) {
  if (size == RecipeSize::smoke) return {1, 120, 1, 1, 1, 4, {{"conv3", 8}}};
  if (size == RecipeSize::standard) return {3, 700, 8, 5, 6, 8, {{"conv3", 32}, {"conv3", 24}}};
  return {3, 1500, 20, 12, 16, 8, {{"conv3", 48}, {"conv3", 32}}};
}

constexpr const char* kAugment = "crop";  // letters must not be mirrored

/// How one arm uses the extra epochs.
struct Arm {
  std::string name;
  bool pretrained = true;
  double soft = 1, hard = 0;
  std::string discriminator = "off";
  double weight_decay = 0;
};

const std::vector<Arm>& arms() {
  static const std::vector<Arm> table = {
      {.name = "CE", .soft = 0, .hard = 1, .weight_decay = 5e-4},
      {.name = "CE + KD", .soft = 1, .hard = 1, .weight_decay = 5e-4},
      {.name = "KD from random weights", .pretrained = false},
      {.name = "KD with weight decay", .weight_decay = 1e-4},
      {.name = "KD"},
      {.name = "MEAL V2 (joint)", .discriminator = "joint"},
      {.name = "MEAL V2", .discriminator = "minimax"},
  };
  return table;
}

std::string teacher_name(const std::string& architecture, int64_t width) {
  return fmt::format("teacher {} of width {}", architecture, width);
}

/// Where trainings are kept until the run is complete; sizes do not share them.
fs::path trainings_of(const Bench& bench) { return bench.folder() / ("trainings-" + to_string(bench.size())); }

/// What the arms of one seed share: data, teachers, the student as it was before.
class Laboratory {
 public:
  Laboratory(const Bench& bench, const Extent& extent, uint64_t seed)
      : extent_(extent),
        seed_(seed),
        folder_(trainings_of(bench) / std::to_string(seed)),
        set_(glyph_latin_set({.limit = extent.limit, .split_seed = seed})),
        data_(classify_data(set_)) {
    for (const auto& [architecture, width] : extent.teachers)
      teachers_.members.push_back(trained(architecture, width, extent.teacher_epochs, teacher_name(architecture, width)));
  }
  Metrics figures(const Classifier& classifier) const {
    return {{"accuracy", accuracy_of(logits_of(*classifier.net, data_, data_.test), data_.labels, data_.test)},
            {"validation", accuracy_of(logits_of(*classifier.net, data_, data_.validation), data_.labels, data_.validation)},
            {"parameters", static_cast<double>(vision_parameters(classifier.net->config))}};
  }
  Classifier student_before() const { return trained("conv3", extent_.student_width, extent_.student_epochs, "student"); }
  const TeacherBank& teachers() const { return teachers_; }

  Metrics measure(const Arm& arm) const {
    Classifier student = arm.pretrained ? student_before() : untrained();
    MealV2Options options;
    options.augment = kAugment;
    options.soft = arm.soft;
    options.hard = arm.hard;
    options.discriminator = arm.discriminator;
    options.train.epochs = extent_.extra_epochs;
    options.train.weight_decay = arm.weight_decay;
    options.train.seed = seed_;
    meal_v2(student, teachers_, data_, options, arm.name, folder_ / arm.name);
    return figures(student);
  }
  /// Accuracy of the mean of the teachers' probabilities.
  double ensemble() const {
    torch::Tensor sum = torch::zeros({});
    for (const Classifier& teacher : teachers_.members)
      sum = sum + torch::softmax(logits_of(*teacher.net, data_, data_.test), 1);
    return accuracy_of(sum, data_.labels, data_.test);
  }

 private:
  Extent extent_;
  uint64_t seed_;
  fs::path folder_;
  ImageSet set_;
  ClassifyData data_;
  TeacherBank teachers_;

  static ClassifyOptions options_of(const std::string& architecture, int64_t width) {
    ClassifyOptions options;
    options.architecture = architecture;
    options.base_width = width;
    options.feature_size = architecture == "conv3" ? 8 * width : 0;
    options.augment = kAugment;
    options.train.batch_size = 64;
    return options;
  }
  Classifier trained(const std::string& architecture, int64_t width, int64_t epochs, const std::string& title) const {
    ClassifyOptions options = options_of(architecture, width);
    options.train.epochs = epochs;
    options.train.seed = derived_seed(seed_, 7, static_cast<uint64_t>(width));
    return classifier_from(train_classifier(data_, options, title, folder_ / title).net, data_, {});
  }
  Classifier untrained() const {
    return classifier_from(make_net(options_of("conv3", extent_.student_width), data_, derived_seed(seed_, 8)), data_, {});
  }
};

void run(Bench& bench) {
  if (bench.threads() > 0) at::set_num_threads(bench.threads());
  bench.describe_metric("accuracy", "test accuracy");
  bench.describe_metric("validation", "validation accuracy");
  bench.describe_metric("parameters", "parameters");
  bench.baseline("CE");
  const Extent extent = extent_of(bench.size());
  for (const uint64_t seed : bench.seeds(extent.seeds)) {
    std::optional<Laboratory> laboratory;
    const auto here = [&]() -> Laboratory& {
      if (!laboratory) laboratory.emplace(bench, extent, seed);
      return *laboratory;
    };
    for (size_t t = 0; t < extent.teachers.size(); ++t)
      bench.arm(teacher_name(extent.teachers[t].first, extent.teachers[t].second), seed,
                [&] { return here().figures(here().teachers().members[t]); });
    bench.arm("teachers together", seed, [&] { return Metrics{{"accuracy", here().ensemble()}}; });
    bench.arm("student before", seed, [&] { return here().figures(here().student_before()); });
    for (const Arm& arm : arms()) bench.arm(arm.name, seed, [&] { return here().measure(arm); });
  }
  const auto claim = [&](const std::string& text, const std::string& better, const std::string& worse) {
    claim_higher(bench, text, better, worse, "accuracy");
  };
  claim("MEAL V2 beats further training on labels", "MEAL V2", "CE");
  claim("MEAL V2 beats labels and teachers together", "MEAL V2", "CE + KD");
  claim("a trained start beats random weights", "KD", "KD from random weights");
  claim("no weight decay beats weight decay", "KD", "KD with weight decay");
  claim("the discriminator helps", "MEAL V2", "KD");
  claim("a contest beats minimising together", "MEAL V2", "MEAL V2 (joint)");
  bench.note(
      "Every arm gets the same extra epochs, augmentation and choice of the best epoch by validation accuracy, from the same "
      "trained student "
      "(one arm: from random weights). Arms with labels keep the usual weight decay of 5e-4; the method's arms have none, as "
      "the paper says.");
  bench.setting("data", "glyph-latin, fonts of training, validation and test disjoint; another split for every seed");
  bench.setting("samples_per_split", extent.limit);
  MealV2Options options;
  options.train.epochs = extent.extra_epochs;
  bench.setting("meal-v2", to_json(describe(options)));
  fs::remove_all(trainings_of(bench));
}

}  // namespace

Recipe meal_v2_recipe() {
  return {.id = "meal-v2",
          .claim =
              "A trained small classifier that goes on with nothing but the mean probabilities of stronger teachers, a "
              "discriminator and "
              "no weight decay becomes more accurate than with labels, or with labels and teachers, in the same epochs.",
          .run = run};
}

}  // namespace lighten
