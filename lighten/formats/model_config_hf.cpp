// config.json of Hugging Face <-> ModelConfig. Field names and defaults are those of transformers' configuration classes.
#include <cmath>
#include <cstdlib>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/model_config.h"

namespace lighten {
namespace {

using formats::Fields;

/// What transformers assumes where config.json is silent.
struct Defaults {
  const char* model_type;
  const char* causal_class;
  Architecture architecture;
  bool tied;
  double epsilon;
  int64_t context;
  int64_t kv_heads;  ///< 0: as many as heads
  int64_t head_dim;  ///< 0: hidden / heads
};

constexpr Defaults kDefaults[] = {
    {"llama", "LlamaForCausalLM", Architecture::llama, false, 1e-6, 2048, 0, 0},
    {"qwen2", "Qwen2ForCausalLM", Architecture::qwen2, false, 1e-6, 32768, 32, 0},
    {"qwen3", "Qwen3ForCausalLM", Architecture::qwen3, false, 1e-6, 32768, 32, 128},
    {"gemma3_text", "Gemma3ForCausalLM", Architecture::gemma3, true, 1e-6, 131072, 4, 256},
};

const Defaults& defaults_of(const std::string& model_type, const std::string& where) {
  for (const Defaults& defaults : kDefaults)
    if (model_type == defaults.model_type) return defaults;
  throw_error<FormatError>("{}: model_type \"{}\" is not supported; supported are llama, qwen2, qwen3, gemma3 and gemma3_text",
                           where, formats::printable(model_type));
}

const Defaults& defaults_of(Architecture architecture) {
  for (const Defaults& defaults : kDefaults)
    if (architecture == defaults.architecture) return defaults;
  throw ModelError("unknown architecture");
}

Activation parse_activation(const Fields& fields, const std::string& name, const std::string& missing) {
  const std::string text = fields.text(name, missing);
  if (text == "silu" || text == "swish") return Activation::silu;
  if (text == "gelu_pytorch_tanh" || text == "gelu_new") return Activation::gelu_tanh;
  throw_error<FormatError>("{}: {} \"{}\" is not supported; supported are silu and gelu_pytorch_tanh", fields.where(), name,
                           formats::printable(text));
}

/// One set of rope parameters: transformers 5's `rope_parameters`, or `rope_scaling` of older files. `base` is used where it
/// holds none.
RopeConfig parse_rope(const Fields& fields, double base, double context) {
  RopeConfig rope;
  rope.base = fields.number("rope_theta", base);
  if (fields.number("partial_rotary_factor", 1) != 1)
    throw_error<FormatError>("{}: partial_rotary_factor other than 1 is not supported", fields.where());
  const std::string type = fields.text("rope_type", fields.text("type", "default"));
  if (type == "default") return rope;
  if (type != "linear" && type != "llama3")
    throw_error<FormatError>("{}: rope scaling \"{}\" is not supported; supported are default, linear and llama3",
                             fields.where(), formats::printable(type));
  rope.factor = fields.number("factor");
  if (type == "linear") {
    rope.scaling = RopeConfig::Scaling::linear;
    return rope;
  }
  rope.scaling = RopeConfig::Scaling::llama3;
  rope.low_freq_factor = fields.number("low_freq_factor");
  rope.high_freq_factor = fields.number("high_freq_factor");
  rope.original_context = fields.number("original_max_position_embeddings", context);
  return rope;
}

/// Full layers' and sliding layers' rope. Only Gemma 3 gives them different bases.
void parse_ropes(const Fields& fields, ModelConfig& config) {
  const bool gemma = config.architecture == Architecture::gemma3;
  const double context = fields.number("original_max_position_embeddings", static_cast<double>(config.context_length));
  const double base = fields.number("rope_theta", gemma ? 1e6 : 1e4);
  config.rope.base = base;
  const bool nested = fields.has("rope_parameters") && fields.object("rope_parameters").has("full_attention");
  if (fields.has("rope_scaling"))
    config.rope = parse_rope(fields.object("rope_scaling"), base, context);
  else if (nested)
    config.rope = parse_rope(fields.object("rope_parameters").object("full_attention"), base, context);
  else if (fields.has("rope_parameters"))
    config.rope = parse_rope(fields.object("rope_parameters"), base, context);
  if (fields.has("rope_scaling") && fields.has("rope_parameters") && !fields.object("rope_scaling").has("rope_theta")) {
    const Fields parameters = fields.object("rope_parameters");
    config.rope.base = (nested ? parameters.object("full_attention") : parameters).number("rope_theta", base);
  }
  config.local_rope = config.rope;
  if (!gemma) return;
  config.local_rope = RopeConfig{};
  const double local_base = fields.number("rope_local_base_freq", 1e4);
  config.local_rope.base = local_base;
  if (fields.has("rope_parameters") && fields.object("rope_parameters").has("sliding_attention"))
    config.local_rope = parse_rope(fields.object("rope_parameters").object("sliding_attention"), local_base, context);
}

std::vector<bool> parse_layer_types(const Fields& fields, const std::string& name) {
  const Json& list = *fields.find(name);
  if (!list.is_array()) throw_error<FormatError>("{}: field \"{}\" must be a list", fields.where(), name);
  std::vector<bool> sliding;
  for (const Json& item : list) {
    const std::string type = item.is_string() ? item.get<std::string>() : item.type_name();
    if (type != "sliding_attention" && type != "full_attention")
      throw_error<FormatError>("{}: layer type \"{}\" is not supported; supported are full_attention and sliding_attention",
                               fields.where(), formats::printable(type));
    sliding.push_back(type == "sliding_attention");
  }
  return sliding;
}

/// Which layers see a window only: Gemma 3 all but every sixth, Qwen those from max_window_layers on, if it is switched on at
/// all.
void parse_windows(const Fields& fields, ModelConfig& config) {
  const bool gemma = config.architecture == Architecture::gemma3;
  if (config.architecture == Architecture::llama) return;
  if (!gemma && !fields.boolean("use_sliding_window", false)) return;
  config.sliding_window = fields.integer("sliding_window", 4096);
  if (fields.has("layer_types")) {
    config.sliding = parse_layer_types(fields, "layer_types");
    return;
  }
  const int64_t pattern = fields.integer("sliding_window_pattern", fields.integer("_sliding_window_pattern", 6));
  const int64_t first = fields.integer("max_window_layers", 28);
  if (pattern < 1) throw_error<FormatError>("{}: sliding_window_pattern {} must be positive", fields.where(), pattern);
  for (int64_t layer = 0; layer < config.layers; ++layer)
    config.sliding.push_back(gemma ? (layer + 1) % pattern != 0 : layer >= first);
}

void parse_gemma(const Fields& fields, ModelConfig& config) {
  if (fields.boolean("use_bidirectional_attention", false))
    throw_error<FormatError>("{}: use_bidirectional_attention is not supported: this is not a causal decoder", fields.where());
  config.norm_plus_one = config.sandwich_norms = true;
  config.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(config.hidden_size)));
  config.attention_scale = 1.0 / std::sqrt(fields.number("query_pre_attn_scalar", 256));
  config.attention_softcap = fields.number("attn_logit_softcapping", 0);
  config.logit_softcap = fields.number("final_logit_softcapping", 0);
}

void parse_sizes(const Fields& fields, const Defaults& defaults, ModelConfig& config) {
  config.vocab_size = fields.integer("vocab_size");
  config.hidden_size = fields.integer("hidden_size");
  config.intermediate_size = fields.integer("intermediate_size");
  config.layers = fields.integer("num_hidden_layers");
  config.heads = fields.integer("num_attention_heads");
  config.kv_heads = fields.integer("num_key_value_heads", defaults.kv_heads == 0 ? config.heads : defaults.kv_heads);
  if (config.heads < 1) throw_error<FormatError>("{}: num_attention_heads must be positive", fields.where());
  const int64_t head_dim = defaults.head_dim == 0 ? config.hidden_size / config.heads : defaults.head_dim;
  if (defaults.head_dim == 0 && !fields.has("head_dim") && config.hidden_size % config.heads != 0)
    throw_error<FormatError>("{}: {} heads do not divide hidden_size {}, and head_dim is missing", fields.where(), config.heads,
                             config.hidden_size);
  config.head_dim = fields.integer("head_dim", head_dim);
  config.context_length = fields.integer("max_position_embeddings", defaults.context);
}

Json rope_json(const RopeConfig& rope) {
  Json json{{"rope_theta", rope.base}};
  json["rope_type"] = rope.scaling == RopeConfig::Scaling::none     ? "default"
                      : rope.scaling == RopeConfig::Scaling::linear ? "linear"
                                                                    : "llama3";
  if (rope.scaling != RopeConfig::Scaling::none) json["factor"] = rope.factor;
  if (rope.scaling != RopeConfig::Scaling::llama3) return json;
  json["low_freq_factor"] = rope.low_freq_factor;
  json["high_freq_factor"] = rope.high_freq_factor;
  json["original_max_position_embeddings"] = static_cast<int64_t>(rope.original_context);
  return json;
}

/// Both spellings: transformers 5's `rope_parameters` and the older `rope_theta` with `rope_scaling`.
void write_ropes(const ModelConfig& config, Json& json) {
  json["rope_theta"] = config.rope.base;
  if (config.rope.scaling != RopeConfig::Scaling::none) {
    json["rope_scaling"] = rope_json(config.rope);
    json["rope_scaling"].erase("rope_theta");
  }
  if (config.architecture == Architecture::gemma3) {
    json["rope_local_base_freq"] = config.local_rope.base;
    json["rope_parameters"] = {{"full_attention", rope_json(config.rope)}, {"sliding_attention", rope_json(config.local_rope)}};
  } else {
    json["rope_parameters"] = rope_json(config.rope);
  }
}

void write_windows(const ModelConfig& config, Json& json) {
  if (config.architecture == Architecture::llama) return;
  const bool slides = config.sliding_window > 0 && !config.sliding.empty();
  if (config.architecture != Architecture::gemma3) json["use_sliding_window"] = slides;
  json["sliding_window"] = config.sliding_window > 0 ? Json(config.sliding_window) : Json(nullptr);
  Json types = Json::array();
  for (int64_t layer = 0; layer < config.layers; ++layer)
    types.push_back(config.slides(layer) ? "sliding_attention" : "full_attention");
  json["layer_types"] = types;
}

void write_gemma(const ModelConfig& config, Json& json) {
  const double scale = config.score_scale();
  const double scalar = 1.0 / (scale * scale);
  json["query_pre_attn_scalar"] = static_cast<int64_t>(std::llround(scalar));
  json["attn_logit_softcapping"] = config.attention_softcap > 0 ? Json(config.attention_softcap) : Json(nullptr);
  json["final_logit_softcapping"] = config.logit_softcap > 0 ? Json(config.logit_softcap) : Json(nullptr);
}

}  // namespace

ModelConfig parse_hf_config(const Json& json, const std::string& file, const Json* generation) {
  const Fields top(json, file);
  if (top.has("quantization_config"))
    throw_error<FormatError>("{}: the model is already quantized (field \"quantization_config\"); give the float model", file);
  const std::string top_type = top.text("model_type");
  const bool nested = top_type == "gemma3";  // text and vision model in one; the text part is read
  const Fields fields = nested ? top.object("text_config") : top;
  const Defaults& defaults = defaults_of(nested ? "gemma3_text" : top_type, file);

  ModelConfig config;
  config.architecture = defaults.architecture;
  parse_sizes(fields, defaults, config);
  check(config, file);  // before anything is sized by these numbers
  const bool gemma = config.architecture == Architecture::gemma3;
  config.norm_epsilon = fields.number("rms_norm_eps", defaults.epsilon);
  config.activation = gemma ? parse_activation(fields, "hidden_activation", "gelu_pytorch_tanh")
                            : parse_activation(fields, "hidden_act", "silu");
  config.tied_head = fields.boolean("tie_word_embeddings", top.boolean("tie_word_embeddings", defaults.tied));
  const bool bias = fields.boolean("attention_bias", false);
  config.attention_bias = bias || config.architecture == Architecture::qwen2;
  config.output_bias = bias && config.architecture != Architecture::qwen2;
  config.mlp_bias = config.architecture == Architecture::llama && fields.boolean("mlp_bias", false);
  config.qk_norm = gemma || config.architecture == Architecture::qwen3;
  if (gemma) parse_gemma(fields, config);
  parse_ropes(fields, config);
  parse_windows(fields, config);

  config.end_tokens = fields.integers("eos_token_id");
  if (config.end_tokens.empty()) config.end_tokens = top.integers("eos_token_id");
  if (generation != nullptr) {
    const Fields settings(*generation, file + " (generation_config.json)");
    if (settings.has("eos_token_id")) config.end_tokens = settings.integers("eos_token_id");
  }
  config.bos_token = fields.integer("bos_token_id", top.integer("bos_token_id", -1));
  config.name = top.text("_name_or_path", "");
  config.licence = top.text("license", "");
  check(config, file);
  return config;
}

Json to_hf_config(const ModelConfig& config) {
  const Defaults& defaults = defaults_of(config.architecture);
  const bool gemma = config.architecture == Architecture::gemma3;
  Json json{{"architectures", {defaults.causal_class}}, {"model_type", defaults.model_type}};
  json["vocab_size"] = config.vocab_size;
  json["hidden_size"] = config.hidden_size;
  json["intermediate_size"] = config.intermediate_size;
  json["num_hidden_layers"] = config.layers;
  json["num_attention_heads"] = config.heads;
  json["num_key_value_heads"] = config.kv_heads;
  json["head_dim"] = config.head_dim;
  json["max_position_embeddings"] = config.context_length;
  json["rms_norm_eps"] = config.norm_epsilon;
  json[gemma ? "hidden_activation" : "hidden_act"] = config.activation == Activation::silu ? "silu" : "gelu_pytorch_tanh";
  json["tie_word_embeddings"] = config.tied_head;
  if (config.architecture != Architecture::qwen2) json["attention_bias"] = config.attention_bias;
  if (config.architecture == Architecture::llama) json["mlp_bias"] = config.mlp_bias;
  if (gemma) write_gemma(config, json);
  write_ropes(config, json);
  write_windows(config, json);
  json["bos_token_id"] = config.bos_token >= 0 ? Json(config.bos_token) : Json(nullptr);
  json["eos_token_id"] = config.end_tokens.empty()       ? Json(nullptr)
                         : config.end_tokens.size() == 1 ? Json(config.end_tokens.front())
                                                         : Json(config.end_tokens);
  json["pad_token_id"] = nullptr;
  if (!config.licence.empty()) json["license"] = config.licence;
  return json;
}

}  // namespace lighten
