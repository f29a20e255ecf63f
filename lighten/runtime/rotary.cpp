#include "lighten/runtime/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lighten::runtime {
namespace {

/// Llama 3: long waves are slowed by `factor`, short ones stay, those between are blended.
float scale_llama3(const RopeConfig& rope, float frequency) {
  const double wavelength = 2 * std::numbers::pi / static_cast<double>(frequency);
  if (wavelength < rope.original_context / rope.high_freq_factor) return frequency;
  const auto slowed = static_cast<float>(static_cast<double>(frequency) / rope.factor);
  if (wavelength > rope.original_context / rope.low_freq_factor) return slowed;
  const double smooth =
      (rope.original_context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return static_cast<float>((1 - smooth) * static_cast<double>(slowed) + smooth * static_cast<double>(frequency));
}

}  // namespace

std::vector<float> rotary_frequencies(const RopeConfig& rope, int64_t head_dim) {
  std::vector<float> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float frequency = 1.0f / static_cast<float>(std::pow(rope.base, static_cast<double>(exponent)));
    switch (rope.scaling) {
      case RopeConfig::Scaling::none:
        frequencies[i] = frequency;
        break;
      case RopeConfig::Scaling::linear:
        frequencies[i] = static_cast<float>(static_cast<double>(frequency) / rope.factor);
        break;
      case RopeConfig::Scaling::llama3:
        frequencies[i] = scale_llama3(rope, frequency);
        break;
    }
  }
  return frequencies;
}

RotaryTable::RotaryTable(const RopeConfig& rope, int64_t head_dim) : frequencies_(rotary_frequencies(rope, head_dim)) {}

void RotaryTable::reserve(int64_t positions) {
  if (positions <= positions_) return;
  if (const size_t needed = static_cast<size_t>(positions) * frequencies_.size(); needed > cos_.capacity()) {
    const size_t room = std::max(needed, 2 * cos_.capacity());  // a token at a time must not move the table every time
    cos_.reserve(room);
    sin_.reserve(room);
  }
  for (; positions_ < positions; ++positions_) {
    for (const float frequency : frequencies_) {
      const float angle = static_cast<float>(positions_) * frequency;
      cos_.push_back(static_cast<float>(std::cos(static_cast<double>(angle))));
      sin_.push_back(static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
}

}  // namespace lighten::runtime
