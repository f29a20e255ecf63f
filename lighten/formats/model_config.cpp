#include "lighten/formats/model_config.h"

#include <cmath>

#include "lighten/base/error.h"

namespace lighten {
namespace {

struct Limit {
  const char* field;
  int64_t value, most;
};

void check_sizes(const ModelConfig& c, const std::string& file) {
  const Limit limits[] = {{"vocab_size", c.vocab_size, 1 << 24},
                          {"hidden_size", c.hidden_size, 1 << 20},
                          {"intermediate_size", c.intermediate_size, 1 << 24},
                          {"num_hidden_layers", c.layers, 4096},
                          {"num_attention_heads", c.heads, 1 << 16},
                          {"num_key_value_heads", c.kv_heads, 1 << 16},
                          {"head_dim", c.head_dim, 1 << 16},
                          {"max_position_embeddings", c.context_length, 1 << 30}};
  for (const Limit& limit : limits)
    if (limit.value < 1 || limit.value > limit.most)
      throw_error<FormatError>("{}: {} is {}, but must be between 1 and {}", file, limit.field, limit.value, limit.most);
  if (c.heads % c.kv_heads != 0)
    throw_error<FormatError>("{}: {} key/value heads do not divide {} attention heads", file, c.kv_heads, c.heads);
  if (c.head_dim % 2 != 0)
    throw_error<FormatError>("{}: head_dim is {}, but rotary embedding needs an even one", file, c.head_dim);
}

void check_positive(double value, const char* field, const std::string& file) {
  if (!(value > 0) || !std::isfinite(value))
    throw_error<FormatError>("{}: {} is {}, but must be a positive number", file, field, value);
}

void check_rope(const RopeConfig& rope, const std::string& file) {
  check_positive(rope.base, "the rope base", file);
  check_positive(rope.factor, "the rope scaling factor", file);
  if (rope.scaling != RopeConfig::Scaling::llama3) return;
  check_positive(rope.low_freq_factor, "low_freq_factor", file);
  check_positive(rope.high_freq_factor, "high_freq_factor", file);
  check_positive(rope.original_context, "original_max_position_embeddings", file);
  if (rope.original_context > 1e12)
    throw_error<FormatError>("{}: original_max_position_embeddings {} cannot be", file, rope.original_context);
  if (rope.high_freq_factor <= rope.low_freq_factor)
    throw_error<FormatError>("{}: high_freq_factor {} must be above low_freq_factor {}", file, rope.high_freq_factor,
                             rope.low_freq_factor);
}

void check_tokens(const ModelConfig& c, const std::string& file) {
  for (const int64_t id : c.end_tokens)
    if (id < 0 || id >= c.vocab_size)
      throw_error<FormatError>("{}: end token {} is not in the vocabulary of {}", file, id, c.vocab_size);
  if (c.bos_token < -1 || c.bos_token >= c.vocab_size)
    throw_error<FormatError>("{}: bos token {} is not in the vocabulary of {}", file, c.bos_token, c.vocab_size);
}

std::string block_prefix(int64_t layer) { return fmt::format("model.layers.{}.", layer); }

}  // namespace

double ModelConfig::score_scale() const {
  return attention_scale != 0 ? attention_scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
}

void check(const ModelConfig& config, const std::string& file) {
  check_sizes(config, file);
  check_positive(config.norm_epsilon, "rms_norm_eps", file);
  check_positive(config.embedding_scale, "the embedding scale", file);
  check_positive(config.score_scale(), "the attention scale", file);
  if (config.score_scale() < 1e-6 || config.score_scale() > 1e6)
    throw_error<FormatError>("{}: an attention scale of {} cannot be", file, config.score_scale());
  check_rope(config.rope, file);
  check_rope(config.local_rope, file);
  check_tokens(config, file);
  for (const double cap : {config.attention_softcap, config.logit_softcap})
    if (!(cap >= 0) || !std::isfinite(cap)) throw_error<FormatError>("{}: soft cap {} must be positive", file, cap);
  if (config.sliding_window < 0) throw_error<FormatError>("{}: sliding_window {} is negative", file, config.sliding_window);
  if (!config.sliding.empty() && config.sliding.size() != static_cast<size_t>(config.layers))
    throw_error<FormatError>("{}: layer_types has {} entries for {} layers", file, config.sliding.size(), config.layers);
}

std::vector<LinearShape> block_linears(const ModelConfig& config, int64_t layer) {
  const std::string prefix = block_prefix(layer), attention = prefix + "self_attn.", mlp = prefix + "mlp.";
  const int64_t q = config.heads * config.head_dim, kv = config.kv_heads * config.head_dim;
  return {{attention + "q_proj", q, config.hidden_size, config.attention_bias},
          {attention + "k_proj", kv, config.hidden_size, config.attention_bias},
          {attention + "v_proj", kv, config.hidden_size, config.attention_bias},
          {attention + "o_proj", config.hidden_size, q, config.output_bias},
          {mlp + "gate_proj", config.intermediate_size, config.hidden_size, config.mlp_bias},
          {mlp + "up_proj", config.intermediate_size, config.hidden_size, config.mlp_bias},
          {mlp + "down_proj", config.hidden_size, config.intermediate_size, config.mlp_bias}};
}

std::vector<TensorShape> expected_tensors(const ModelConfig& config) {
  std::vector<TensorShape> tensors{{"model.embed_tokens.weight", {config.vocab_size, config.hidden_size}}};
  const auto add = [&](std::string name, std::vector<int64_t> shape) {
    tensors.push_back({std::move(name), std::move(shape)});
  };
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = block_prefix(layer);
    add(prefix + "input_layernorm.weight", {config.hidden_size});
    for (const LinearShape& linear : block_linears(config, layer)) {
      add(linear.name + ".weight", {linear.rows, linear.columns});
      if (linear.bias) add(linear.name + ".bias", {linear.rows});
    }
    if (config.qk_norm) {
      add(prefix + "self_attn.q_norm.weight", {config.head_dim});
      add(prefix + "self_attn.k_norm.weight", {config.head_dim});
    }
    add(prefix + "post_attention_layernorm.weight", {config.hidden_size});
    if (config.sandwich_norms) {
      add(prefix + "pre_feedforward_layernorm.weight", {config.hidden_size});
      add(prefix + "post_feedforward_layernorm.weight", {config.hidden_size});
    }
  }
  add("model.norm.weight", {config.hidden_size});
  if (!config.tied_head) add("lm_head.weight", {config.vocab_size, config.hidden_size});
  return tensors;
}

uint64_t parameter_count(const ModelConfig& config) {
  uint64_t count = 0;
  for (const TensorShape& tensor : expected_tensors(config)) {
    uint64_t elements = 1;
    for (const int64_t size : tensor.shape) elements *= static_cast<uint64_t>(size);
    count += elements;
  }
  return count;
}

}  // namespace lighten
