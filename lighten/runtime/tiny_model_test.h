// Small random models of every architecture for tests: as numbers, and as Hugging Face folders.
#pragma once
#include <unistd.h>

#include <map>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/random.h"
#include "lighten/formats/model_config.h"
#include "lighten/formats/safetensors.h"

namespace lighten::test {

/// Tensors as the file stores them (Gemma's norms without the 1).
using Tensors = std::map<std::string, std::vector<float>>;

inline fs::path scratch(const std::string& name) {
  const fs::path path = fs::temp_directory_path() / ("lighten-runtime-test-" + std::to_string(::getpid())) / name;
  fs::remove_all(path);
  fs::create_directories(path);
  return path;
}

inline ModelConfig tiny_base(Architecture architecture) {
  ModelConfig c;
  c.architecture = architecture;
  c.vocab_size = 96;
  c.hidden_size = 64;
  c.intermediate_size = 128;
  c.layers = 3;
  c.heads = 4;
  c.kv_heads = 2;
  c.head_dim = 16;
  c.context_length = 1024;
  c.norm_epsilon = 1e-6;
  c.end_tokens = {2};
  c.bos_token = 1;
  return c;
}

/// llama3's rope scaling with all three cases among the frequencies, every bias, untied head.
inline ModelConfig tiny_llama3() {
  ModelConfig c = tiny_base(Architecture::llama);
  c.tied_head = false;
  c.attention_bias = c.output_bias = c.mlp_bias = true;
  c.rope = {.base = 500,
            .scaling = RopeConfig::Scaling::llama3,
            .factor = 8,
            .low_freq_factor = 1,
            .high_freq_factor = 4,
            .original_context = 64};
  c.local_rope = c.rope;
  return c;
}

inline ModelConfig tiny_llama_linear() {
  ModelConfig c = tiny_base(Architecture::llama);
  c.kv_heads = 1;
  c.rope = {.base = 10000, .scaling = RopeConfig::Scaling::linear, .factor = 4};
  c.local_rope = c.rope;
  return c;
}

inline ModelConfig tiny_qwen2() {
  ModelConfig c = tiny_base(Architecture::qwen2);
  c.attention_bias = true;
  c.rope.base = c.local_rope.base = 1e6;
  c.sliding_window = 11;
  c.sliding = {false, true, true};
  return c;
}

inline ModelConfig tiny_qwen3() {
  ModelConfig c = tiny_base(Architecture::qwen3);
  c.head_dim = 32;  // not hidden / heads
  c.qk_norm = true;
  return c;
}

inline ModelConfig tiny_gemma3() {
  ModelConfig c = tiny_base(Architecture::gemma3);
  c.activation = Activation::gelu_tanh;
  c.qk_norm = c.norm_plus_one = c.sandwich_norms = true;
  c.embedding_scale = 8;
  c.attention_scale = 0.2;  // query_pre_attn_scalar 25
  c.attention_softcap = 3;
  c.logit_softcap = 5;
  c.rope.base = 1e6;
  c.local_rope.base = 1e4;
  c.sliding_window = 7;
  c.sliding = {true, false, true};
  return c;
}

inline std::vector<ModelConfig> tiny_configs() {
  return {tiny_llama3(), tiny_llama_linear(), tiny_qwen2(), tiny_qwen3(), tiny_gemma3()};
}

/// Normal matrices with variance 1 / columns (so that activations stay of order one), norms around one, small biases.
inline Tensors random_tensors(const ModelConfig& config, uint64_t seed) {
  Random random(seed);
  Tensors tensors;
  for (const TensorShape& tensor : expected_tensors(config)) {
    const bool matrix = tensor.shape.size() == 2, norm = tensor.name.find("norm") != std::string::npos;
    const double scale = matrix ? 1.2 / std::sqrt(static_cast<double>(tensor.shape[1])) : 0.2;
    const double mean = norm && !config.norm_plus_one ? 1 : 0;
    std::vector<float>& values = tensors[tensor.name];
    values.resize(static_cast<size_t>(matrix ? tensor.shape[0] * tensor.shape[1] : tensor.shape[0]));
    for (float& value : values) value = static_cast<float>(mean + scale * random.normal());
  }
  return tensors;
}

inline void write_hf_folder(const fs::path& folder, const ModelConfig& config, const Tensors& tensors) {
  std::vector<TensorToWrite> out;
  for (const TensorShape& tensor : expected_tensors(config))
    out.push_back({tensor.name, DType::f32, tensor.shape, std::as_bytes(std::span(tensors.at(tensor.name)))});
  write_safetensors(folder / "model.safetensors", out);
  write_file(folder / "config.json", to_hf_config(config).dump(2));
}

inline std::vector<int32_t> random_ids(const ModelConfig& config, size_t n, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(random.below(static_cast<uint64_t>(config.vocab_size)));
  return ids;
}

}  // namespace lighten::test
