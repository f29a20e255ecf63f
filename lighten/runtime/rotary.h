// Cosines and sines of the rotary embedding, by position.
#pragma once
#include <cstdint>
#include <vector>

#include "lighten/formats/model_config.h"

namespace lighten::runtime {

/// Tables [positions, head_dim / 2] of cos and sin of position * frequency_i, with
///   frequency_i = base^(-2i / head_dim), scaled as the configuration says.
/// Frequencies and angles are rounded to float32 where the reference rounds them, so that long contexts agree too.
class RotaryTable {
 public:
  RotaryTable() = default;
  RotaryTable(const RopeConfig& rope, int64_t head_dim);
  void reserve(int64_t positions);
  const float* cos(int64_t position) const { return cos_.data() + position * static_cast<int64_t>(frequencies_.size()); }
  const float* sin(int64_t position) const { return sin_.data() + position * static_cast<int64_t>(frequencies_.size()); }

 private:
  std::vector<float> frequencies_, cos_, sin_;
  int64_t positions_ = 0;
};

/// The frequencies of the pairs, [head_dim / 2].
std::vector<float> rotary_frequencies(const RopeConfig& rope, int64_t head_dim);

}  // namespace lighten::runtime
