#include "lighten/train/loop.h"

#include <ATen/autocast_mode.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <chrono>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/train/checkpoint.h"
#include "lighten/train/ema.h"
#include "lighten/train/loader.h"

namespace lighten {

namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr int64_t kMostSkippedInARow = 10;
constexpr double kSecondsBetweenCheckpoints = 60;

/// Products and convolutions of the forward pass in bfloat16, on the processor, while it lives.
class Autocast {
 public:
  explicit Autocast(bool on) : on_(on), before_(at::autocast::is_autocast_enabled(at::kCPU)) {
    if (!on_) return;
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCPU, true);
  }
  ~Autocast() {
    if (!on_) return;
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, before_);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  bool on_, before_;
};

/// The averaged weights stand in the net while it lives.
class Averaged {
 public:
  explicit Averaged(std::optional<Ema>& ema) : ema_(ema) {
    if (ema_) ema_->swap();
  }
  ~Averaged() {
    if (ema_) ema_->swap();
  }
  Averaged(const Averaged&) = delete;
  Averaged& operator=(const Averaged&) = delete;

 private:
  std::optional<Ema>& ema_;
};

class Training {
 public:
  Training(const TrainTask& task, const TrainOptions& options, const fs::path& folder);
  TrainResult run();

 private:
  const TrainTask& task_;
  const TrainOptions& options_;
  fs::path folder_;
  BatchOrder order_;
  Schedule schedule_;
  NamedTensors net_, buffers_;
  Optimizer optimizer_;
  std::optional<Ema> ema_;
  NamedTensors best_;
  TrainProgress at_;
  Json fingerprint_;
  int64_t skipped_in_a_row_ = 0;
  Clock::time_point run_start_ = Clock::now(), epoch_start_ = Clock::now(), last_save_ = Clock::now();
  double seconds_before_ = 0, epoch_seconds_before_ = 0;

  std::vector<ParameterGroup> groups() const;
  bool resume();
  void save();
  void write_log() const;
  double rate_at(int64_t global_step) const;
  bool take_step();
  void end_epoch();
  void validate(EpochLog& log);
  std::string note() const;
  void set_training(bool on) const;
};

std::vector<ParameterGroup> Training::groups() const {
  std::vector<ParameterGroup> groups;
  for (const TrainedModule& trained : task_.modules) {
    ParameterGroup group{
        .name = trained.name, .parameters = {}, .rate_scale = trained.rate_scale, .weight_decay = trained.weight_decay};
    if (group.weight_decay < 0) group.weight_decay = options_.weight_decay;
    for (const auto& item : trained.module->named_parameters()) group.parameters.emplace_back(item.key(), item.value());
    if (!group.parameters.empty()) groups.push_back(std::move(group));
  }
  return groups;
}

Training::Training(const TrainTask& task, const TrainOptions& options, const fs::path& folder)
    : task_(task),
      options_(options),
      folder_(folder),
      order_(task.samples, options.batch_size, derived_seed(options.seed, 1), true, task.drop_last),
      schedule_{.kind = options.schedule, .warmup_steps = options.warmup_steps},
      optimizer_(groups(), {.kind = options.optimizer, .momentum = options.momentum, .nesterov = options.nesterov}) {
  for (const TrainedModule& trained : task.modules) {
    for (const auto& [name, tensor] : state_of(*trained.module, trained.name + ".")) net_.emplace_back(name, tensor);
    for (const auto& item : trained.module->named_buffers()) buffers_.emplace_back(item.key(), item.value());
  }
  if (options.ema > 0) ema_.emplace(net_, options.ema);
  TrainOptions copy = options;
  fingerprint_ = to_json(describe(copy));
  for (const auto& [name, value] : task.identity.items()) fingerprint_[name] = value;
  fingerprint_["samples"] = order_.size();
  fingerprint_["steps-per-epoch"] = order_.steps_per_epoch();
}

void Training::set_training(bool on) const {
  for (const TrainedModule& trained : task_.modules) trained.module->train(on);
}

bool Training::resume() {
  if (folder_.empty()) return false;
  std::optional<TrainCheckpoint> found = load_checkpoint(folder_ / "checkpoint.safetensors", fingerprint_);
  if (!found) return false;
  const std::string where = (folder_ / "checkpoint.safetensors").string();
  const auto part = [&](const std::string& prefix) {
    NamedTensors tensors;
    for (const auto& [name, tensor] : found->tensors)
      if (name.starts_with(prefix)) tensors.emplace_back(name.substr(prefix.size()), tensor);
    return tensors;
  };
  copy_state(part("net."), net_, where);
  copy_state(part("optimizer."), optimizer_.state(), where);
  if (ema_) copy_state(part("ema."), ema_->state(), where);
  if (found->progress.result.best_epoch >= 0) {
    best_ = cloned(net_);
    copy_state(part("best."), best_, where);
  }
  at_ = found->progress;
  seconds_before_ = at_.result.seconds;
  epoch_seconds_before_ = at_.epoch_seconds;
  return true;
}

void Training::save() {
  if (folder_.empty() || !task_.writes) return;
  at_.result.seconds = seconds_before_ + seconds_since(run_start_);
  at_.epoch_seconds = epoch_seconds_before_ + seconds_since(epoch_start_);
  TrainCheckpoint checkpoint{.fingerprint = fingerprint_, .progress = at_, .tensors = {}};
  const auto add = [&](const std::string& prefix, const NamedTensors& tensors) {
    for (const auto& [name, tensor] : tensors) checkpoint.tensors.emplace_back(prefix + name, tensor);
  };
  add("net.", net_);
  add("optimizer.", optimizer_.state());
  if (ema_) add("ema.", ema_->state());
  add("best.", best_);
  save_checkpoint(folder_ / "checkpoint.safetensors", checkpoint);
  write_log();
  last_save_ = Clock::now();
}

void Training::write_log() const {
  std::string lines;
  for (const EpochLog& log : at_.result.history) lines += json_text(to_json(log)) + "\n";
  write_file(folder_ / "log.jsonl", lines);
}

double Training::rate_at(int64_t global_step) const {
  return options_.learning_rate * schedule_factor(schedule_, global_step, options_.epochs * order_.steps_per_epoch());
}

/// One update; false if the loss or the gradient was not finite and nothing was changed.
bool Training::take_step() {
  TrainStep step{.epoch = at_.epoch,
                 .step = at_.step,
                 .global_step = at_.epoch * order_.steps_per_epoch() + at_.step,
                 .total_steps = options_.epochs * order_.steps_per_epoch(),
                 .samples = order_.batch(at_.epoch, at_.step),
                 .seed = 0};
  step.seed = derived_seed(options_.seed, 2, static_cast<uint64_t>(step.global_step));
  torch::manual_seed(step.seed);
  const NamedTensors buffers_before = cloned(buffers_);
  optimizer_.zero_grad();
  torch::Tensor loss;
  {
    const Autocast autocast(options_.precision == "bf16");
    loss = task_.loss(step);
  }
  if (!loss.defined() || loss.numel() != 1 || !loss.requires_grad())
    throw_error<ModelError>("{}: the loss must be one value with a gradient", task_.title);
  const double value = loss.item<double>();
  bool finite = std::isfinite(value);
  if (finite) {
    loss.backward();
    if (task_.after_backward) task_.after_backward();
    const double norm = optimizer_.gradient_norm();
    finite = std::isfinite(norm);
    if (finite && options_.clip_norm > 0 && norm > options_.clip_norm) optimizer_.scale_gradients(options_.clip_norm / norm);
  }
  if (!finite) {
    copy_state(buffers_before, buffers_, task_.title);
    return false;
  }
  optimizer_.step(rate_at(step.global_step));
  if (ema_) ema_->update();
  at_.loss_sum += value;
  ++at_.loss_steps;
  at_.result.samples_seen += static_cast<int64_t>(step.samples.size());
  return true;
}

void Training::validate(EpochLog& log) {
  if (!task_.validate && !task_.observe) return;
  const torch::NoGradGuard no_grad;
  set_training(false);
  const Averaged averaged(ema_);
  if (task_.validate) log.score = task_.validate();
  if (task_.observe) log.observed = task_.observe(at_.epoch);
  if (!task_.validate) return;
  const double score = std::isfinite(log.score) ? log.score : -std::numeric_limits<double>::infinity();
  if (at_.result.best_epoch < 0 || score > at_.result.best_score) {
    at_.result.best_score = score;
    at_.result.best_epoch = at_.epoch;
    at_.bad_epochs = 0;
    best_ = cloned(net_);
  } else {
    ++at_.bad_epochs;
  }
}

void Training::end_epoch() {
  EpochLog log;
  log.epoch = at_.epoch;
  log.loss = at_.loss_sum / static_cast<double>(std::max<int64_t>(at_.loss_steps, 1));
  log.learning_rate = rate_at((at_.epoch + 1) * order_.steps_per_epoch() - 1);
  validate(log);
  log.seconds = epoch_seconds_before_ + seconds_since(epoch_start_);
  at_.result.history.push_back(std::move(log));
  ++at_.epoch;
  at_.step = 0;
  at_.loss_sum = 0;
  at_.loss_steps = 0;
  epoch_seconds_before_ = 0;
  epoch_start_ = Clock::now();
  at_.result.stopped_early =
      options_.patience > 0 && task_.validate && at_.bad_epochs >= options_.patience && at_.epoch < options_.epochs;
  at_.finished = at_.result.stopped_early || at_.epoch >= options_.epochs;
}

std::string Training::note() const {
  std::vector<double> losses;
  for (const EpochLog& log : at_.result.history) losses.push_back(log.loss);
  if (at_.loss_steps > 0) losses.push_back(at_.loss_sum / static_cast<double>(at_.loss_steps));
  if (losses.empty()) return "";
  std::string text = fmt::format("loss {:.4g} {}", losses.back(), sparkline(losses));
  if (at_.result.best_epoch >= 0) text += fmt::format(" validation {:.4g}", at_.result.best_score);
  return text;
}

TrainResult Training::run() {
  if (resume() && !at_.finished) info(fmt::format("{}: going on at epoch {}, step {}", task_.title, at_.epoch + 1, at_.step));
  const int64_t steps = order_.steps_per_epoch();
  if (task_.after_resume) task_.after_resume(at_.epoch * steps + at_.step);
  Progress progress(task_.title, options_.epochs * steps, "steps");
  progress.skip(at_.finished ? options_.epochs * steps : at_.epoch * steps + at_.step);
  run_start_ = epoch_start_ = last_save_ = Clock::now();
  try {
    while (!at_.finished) {
      set_training(true);
      if (task_.before_epoch) task_.before_epoch(at_.epoch);
      while (at_.step < steps) {
        if (take_step()) {
          skipped_in_a_row_ = 0;
        } else {
          ++at_.result.skipped_steps;
          if (++skipped_in_a_row_ >= kMostSkippedInARow)
            throw_error<ModelError>(
                "{}: the loss or its gradient was not finite in {} steps in a row (epoch {}, learning rate {:.3g}). Try a "
                "smaller "
                "--learning-rate, or --clip-norm 1",
                task_.title, skipped_in_a_row_, at_.epoch + 1, rate_at(at_.epoch * steps + at_.step));
        }
        ++at_.step;
        progress.advance(1, note());
        if (seconds_since(last_save_) > kSecondsBetweenCheckpoints) save();
      }
      end_epoch();
      save();
    }
  } catch (const Interrupted&) {
    save();
    if (folder_.empty()) throw;
    throw Interrupted(fmt::format("{}: interrupted at epoch {}, step {}; the same command goes on from there", task_.title,
                                  at_.epoch + 1, at_.step));
  }
  progress.finish();
  if (!best_.empty())
    copy_state(best_, net_, task_.title);
  else if (ema_)
    ema_->swap();
  set_training(false);
  if (folder_.empty()) at_.result.seconds = seconds_since(run_start_);
  return at_.result;
}

}  // namespace

OptionList describe(TrainOptions& o, const std::string& source) {
  return {
      option("epochs", o.epochs, range(1, 1e6), "passes over the training data", source),
      option("batch-size", o.batch_size, range(1, 1e6), "samples a step", source),
      option("optimizer", o.optimizer, one_of(std::vector<std::string>{"sgd", "adam", "adamw"}), "how gradients are applied",
             source),
      option("learning-rate", o.learning_rate, above(0), "highest learning rate", source),
      option("momentum", o.momentum, range(0, 0.999), "of SGD", source),
      Option("nesterov", o.nesterov, "Nesterov's momentum", source),
      option("weight-decay", o.weight_decay, range(0, 10), "L2 penalty (AdamW: decoupled)", source),
      option("schedule", o.schedule, one_of(std::vector<std::string>{"constant", "step", "cosine"}),
             "learning rate over time; step: a tenth at half and at three quarters", source),
      option("warmup-steps", o.warmup_steps, range(0, 1e7), "steps in which the learning rate rises", source),
      option("ema", o.ema, range(0, 0.999999), "decay of averaged weights; 0: none", source),
      option("clip-norm", o.clip_norm, range(0, 1e9), "largest gradient norm; 0: any", source),
      option("patience", o.patience, range(0, 1e6), "epochs without a better validation score before it ends; 0: never",
             source),
      option("precision", o.precision, one_of(std::vector<std::string>{"float32", "bf16"}),
             "of products and convolutions in the forward pass", source),
      option("seed", o.seed, any_value(), "of order, augmentation and dropout", source),
  };
}

namespace {

/// A step frees what it took, and the next takes as much again: memory goes back to the system only from 1 GB of free space on.
/// Fetching every page anew would be a tenth of the time of a small ViT. (32 MB is the most that glibc takes for the second.)
void keep_freed_memory() {
#if defined(__GLIBC__)
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
#endif
}

}  // namespace

TrainResult train(const TrainTask& task, const TrainOptions& options, const fs::path& folder) {
  keep_freed_memory();
  TrainOptions checked = options;
  validate(describe(checked));
  if (task.modules.empty() || !task.loss) throw OptionError("train: a task needs modules and a loss");
  if (!folder.empty()) fs::create_directories(folder);
  return Training(task, options, folder).run();
}

TrainPlace TrainPlace::part(const std::string& name) const {
  return {.folder = folder.empty() ? fs::path() : folder / name, .identity = identity};
}

TrainResult train(TrainTask task, const TrainOptions& options, const TrainPlace& place) {
  for (const auto& [name, value] : place.identity.items()) task.identity[name] = value;
  return train(task, options, place.folder);
}

std::string sparkline(const std::vector<double>& values, size_t width) {
  static const char* const kBars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::vector<double> means;
  const size_t number = std::min(values.size(), width);
  for (size_t i = 0; i < number; ++i) {
    const size_t from = i * values.size() / number, to = (i + 1) * values.size() / number;
    double sum = 0;
    for (size_t j = from; j < to; ++j) sum += values[j];
    means.push_back(sum / static_cast<double>(to - from));
  }
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double value : means)
    if (std::isfinite(value)) low = std::min(low, value), high = std::max(high, value);
  std::string text;
  for (const double value : means) {
    if (!std::isfinite(value))
      text += "?";
    else
      text += kBars[high > low ? static_cast<size_t>(std::lround((value - low) / (high - low) * 7)) : 0];
  }
  return text;
}

}  // namespace lighten
