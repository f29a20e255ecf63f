// Batches in an order that depends on seeds alone, never on threads or on what was read before.
#pragma once
#include <torch/torch.h>

#include <span>
#include <vector>

#include "lighten/data/dataset.h"
#include "lighten/train/augment.h"

namespace lighten {

/// A seed derived from a seed and up to two numbers (epoch, sample): splitmix64 over them.
uint64_t derived_seed(uint64_t seed, uint64_t a, uint64_t b = 0);

/// Which samples form batch `step` of epoch `epoch`. Every epoch visits each sample at most once, in a permutation drawn from
/// (seed, epoch). Nothing is remembered between calls, so a resumed training needs no state of it.
class BatchOrder {
 public:
  /// `drop_last`: a last batch that is not full is left out (unless it is the only one). Throws OptionError without samples or
  /// for a batch size below 1.
  BatchOrder(std::vector<int64_t> samples, int64_t batch_size, uint64_t seed, bool shuffle = true, bool drop_last = true);
  int64_t steps_per_epoch() const { return steps_; }
  int64_t size() const { return static_cast<int64_t>(samples_.size()); }
  /// Valid until the next call.
  std::span<const int64_t> batch(int64_t epoch, int64_t step);

 private:
  std::vector<int64_t> samples_, order_;
  int64_t batch_size_, steps_, epoch_ = -1;
  uint64_t seed_;
  bool shuffle_;
};

/// Mean and standard deviation per channel of pixels / 255.
struct Normalization {
  std::vector<float> mean, deviation;
};
/// Over the given samples; a constant channel gets deviation 1.
Normalization measure_normalization(const ImageSet& set, std::span<const int64_t> samples);

/// x [b, c, h, w] float32 = (pixels / 255 - mean) / deviation of the given samples, each augmented with its own random numbers,
/// drawn from (seed, sample). Parallel over samples; the result does not depend on the number of threads.
torch::Tensor image_batch(const ImageSet& set, std::span<const int64_t> samples, const Normalization& normalization,
                          const AugmentOptions& augment = {}, uint64_t seed = 0);
/// int64 [b]
torch::Tensor label_batch(const std::vector<int32_t>& labels, std::span<const int64_t> samples);

}  // namespace lighten
