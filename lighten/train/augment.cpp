#include "lighten/train/augment.h"

#include <cmath>
#include <numbers>
#include <numeric>

#include "lighten/base/error.h"

namespace lighten {

namespace {

void check(const AugmentOptions& options) {
  if (options.shift < 0 || !(options.least_area > 0) || !(options.least_area <= 1) || !(options.aspect >= 1) ||
      !(options.rotation >= 0) || !(options.erase >= 0) || !(options.erase <= 1))
    throw_error<OptionError>("augmentation: shift {}, area {}, aspect {}, rotation {}, erase {} cannot be", options.shift,
                             options.least_area, options.aspect, options.rotation, options.erase);
}

bool is_copy(const AugmentRecord& record, int64_t height, int64_t width) {
  return record.angle == 0 && record.width == static_cast<float>(width) && record.height == static_cast<float>(height) &&
         record.left == std::floor(record.left) && record.top == std::floor(record.top);
}

void copy_moved(const AugmentRecord& record, const uint8_t* pixels, int64_t height, int64_t width, float* out) {
  const int64_t left = static_cast<int64_t>(record.left), top = static_cast<int64_t>(record.top);
  for (int64_t y = 0; y < height; ++y) {
    const uint8_t* row = pixels + std::clamp<int64_t>(y + top, 0, height - 1) * width;
    for (int64_t x = 0; x < width; ++x) {
      const int64_t from = (record.flip ? width - 1 - x : x) + left;
      out[y * width + x] = row[std::clamp<int64_t>(from, 0, width - 1)];
    }
  }
}

void sample_turned(const AugmentRecord& record, const uint8_t* pixels, int64_t height, int64_t width, float* out) {
  const float cos = std::cos(record.angle), sin = std::sin(record.angle);
  const float center_x = record.left + record.width / 2, center_y = record.top + record.height / 2;
  const float step_x = record.width / static_cast<float>(width), step_y = record.height / static_cast<float>(height);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      const float u = (static_cast<float>(record.flip ? width - 1 - x : x) + 0.5F - static_cast<float>(width) / 2) * step_x;
      const float v = (static_cast<float>(y) + 0.5F - static_cast<float>(height) / 2) * step_y;
      const float from_x = std::clamp(center_x + u * cos - v * sin - 0.5F, 0.0F, static_cast<float>(width - 1));
      const float from_y = std::clamp(center_y + u * sin + v * cos - 0.5F, 0.0F, static_cast<float>(height - 1));
      const int64_t x0 = static_cast<int64_t>(from_x), y0 = static_cast<int64_t>(from_y);
      const int64_t x1 = std::min(x0 + 1, width - 1), y1 = std::min(y0 + 1, height - 1);
      const float a = from_x - static_cast<float>(x0), b = from_y - static_cast<float>(y0);
      const float upper =
          static_cast<float>(pixels[y0 * width + x0]) * (1 - a) + static_cast<float>(pixels[y0 * width + x1]) * a;
      const float lower =
          static_cast<float>(pixels[y1 * width + x0]) * (1 - a) + static_cast<float>(pixels[y1 * width + x1]) * a;
      out[y * width + x] = upper * (1 - b) + lower * b;
    }
}

double draw_beta(double alpha, Random& random) {
  // Johnk's rejection in logarithms: fine for the alpha <= 1 that mixing uses; larger ones by two gammas would be faster.
  if (!(alpha > 0)) throw_error<OptionError>("mixing: alpha {} must be above 0", alpha);
  for (;;) {
    const double u = std::log(1 - random.uniform()) / alpha, v = std::log(1 - random.uniform()) / alpha;
    const double top = std::max(u, v), sum = top + std::log(std::exp(u - top) + std::exp(v - top));
    if (sum <= 0) return std::exp(u - sum);
  }
}

std::vector<int64_t> draw_partners(int64_t batch, Random& random) {
  std::vector<int64_t> partner(batch);
  std::iota(partner.begin(), partner.end(), 0);
  random.shuffle(partner);
  return partner;
}

}  // namespace

AugmentRecord draw_augmentation(const AugmentOptions& options, int64_t height, int64_t width, Random& random) {
  check(options);
  AugmentRecord record{.width = static_cast<float>(width), .height = static_cast<float>(height)};
  if (options.least_area < 1 || options.aspect > 1) {
    const double area = options.least_area + (1 - options.least_area) * random.uniform();
    const double aspect = std::exp((2 * random.uniform() - 1) * std::log(options.aspect));
    record.width = static_cast<float>(std::min(std::sqrt(area * aspect), 1.0) * static_cast<double>(width));
    record.height = static_cast<float>(std::min(std::sqrt(area / aspect), 1.0) * static_cast<double>(height));
    record.left = static_cast<float>(random.uniform()) * (static_cast<float>(width) - record.width);
    record.top = static_cast<float>(random.uniform()) * (static_cast<float>(height) - record.height);
  }
  if (options.shift > 0) {
    record.left += static_cast<float>(static_cast<int64_t>(random.below(2 * options.shift + 1)) - options.shift);
    record.top += static_cast<float>(static_cast<int64_t>(random.below(2 * options.shift + 1)) - options.shift);
  }
  if (options.rotation > 0)
    record.angle = static_cast<float>((2 * random.uniform() - 1) * options.rotation * std::numbers::pi / 180);
  if (options.flip) record.flip = random.below(2) == 1;
  if (options.erase > 0) {
    const int64_t side = std::min<int64_t>(std::llround(options.erase * static_cast<double>(height)), std::min(height, width));
    record.erase_side = static_cast<int16_t>(side);
    record.erase_left = static_cast<int16_t>(random.below(width - side + 1));
    record.erase_top = static_cast<int16_t>(random.below(height - side + 1));
  }
  return record;
}

void apply_augmentation(const AugmentRecord& record, const uint8_t* pixels, int64_t channels, int64_t height, int64_t width,
                        float* out) {
  const bool copy = is_copy(record, height, width);
  for (int64_t c = 0; c < channels; ++c) {
    const uint8_t* plane = pixels + c * height * width;
    float* target = out + c * height * width;
    if (copy)
      copy_moved(record, plane, height, width, target);
    else
      sample_turned(record, plane, height, width, target);
    if (record.erase_side == 0) continue;
    float mean = 0;
    for (int64_t i = 0; i < height * width; ++i) mean += target[i];
    mean /= static_cast<float>(height * width);
    for (int64_t y = 0; y < record.erase_side; ++y)
      std::fill_n(target + (record.erase_top + y) * width + record.erase_left, record.erase_side, mean);
  }
}

MixRecord draw_mixup(int64_t batch, double alpha, Random& random) {
  const double lambda = draw_beta(alpha, random);
  return {.lambda = lambda, .partner = draw_partners(batch, random)};
}

MixRecord draw_cutmix(int64_t batch, int64_t height, int64_t width, double alpha, Random& random) {
  const double side = std::sqrt(1 - draw_beta(alpha, random));
  const auto cut = [&](int64_t extent) {
    const int64_t half = static_cast<int64_t>(side * static_cast<double>(extent)) / 2,
                  center = static_cast<int64_t>(random.below(extent));
    const int64_t from = std::max<int64_t>(center - half, 0);
    return std::pair(from, std::min(center + half, extent) - from);
  };
  MixRecord record;
  std::tie(record.left, record.width) = cut(width);
  std::tie(record.top, record.height) = cut(height);
  record.lambda = 1 - static_cast<double>(record.width * record.height) / static_cast<double>(width * height);
  record.partner = draw_partners(batch, random);
  return record;
}

torch::Tensor apply_mix(const torch::Tensor& x, const MixRecord& record) {
  const torch::Tensor other = x.index_select(0, torch::tensor(record.partner));
  if (record.width * record.height == 0)
    return record.lambda == 1 ? x.clone() : x * record.lambda + other * (1 - record.lambda);
  torch::Tensor mixed = x.clone();
  const auto part = [&](const torch::Tensor& t) {
    return t.narrow(2, record.top, record.height).narrow(3, record.left, record.width);
  };
  part(mixed).copy_(part(other));
  return mixed;
}

torch::Tensor mixed_cross_entropy(const torch::Tensor& logits, const torch::Tensor& labels, const MixRecord& record) {
  const torch::Tensor own = torch::cross_entropy_loss(logits, labels);
  if (record.lambda == 1) return own;
  return record.lambda * own +
         (1 - record.lambda) * torch::cross_entropy_loss(logits, labels.index_select(0, torch::tensor(record.partner)));
}

}  // namespace lighten
