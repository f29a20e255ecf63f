// Augmentation of pictures as records: what was drawn is a small struct, and the same record gives the same pixels, bit for
// bit.
#pragma once
#include <torch/torch.h>

#include <cstdint>
#include <vector>

#include "lighten/base/random.h"

namespace lighten {

struct AugmentOptions {
  int64_t shift = 0;      ///< moved by up to so many pixels each way
  bool flip = false;      ///< mirrored left-right with probability 1/2
  double least_area = 1;  ///< random-resized crop: share of the area kept, uniform in [least_area, 1]
  double aspect = 1;      ///< ... with width / height log-uniform in [1 / aspect, aspect]
  double rotation = 0;    ///< turned by up to so many degrees each way
  double erase = 0;       ///< side of an erased square as a share of the height (cutout); filled with the picture's mean
  bool any() const { return shift > 0 || flip || least_area < 1 || aspect > 1 || rotation > 0 || erase > 0; }
};

/// One drawn augmentation. The box is the part of the source (in pixels) that fills the result.
struct AugmentRecord {
  float left = 0, top = 0, width = 0, height = 0;
  float angle = 0;  ///< radians
  bool flip = false;
  int16_t erase_left = 0, erase_top = 0, erase_side = 0;  ///< of the result; side 0: nothing is erased
};

/// Throws OptionError for options that cannot be (an area above 1 or not above 0, an aspect below 1, a negative shift).
AugmentRecord draw_augmentation(const AugmentOptions& options, int64_t height, int64_t width, Random& random);

/// out [channels, height, width] in the units of the pixels (0 to 255). Bilinear; beyond the border the border's pixel goes on.
/// Whole shifts and flips are exact copies.
void apply_augmentation(const AugmentRecord& record, const uint8_t* pixels, int64_t channels, int64_t height, int64_t width,
                        float* out);

/// One drawn mixture of a batch with itself in another order.
struct MixRecord {
  double lambda = 1;                                 ///< share of the first picture (of its pixels' weight, or of its area)
  std::vector<int64_t> partner = {};                 ///< [b]
  int64_t left = 0, top = 0, width = 0, height = 0;  ///< CutMix: what comes from the partner; area 0: mixup
};
/// lambda ~ Beta(alpha, alpha), partner a permutation. CutMix's lambda is recomputed from the box after clipping.
MixRecord draw_mixup(int64_t batch, double alpha, Random& random);
MixRecord draw_cutmix(int64_t batch, int64_t height, int64_t width, double alpha, Random& random);
/// x [b, c, h, w] mixed as the record says.
torch::Tensor apply_mix(const torch::Tensor& x, const MixRecord& record);
/// Mean over the batch of lambda CE(logits, y) + (1 - lambda) CE(logits, y[partner]).
torch::Tensor mixed_cross_entropy(const torch::Tensor& logits, const torch::Tensor& labels, const MixRecord& record);

}  // namespace lighten
