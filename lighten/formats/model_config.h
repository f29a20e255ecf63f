// What a decoder is, as numbers: read from Hugging Face's config.json or from GGUF metadata, written to config.json.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/options.h"

namespace lighten {

enum class Architecture : uint8_t { llama, qwen2, qwen3, gemma3 };
enum class Activation : uint8_t { silu, gelu_tanh };

/// Rotary embedding and its scalings. Angle of pair i of d: position * base^(-2i/d) / (scaling).
struct RopeConfig {
  enum class Scaling : uint8_t { none, linear, llama3 };
  double base = 10000;
  Scaling scaling = Scaling::none;
  double factor = 1;               ///< linear, llama3
  double low_freq_factor = 1;      ///< llama3
  double high_freq_factor = 4;     ///< llama3
  double original_context = 8192;  ///< llama3
};

/// A pre-norm decoder with grouped-query attention and a gated MLP.
struct ModelConfig {
  Architecture architecture = Architecture::llama;
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, layers = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t context_length = 2048;
  double norm_epsilon = 1e-5;
  Activation activation = Activation::silu;
  bool tied_head = true;
  bool attention_bias = false;  ///< q, k, v (Qwen 2)
  bool output_bias = false;     ///< o projection (Llama with attention_bias)
  bool mlp_bias = false;
  bool qk_norm = false;  ///< RMS norm over head_dim on q and k before rope (Qwen 3, Gemma 3)
  bool norm_plus_one =
      false;  ///< norms multiply by (1 + w). HF Gemma stores w, GGUF stores 1 + w; the loader always hands out 1 + w, so
              ///< nothing downstream adds one; this flag says that config.json/safetensors of this model store w.
  bool sandwich_norms = false;      ///< Gemma: norms after attention and after MLP too
  double embedding_scale = 1;       ///< Gemma: sqrt(hidden), rounded as the reference does
  double attention_scale = 0;       ///< score multiplier; 0 means head_dim^-0.5 (Gemma: query_pre_attn_scalar^-0.5)
  double attention_softcap = 0;     ///< 0: none
  double logit_softcap = 0;         ///< 0: none
  RopeConfig rope;                  ///< full-attention layers
  RopeConfig local_rope;            ///< sliding layers (Gemma 3: base 10,000)
  int64_t sliding_window = 0;       ///< 0: none
  std::vector<bool> sliding;        ///< per layer; empty: none slides
  std::vector<int64_t> end_tokens;  ///< generation ends on any of these
  int64_t bos_token = -1;           ///< -1: none
  std::string name, licence;        ///< for people; may be empty

  bool slides(int64_t layer) const { return sliding_window > 0 && !sliding.empty() && sliding[static_cast<size_t>(layer)]; }
  double score_scale() const;  ///< attention_scale or head_dim^-0.5
};

/// Parses config.json (and generation_config.json's eos if `generation` is given). Throws FormatError naming file and field.
ModelConfig parse_hf_config(const Json& config, const std::string& file, const Json* generation = nullptr);
/// The Hugging Face config.json that describes the same model.
Json to_hf_config(const ModelConfig& config);
/// Checks that the numbers fit together (heads divide, sizes positive and sane). Throws FormatError.
void check(const ModelConfig& config, const std::string& file);

/// One linear of a block, in canonical (Hugging Face) naming.
struct LinearShape {
  std::string name;  ///< "model.layers.3.mlp.down_proj"
  int64_t rows, columns;
  bool bias;
};
/// The seven linears of block `layer`, in order q, k, v, o, gate, up, down.
std::vector<LinearShape> block_linears(const ModelConfig& config, int64_t layer);

/// Every tensor that the model must have: canonical name ("...q_proj.weight") and shape; "lm_head.weight" only if untied.
struct TensorShape {
  std::string name;
  std::vector<int64_t> shape;
};
std::vector<TensorShape> expected_tensors(const ModelConfig& config);
/// Number of parameters (a tied head counts once).
uint64_t parameter_count(const ModelConfig& config);

}  // namespace lighten
