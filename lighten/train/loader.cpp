#include "lighten/train/loader.h"

#include <ATen/Parallel.h>

#include <numeric>

#include "lighten/base/error.h"
#include "lighten/base/random.h"

namespace lighten {

uint64_t derived_seed(uint64_t seed, uint64_t a, uint64_t b) {
  Random first(seed ^ 0x6c696768746e3144ull);
  Random second(first.next() + a);
  Random third(second.next() + b);
  return third.next();
}

BatchOrder::BatchOrder(std::vector<int64_t> samples, int64_t batch_size, uint64_t seed, bool shuffle, bool drop_last)
    : samples_(std::move(samples)), batch_size_(batch_size), seed_(seed), shuffle_(shuffle) {
  if (samples_.empty()) throw OptionError("training: there is no sample to train on");
  if (batch_size < 1) throw_error<OptionError>("training: batch size {} must be at least 1", batch_size);
  const int64_t full = size() / batch_size;
  steps_ = drop_last && full > 0 ? full : (size() + batch_size - 1) / batch_size;
}

std::span<const int64_t> BatchOrder::batch(int64_t epoch, int64_t step) {
  if (epoch != epoch_) {
    order_ = samples_;
    if (shuffle_) {
      Random random(derived_seed(seed_, static_cast<uint64_t>(epoch)));
      random.shuffle(order_);
    }
    epoch_ = epoch;
  }
  const int64_t from = step * batch_size_, to = std::min(from + batch_size_, size());
  return std::span(order_).subspan(from, to - from);
}

Normalization measure_normalization(const ImageSet& set, std::span<const int64_t> samples) {
  Normalization normalization;
  const int64_t area = set.height * set.width;
  for (int64_t c = 0; c < set.channels; ++c) {
    int64_t sum = 0, squares = 0;
    for (const int64_t sample : samples) {
      const uint8_t* plane = set.pixels.data() + sample * set.sample_bytes() + c * area;
      for (int64_t i = 0; i < area; ++i) {
        sum += plane[i];
        squares += static_cast<int64_t>(plane[i]) * plane[i];
      }
    }
    const double count = static_cast<double>(std::max<int64_t>(area * static_cast<int64_t>(samples.size()), 1));
    const double mean = static_cast<double>(sum) / count;
    const double variance = static_cast<double>(squares) / count - mean * mean;
    normalization.mean.push_back(static_cast<float>(mean / 255));
    normalization.deviation.push_back(variance > 1e-9 ? static_cast<float>(std::sqrt(variance) / 255) : 1.0F);
  }
  return normalization;
}

torch::Tensor image_batch(const ImageSet& set, std::span<const int64_t> samples, const Normalization& normalization,
                          const AugmentOptions& augment, uint64_t seed) {
  const int64_t number = static_cast<int64_t>(samples.size()), area = set.height * set.width;
  torch::Tensor batch = torch::empty({number, set.channels, set.height, set.width});
  float* out = batch.data_ptr<float>();
  const bool plain = !augment.any();
  at::parallel_for(0, number, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint8_t* pixels = set.pixels.data() + samples[i] * set.sample_bytes();
      float* target = out + i * set.sample_bytes();
      if (plain) {
        std::copy(pixels, pixels + set.sample_bytes(), target);
      } else {
        Random random(derived_seed(seed, static_cast<uint64_t>(samples[i])));
        const AugmentRecord record = draw_augmentation(augment, set.height, set.width, random);
        apply_augmentation(record, pixels, set.channels, set.height, set.width, target);
      }
      for (int64_t c = 0; c < set.channels; ++c) {
        const float scale = 1 / (255 * normalization.deviation[c]), shift = -normalization.mean[c] / normalization.deviation[c];
        for (int64_t p = 0; p < area; ++p) target[c * area + p] = target[c * area + p] * scale + shift;
      }
    }
  });
  return batch;
}

torch::Tensor label_batch(const std::vector<int32_t>& labels, std::span<const int64_t> samples) {
  torch::Tensor batch = torch::empty({static_cast<int64_t>(samples.size())}, torch::kInt64);
  int64_t* out = batch.data_ptr<int64_t>();
  for (size_t i = 0; i < samples.size(); ++i) out[i] = labels[samples[i]];
  return batch;
}

}  // namespace lighten
