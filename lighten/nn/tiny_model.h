// Small random models for tests: every feature of an architecture at sizes that a plain loop can check.
#pragma once
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "lighten/base/random.h"
#include "lighten/formats/model_config.h"

namespace lighten {

/// 3 blocks, hidden 12, 4 query and 2 key heads of 6 (heads * head_dim differs from hidden), vocabulary 31. llama: untied head,
/// biases, llama3 rope; qwen2: q/k/v biases; qwen3: q/k norms; gemma3: sandwich norms, a window of 4 in two of three blocks,
/// soft caps, linear rope.
inline ModelConfig tiny_config(Architecture architecture) {
  ModelConfig config;
  config.architecture = architecture;
  config.vocab_size = 31;
  config.hidden_size = 12;
  config.intermediate_size = 20;
  config.layers = 3;
  config.heads = 4;
  config.kv_heads = 2;
  config.head_dim = 6;
  config.context_length = 64;
  config.norm_epsilon = 1e-5;
  switch (architecture) {
    case Architecture::llama:
      config.tied_head = false;
      config.attention_bias = config.output_bias = config.mlp_bias = true;
      config.rope = {.base = 500,
                     .scaling = RopeConfig::Scaling::llama3,
                     .factor = 8,
                     .low_freq_factor = 1,
                     .high_freq_factor = 4,
                     .original_context = 128};
      break;
    case Architecture::qwen2:
      config.attention_bias = true;
      break;
    case Architecture::qwen3:
      config.qk_norm = true;
      break;
    case Architecture::gemma3:
      config.qk_norm = config.sandwich_norms = true;
      config.activation = Activation::gelu_tanh;
      config.embedding_scale = std::sqrt(12.0);
      config.attention_scale = 1 / std::sqrt(10.0);
      config.attention_softcap = 3;
      config.logit_softcap = 5;
      config.sliding_window = 4;
      config.sliding = {true, false, true};
      config.rope = {.base = 1000, .scaling = RopeConfig::Scaling::linear, .factor = 2};
      config.local_rope = {.base = 100};
      break;
  }
  return config;
}

/// Every expected tensor, normally distributed (norms around 1), from `seed`.
using TensorTable = std::map<std::string, std::vector<float>>;
inline TensorTable random_tensors(const ModelConfig& config, uint64_t seed) {
  Random random(seed);
  TensorTable table;
  for (const TensorShape& expected : expected_tensors(config)) {
    const int64_t count = std::accumulate(expected.shape.begin(), expected.shape.end(), int64_t{1}, std::multiplies<>());
    const bool norm = expected.name.find("norm") != std::string::npos;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = static_cast<float>(norm ? 1 + 0.3 * random.normal() : 0.4 * random.normal());
    table[expected.name] = std::move(values);
  }
  return table;
}

}  // namespace lighten
