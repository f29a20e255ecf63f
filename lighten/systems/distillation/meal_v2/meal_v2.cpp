#include "lighten/systems/distillation/meal_v2/meal_v2.h"

#include "lighten/base/error.h"

namespace lighten {

namespace {

torch::Tensor per_channel(const std::vector<float>& values) {
  return torch::tensor(values).reshape({1, static_cast<int64_t>(values.size()), 1, 1});
}

void check(const MealV2Options& options) {
  MealV2Options copy = options;
  validate(describe(copy));
  if (options.soft == 0 && options.hard == 0)
    throw OptionError("meal-v2: soft and hard are both 0; there is nothing to learn from");
}

}  // namespace

MealV2Options::MealV2Options() {
  train.epochs = 60;
  train.batch_size = 64;
  train.learning_rate = 0.01;
  train.weight_decay = 0;
  train.schedule = "step";
}

OptionList describe(MealV2Options& o) {
  OptionList options = {
      option("augment", o.augment, one_of(std::vector<std::string>{"none", "shift", "crop", "flip"}), "how pictures are varied",
             "paper: random crop and flip"),
      option("soft", o.soft, range(0, 100), "weight of the teachers' probabilities", "paper"),
      option("hard", o.hard, range(0, 100), "weight of the labels", "paper: 0"),
      option("discriminator", o.discriminator, one_of(std::vector<std::string>{"minimax", "joint", "off"}),
             "minimax: the student learns to fool it; joint: as released", "paper"),
      option("discriminator-rate", o.discriminator_rate, above(0), "its learning rate", "official script"),
      option("cutmix", o.cutmix, range(0, 100), "Beta parameter of CutMix; 0: none", "paper"),
  };
  for (Option& more : describe(o.train, "paper's schedule, shortened")) options.push_back(std::move(more));
  return options;
}

TeacherBank::Outputs TeacherBank::forward(const torch::Tensor& x, const Normalization& seen) const {
  const torch::NoGradGuard no_grad;
  Outputs sum;
  for (const Classifier& teacher : members) {
    torch::Tensor own = x;
    if (teacher.mean != seen.mean || teacher.deviation != seen.deviation)
      own = (x * per_channel(seen.deviation) + (per_channel(seen.mean) - per_channel(teacher.mean))) /
            per_channel(teacher.deviation);
    const torch::Tensor logits = teacher.net->forward(own), probabilities = torch::softmax(logits, 1);
    sum.logits = sum.logits.defined() ? sum.logits + logits : logits;
    sum.probabilities = sum.probabilities.defined() ? sum.probabilities + probabilities : probabilities;
  }
  const double share = 1 / static_cast<double>(members.size());
  return {.probabilities = sum.probabilities * share, .logits = sum.logits * share};
}

void check_teachers(const TeacherBank& teachers, const Classifier& student) {
  if (teachers.members.empty()) throw OptionError("meal-v2: no teachers; give at least one trained classifier");
  const VisionConfig& own = student.net->config;
  for (size_t i = 0; i < teachers.members.size(); ++i) {
    const Classifier& teacher = teachers.members[i];
    const VisionConfig& other = teacher.net->config;
    if (teacher.class_names != student.class_names)
      throw_error<OptionError>("meal-v2: teacher {} knows other classes ({}) than the student ({}), or in another order", i + 1,
                               teacher.class_names.size(), student.class_names.size());
    if (other.channels != own.channels || other.height != own.height || other.width != own.width)
      throw_error<OptionError>("meal-v2: teacher {} sees pictures of {} x {} x {}, the student of {} x {} x {}", i + 1,
                               other.channels, other.height, other.width, own.channels, own.height, own.width);
  }
}

torch::Tensor soft_cross_entropy(const torch::Tensor& logits, const torch::Tensor& probabilities) {
  return -(probabilities * torch::log_softmax(logits, 1)).sum(1).mean();
}

DiscriminatorImpl::DiscriminatorImpl(int64_t classes, uint64_t seed) {
  torch::manual_seed(seed);
  const int64_t wide = std::max<int64_t>(classes / 8, 8), narrow = std::max<int64_t>(classes / 64, 8);
  first = register_module("first", torch::nn::Linear(classes, wide));
  second = register_module("second", torch::nn::Linear(wide, narrow));
  third = register_module("third", torch::nn::Linear(narrow, 2));
}

torch::Tensor DiscriminatorImpl::forward(const torch::Tensor& outputs, bool frozen) {
  const auto apply = [frozen](const torch::nn::Linear& layer, const torch::Tensor& x) {
    return frozen ? torch::linear(x, layer->weight.detach(), layer->bias.detach())
                  : torch::linear(x, layer->weight, layer->bias);
  };
  return apply(third, torch::relu(apply(second, torch::relu(apply(first, outputs)))));
}

torch::Tensor discriminator_loss(DiscriminatorImpl& discriminator, const torch::Tensor& student, const torch::Tensor& teachers,
                                 bool contest) {
  const int64_t n = student.size(0);
  torch::Tensor targets = torch::zeros({2 * n, 2});
  targets.narrow(0, 0, n).select(1, 0).fill_(1);
  targets.narrow(0, n, n).select(1, 1).fill_(1);
  const torch::Tensor seen = contest ? student.detach() : student;
  const torch::Tensor own =
      torch::binary_cross_entropy_with_logits(discriminator.forward(torch::cat({seen, teachers})), targets);
  if (!contest) return own;
  return own + torch::binary_cross_entropy_with_logits(discriminator.forward(student, true), targets.narrow(0, n, n)) / 2;
}

TrainResult meal_v2(Classifier& student, const TeacherBank& teachers, const ClassifyData& data, const MealV2Options& options,
                    const std::string& title, const fs::path& folder) {
  check(options);
  if (options.soft > 0 || options.discriminator != "off") check_teachers(teachers, student);
  VisionNetImpl& net = *student.net;
  for (const Classifier& teacher : teachers.members) teacher.net->eval();
  const Discriminator discriminator =
      std::make_shared<DiscriminatorImpl>(net.config.classes, derived_seed(options.train.seed, 5));
  const AugmentOptions augment = augmentation(options.augment);
  const bool contest = options.discriminator != "off";
  TrainTask task;
  task.title = title;
  task.modules = {{.name = "student", .module = &net}};
  if (contest)
    task.modules.push_back({.name = "discriminator",
                            .module = discriminator.get(),
                            .rate_scale = options.discriminator_rate / options.train.learning_rate});
  task.samples = data.train;
  task.identity = identity_of(data, net);
  task.identity["losses"] = {options.soft,   options.hard,   options.discriminator, options.discriminator_rate,
                             options.cutmix, options.augment};
  task.loss = [&](const TrainStep& step) {
    torch::Tensor x = image_batch(*data.set, step.samples, data.normalization, augment, step.seed);
    MixRecord mix;
    if (options.cutmix > 0) {
      Random random(derived_seed(step.seed, 1));
      mix = draw_cutmix(x.size(0), x.size(2), x.size(3), options.cutmix, random);
      x = apply_mix(x, mix);
    }
    const torch::Tensor logits = net.forward(x);
    torch::Tensor loss = torch::zeros({});
    if (options.hard > 0) loss = loss + options.hard * mixed_cross_entropy(logits, label_batch(data.labels, step.samples), mix);
    if (options.soft == 0 && !contest) return loss;
    const TeacherBank::Outputs taught = teachers.forward(x, data.normalization);
    if (options.soft > 0) loss = loss + options.soft * soft_cross_entropy(logits, taught.probabilities);
    if (contest) loss = loss + discriminator_loss(*discriminator, logits, taught.logits, options.discriminator == "minimax");
    return loss;
  };
  task.validate = [&] { return accuracy_of(logits_of(net, data, data.validation), data.labels, data.validation); };
  return train(task, options.train, folder);
}

}  // namespace lighten
