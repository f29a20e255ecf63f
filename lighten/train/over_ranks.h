// Data-parallel training: N processes under mpirun do what one process does with the same batches.
#pragma once
#include "lighten/base/ranks.h"
#include "lighten/train/loop.h"

namespace lighten {

/// Sums the gradients of parameters over ranks while backward is still at work: they are gathered in buckets, from the last
/// parameter to the first, and a bucket is sent (Ranks::start_sum) as soon as its gradients are there and those before it are
/// sent, so that all ranks send in the same order. Every later gradient also moves the sums under way.
class GradientSums {
 public:
  /// Hooks the parameters that require gradients, float32, until this object ends. `ranks` must outlive it.
  GradientSums(const std::vector<torch::Tensor>& parameters, Ranks& ranks, int64_t bucket_bytes = 4 << 20);
  ~GradientSums();
  GradientSums(const GradientSums&) = delete;
  GradientSums& operator=(const GradientSums&) = delete;
  /// To be called after each backward: sends what is left (a parameter without gradient on this rank gives zeros), waits, and
  /// puts the sums into the gradients; a parameter without gradient on every rank keeps none.
  void finish();
  int64_t buckets() const;
  /// Buckets that were sent from within the last backward, so that they travelled while it went on.
  int64_t sent_early() const;
  struct State;  ///< in over_ranks.cpp, where the hooks know it too

 private:
  std::shared_ptr<State> state_;
};

/// The task as one rank does it: of every batch it takes its consecutive share, batch norms (nn/norm.h) take their statistics
/// from the shares of all, and gradients are summed over ranks (GradientSums). All ranks need the same task, options
/// (batch_size is that of all together, so that results do not depend on the number of processes) and folder, one that all
/// see; the first writes it, all go on from it. Weights are broadcast from the first rank, then stay the same on all after
/// every step. The first rank's validation score decides for all. The loss that is logged is that of the whole batch.
///
/// Exact up to rounding for losses that are means over the batch; dropout draws other masks than one process would. A batch
/// smaller than the number of ranks is refused (OptionError). With one rank the task is returned as it is. The modules must
/// outlive the task that is returned; their norms stay synchronised until it ends.
TrainTask over_ranks(TrainTask task, Ranks& ranks, int64_t bucket_bytes = 4 << 20);

}  // namespace lighten
