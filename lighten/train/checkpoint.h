// What a training needs to go on exactly where it was, as one file.
#pragma once
#include <optional>

#include "lighten/base/file.h"
#include "lighten/nn/state.h"
#include "lighten/train/loop.h"

namespace lighten {

/// Where a training stands: the next step to take, sums of the epoch that is under way, and what was found so far.
struct TrainProgress {
  int64_t epoch = 0, step = 0;
  double loss_sum = 0;
  int64_t loss_steps = 0;
  double epoch_seconds = 0;
  int64_t bad_epochs = 0;
  bool finished = false;
  TrainResult result;
};

/// Tensors by their place in a checkpoint: "net.", "optimizer.", "ema.", "best.".
struct TrainCheckpoint {
  Json fingerprint;  ///< options and shape of the task
  TrainProgress progress;
  NamedTensors tensors;
};

/// Writes atomically.
void save_checkpoint(const fs::path& path, const TrainCheckpoint& checkpoint);
/// Nothing if there is no such file. Throws FormatError for a damaged one, and OptionError, naming what differs, if its
/// fingerprint is another one.
std::optional<TrainCheckpoint> load_checkpoint(const fs::path& path, const Json& fingerprint);

/// One line of the log.
Json to_json(const EpochLog& log);

}  // namespace lighten
