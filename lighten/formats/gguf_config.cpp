// GGUF metadata -> ModelConfig, and canonical tensor names -> GGUF's.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/weight_sources.h"

namespace lighten::formats {
namespace {

constexpr int64_t kGemmaFullEvery = 6;
constexpr double kGemmaLocalBase = 10000;
constexpr int64_t kLargestGemmaLayers = 62;  // Gemma 3 27B scales scores by hidden / heads, all others by the head's width

struct Naming {
  const char* canonical;
  const char* gguf;
};

constexpr std::array<Naming, 13> kBlockNames = {{{"self_attn.q_proj", "attn_q"},
                                                 {"self_attn.k_proj", "attn_k"},
                                                 {"self_attn.v_proj", "attn_v"},
                                                 {"self_attn.o_proj", "attn_output"},
                                                 {"self_attn.q_norm", "attn_q_norm"},
                                                 {"self_attn.k_norm", "attn_k_norm"},
                                                 {"mlp.gate_proj", "ffn_gate"},
                                                 {"mlp.up_proj", "ffn_up"},
                                                 {"mlp.down_proj", "ffn_down"},
                                                 {"input_layernorm", "attn_norm"},
                                                 {"post_attention_layernorm", "ffn_norm"},
                                                 {"pre_feedforward_layernorm", "ffn_norm"},
                                                 {"post_feedforward_layernorm", "post_ffw_norm"}}};

Architecture parse_architecture(const std::string& name, const std::string& file) {
  constexpr std::pair<const char*, Architecture> kKnown[] = {{"llama", Architecture::llama},
                                                             {"qwen2", Architecture::qwen2},
                                                             {"qwen3", Architecture::qwen3},
                                                             {"gemma3", Architecture::gemma3}};
  for (const auto& [known, architecture] : kKnown)
    if (name == known) return architecture;
  throw_error<FormatError>("{}: general.architecture \"{}\" is not supported; supported are llama, qwen2, qwen3 and gemma3",
                           file, printable(name));
}

/// A number, or a list of the same number for every layer.
int64_t uniform(const Fields& fields, const std::string& key) {
  if (!fields.has(key)) return fields.integer(key);
  const std::vector<int64_t> values = fields.integers(key);
  if (values.empty() || std::any_of(values.begin(), values.end(), [&](int64_t v) { return v != values.front(); }))
    throw_error<FormatError>("{}: {} differs between layers, which is not supported", fields.where(), key);
  return values.front();
}

void read_sizes(const Fields& fields, const std::string& arch, ModelConfig& config) {
  config.layers = fields.integer(arch + "block_count");
  config.hidden_size = fields.integer(arch + "embedding_length");
  config.intermediate_size = uniform(fields, arch + "feed_forward_length");
  config.heads = uniform(fields, arch + "attention.head_count");
  config.kv_heads =
      fields.has(arch + "attention.head_count_kv") ? uniform(fields, arch + "attention.head_count_kv") : config.heads;
  if (config.heads < 1) throw_error<FormatError>("{}: {}attention.head_count must be positive", fields.where(), arch);
  config.head_dim = fields.integer(arch + "attention.key_length", config.hidden_size / config.heads);
  config.context_length = fields.integer(arch + "context_length", config.context_length);
  config.norm_epsilon = fields.number(arch + "attention.layer_norm_rms_epsilon");
  const auto same_as_head = [&](const char* key) {
    const int64_t value = fields.integer(arch + key, config.head_dim);
    if (value != config.head_dim)
      throw_error<FormatError>("{}: {}{} is {}, but only the head's width {} is supported", fields.where(), arch, key, value,
                               config.head_dim);
  };
  same_as_head("attention.value_length");
  same_as_head("rope.dimension_count");
  if (fields.integer(arch + "expert_count", 0) != 0)
    throw_error<FormatError>("{}: a mixture of experts ({}expert_count) is not supported", fields.where(), arch);
}

/// Llama 3's scaling is stored as one divisor per frequency. They must be those of its formula, whose factor is the largest of
/// them.
RopeConfig rope_from_factors(const std::vector<float>& factors, const ModelConfig& config, const std::string& where) {
  RopeConfig rope{.base = config.rope.base, .scaling = RopeConfig::Scaling::llama3};
  rope.factor = std::round(static_cast<double>(*std::max_element(factors.begin(), factors.end())) * 1000) / 1000;
  for (size_t i = 0; i < factors.size(); ++i) {
    const double frequency = std::pow(rope.base, -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim));
    const double turns = rope.original_context * frequency / (2 * std::numbers::pi);
    const double smooth = std::clamp((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
    const double expected = 1 / ((1 - smooth) / rope.factor + smooth);
    if (!(std::fabs(factors[i] - expected) <= 1e-3 * expected))
      throw_error<FormatError>("{}: entry {} is {}, which is not Llama 3's scaling ({}); other factors are not supported",
                               where, i, factors[i], expected);
  }
  return rope;
}

void read_rope(const GgufFile& file, const Fields& fields, const std::string& arch, ModelConfig& config) {
  const bool gemma = config.architecture == Architecture::gemma3;
  config.rope.base = fields.number(arch + "rope.freq_base", gemma ? 1e6 : 1e4);
  const std::string scaling =
      fields.text(arch + "rope.scaling.type", fields.has(arch + "rope.scaling.factor") ? "linear" : "none");
  if (scaling == "linear") {
    config.rope.scaling = RopeConfig::Scaling::linear;
    config.rope.factor = fields.number(arch + "rope.scaling.factor");
  } else if (scaling != "none") {
    throw_error<FormatError>("{}: {}rope.scaling.type \"{}\" is not supported; supported are none and linear", fields.where(),
                             arch, printable(scaling));
  }
  if (const GgufTensor* factors = file.find("rope_freqs.weight")) {
    const std::string where = fields.where() + ": tensor rope_freqs.weight";
    check_shape(factors->shape, {config.head_dim / 2}, where);
    config.rope = rope_from_factors(to_float(*factors, where), config, where);
  }
  config.local_rope = config.rope;
  if (gemma) config.local_rope = RopeConfig{.base = fields.number(arch + "rope.freq_base_swa", kGemmaLocalBase)};
}

void read_windows(const Fields& fields, const std::string& arch, ModelConfig& config) {
  config.sliding_window = fields.integer(arch + "attention.sliding_window", 0);
  if (config.sliding_window == 0) return;
  const std::string key = arch + "attention.sliding_window_pattern";
  const Json* pattern = fields.find(key);
  if (pattern != nullptr && pattern->is_array()) {
    for (const Json& slides : *pattern) {
      if (!slides.is_boolean()) throw_error<FormatError>("{}: {} must hold true and false", fields.where(), key);
      config.sliding.push_back(slides.get<bool>());
    }
    return;
  }
  const int64_t full_every = fields.integer(key, kGemmaFullEvery);
  if (full_every < 1) throw_error<FormatError>("{}: {} must be positive", fields.where(), key);
  for (int64_t layer = 0; layer < config.layers; ++layer) config.sliding.push_back((layer + 1) % full_every != 0);
}

void read_gemma(const Fields& fields, const std::string& arch, ModelConfig& config) {
  config.activation = Activation::gelu_tanh;
  config.norm_plus_one = config.sandwich_norms = true;
  config.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(config.hidden_size)));
  const int64_t scalar = config.layers == kLargestGemmaLayers ? config.hidden_size / config.heads : config.head_dim;
  config.attention_scale = 1.0 / std::sqrt(static_cast<double>(scalar));
  config.attention_softcap = fields.number(arch + "attn_logit_softcapping", 0);
  config.logit_softcap = fields.number(arch + "final_logit_softcapping", 0);
  read_windows(fields, arch, config);
}

}  // namespace

std::string gguf_tensor_name(const std::string& canonical, Architecture architecture) {
  if (canonical == "model.embed_tokens.weight") return "token_embd.weight";
  if (canonical == "model.norm.weight") return "output_norm.weight";
  if (canonical == "lm_head.weight") return "output.weight";
  constexpr std::string_view kPrefix = "model.layers.";
  const size_t layer_end = canonical.find('.', kPrefix.size()), suffix = canonical.rfind('.');
  if (!canonical.starts_with(kPrefix) || layer_end == std::string::npos || suffix <= layer_end) return "";
  const std::string layer = canonical.substr(kPrefix.size(), layer_end - kPrefix.size());
  const std::string part = canonical.substr(layer_end + 1, suffix - layer_end - 1);
  for (const Naming& naming : kBlockNames) {
    if (part != naming.canonical) continue;
    const bool gemma_own = architecture == Architecture::gemma3 && part == "post_attention_layernorm";
    return "blk." + layer + "." + (gemma_own ? "post_attention_norm" : naming.gguf) + canonical.substr(suffix);
  }
  return "";
}

ModelConfig gguf_model_config(const GgufFile& file) {
  const std::string name = file.file().path().string();
  const Fields fields(file.metadata(), name);
  const std::string architecture = fields.text("general.architecture"), arch = architecture + ".";
  ModelConfig config;
  config.architecture = parse_architecture(architecture, name);
  const bool gemma = config.architecture == Architecture::gemma3;
  read_sizes(fields, arch, config);
  const GgufTensor* embedding = file.find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2)
    throw_error<FormatError>("{}: tensor token_embd.weight is missing or has not two dimensions", name);
  config.vocab_size = embedding->shape.front();
  check(config, name);  // before anything is sized by these numbers
  config.tied_head = file.find("output.weight") == nullptr;
  config.attention_bias = file.find("blk.0.attn_q.bias") != nullptr;
  config.output_bias = file.find("blk.0.attn_output.bias") != nullptr;
  config.mlp_bias = file.find("blk.0.ffn_gate.bias") != nullptr;
  config.qk_norm = gemma || config.architecture == Architecture::qwen3;
  read_rope(file, fields, arch, config);
  if (gemma) read_gemma(fields, arch, config);
  config.end_tokens = fields.integers("tokenizer.ggml.eos_token_id");
  const int64_t end_of_turn = fields.integer("tokenizer.ggml.eot_token_id", -1);
  if (end_of_turn >= 0 && std::find(config.end_tokens.begin(), config.end_tokens.end(), end_of_turn) == config.end_tokens.end())
    config.end_tokens.push_back(end_of_turn);
  config.bos_token = fields.integer("tokenizer.ggml.bos_token_id", -1);
  config.name = fields.text("general.name", "");
  config.licence = fields.text("general.license", "");
  check(config, name);
  return config;
}

}  // namespace lighten::formats
