// The one training loop: a system supplies a loss of a batch; everything else is here.
#pragma once
#include <torch/torch.h>

#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/options.h"
#include "lighten/train/optimizer.h"
#include "lighten/train/schedule.h"

namespace lighten {

struct TrainOptions {
  int64_t epochs = 30;
  int64_t batch_size = 128;
  std::string optimizer = "sgd";  ///< "sgd", "adam", "adamw" (train/optimizer.h)
  double learning_rate = 0.05;
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 5e-4;
  std::string schedule = "cosine";  ///< "constant", "step", "cosine" (train/schedule.h)
  int64_t warmup_steps = 0;
  double ema = 0;                     ///< decay of the average of weights that is validated and returned; 0: none
  double clip_norm = 0;               ///< gradients are scaled down to this norm; 0: never
  int64_t patience = 0;               ///< epochs without a better validation score after which training ends; 0: never
  std::string precision = "float32";  ///< "bf16": products and convolutions of the forward pass in bfloat16
  uint64_t seed = 0;
};
/// Declared once; a system takes them over with its own defaults in `options`. `source`: where those come from.
OptionList describe(TrainOptions& options, const std::string& source = "Lighten");

/// What the loss is asked for.
struct TrainStep {
  int64_t epoch = 0;
  int64_t step = 0;         ///< in the epoch
  int64_t global_step = 0;  ///< epoch * steps_per_epoch + step
  int64_t total_steps = 0;
  std::span<const int64_t> samples;  ///< of this batch
  uint64_t seed = 0;                 ///< for this step's random choices; torch's generator is seeded with it too
};

/// A module that is trained. One with buffers alone is carried along in checkpoints.
struct TrainedModule {
  std::string name;  ///< in checkpoints
  torch::nn::Module* module = nullptr;
  double rate_scale = 1;     ///< times the learning rate
  double weight_decay = -1;  ///< -1: that of the options
};

struct TrainTask {
  std::string title;  ///< for the progress line: "nested, seed 1"
  std::vector<TrainedModule> modules;
  std::vector<int64_t> samples;  ///< what batches are drawn from
  /// The loss (a scalar with a gradient) of a batch; modules are in training mode.
  std::function<torch::Tensor(const TrainStep&)> loss;
  /// A score on validation data (never test data), higher is better; modules are in evaluation mode, without gradients, with
  /// averaged weights if there are any. Empty: the weights of the last epoch are returned.
  std::function<double()> validate;
  /// More figures for the log of an epoch (evaluation mode, after validate). May be empty.
  std::function<Json(int64_t epoch)> observe;
  /// Called between backward and the update: gradients of other processes are summed here. May be empty.
  std::function<void()> after_backward;
  /// Called when an epoch begins, after modules were set to training mode: freeze parts of them here. May be empty.
  std::function<void(int64_t epoch)> before_epoch;
  /// Called once before the first step, with the number of steps that a checkpoint had taken already. May be empty.
  std::function<void(int64_t global_step)> after_resume;
  bool writes = true;  ///< false: checkpoint and log are read but never written (another process does)
  bool drop_last = true;
  /// What else a checkpoint must agree on (a hash of labels): resuming with another value is refused. May be empty.
  Json identity = Json::object();
};

struct EpochLog {
  int64_t epoch = 0;
  double loss = 0;  ///< mean over its steps
  double score = std::numeric_limits<double>::quiet_NaN();
  double learning_rate = 0;  ///< of its last step
  double seconds = 0;
  Json observed;  ///< what observe() gave
};

struct TrainResult {
  std::vector<EpochLog> history;
  int64_t best_epoch = -1;
  double best_score = -std::numeric_limits<double>::infinity();
  bool stopped_early = false;
  int64_t skipped_steps = 0;  ///< whose loss or gradient was not finite
  double seconds = 0;         ///< of all runs together
  int64_t samples_seen = 0;
};

/// Where a training, or a system's several ones, keep what they need to go on, and what their checkpoints must agree on besides
/// the options of the loop (options of the system, hashes of the data). Default: nowhere.
struct TrainPlace {
  fs::path folder;
  Json identity = Json::object();
  /// The place of one of several trainings: folder/name.
  TrainPlace part(const std::string& name) const;
};

/// Trains the modules in place; on return they hold the weights of the best validated epoch (of the last one without
/// `validate`), averaged if `ema` is set, in evaluation mode.
///
/// With a `folder`, the state is written to folder/checkpoint.safetensors after every epoch, after every minute and on Ctrl-C,
/// and the log to folder/log.jsonl, one line an epoch. Called again with the same folder, task and options the training goes on
/// and ends in the same bytes as if it had never stopped (same number of threads); a finished one only loads its result.
/// A checkpoint of other options is refused with an OptionError that names the option.
///
/// Steps with a loss or gradient that is not finite change nothing; after ten in a row ModelError says what to try.
TrainResult train(const TrainTask& task, const TrainOptions& options, const fs::path& folder = {});
/// The same at a place; its identity joins the task's.
TrainResult train(TrainTask task, const TrainOptions& options, const TrainPlace& place);

/// "▇▅▃▂▁": values scaled between their extremes, at most `width` of them (means of neighbours). Empty for none.
std::string sparkline(const std::vector<double>& values, size_t width = 24);

}  // namespace lighten
