// The decoder in torch: Llama, Qwen 2, Qwen 3 and Gemma 3 by configuration, in float32, block by block.
//
// Weights are plain members and carry no gradient. To train some of them, set requires_grad on the tensors that tensors()
// lists: no forward here works in place on anything autograd needs.
#pragma once
#include <torch/torch.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lighten/formats/model_config.h"
#include "lighten/formats/weights.h"

namespace lighten {

/// y = x W^T (+ b). W [out, in], x [..., in].
struct LinearImpl : torch::nn::Module {
  LinearImpl(torch::Tensor weight, torch::Tensor bias = {});
  torch::Tensor forward(const torch::Tensor& x);
  torch::Tensor weight, bias;  ///< bias undefined: none
  /// Called with every input before the product (libtorch has no forward hooks); empty: nobody listens.
  std::function<void(const torch::Tensor&)> observer;
};
TORCH_MODULE(Linear);

/// y = x / sqrt(mean(x^2) + epsilon) * weight over the last dimension. `weight` is the multiplier itself (Gemma's 1 + w is
/// already added).
struct RmsNormImpl : torch::nn::Module {
  RmsNormImpl(torch::Tensor weight, double epsilon);
  torch::Tensor forward(const torch::Tensor& x);
  torch::Tensor weight;
  double epsilon;
};
TORCH_MODULE(RmsNorm);

/// cos and sin of the rotary angles, [tokens, head_dim], for positions 0..tokens-1. Column i and column i + head_dim/2 hold
/// the same angle: position * frequency_i.
struct RotaryTables {
  torch::Tensor cos, sin;
};
RotaryTables rotary_tables(const RopeConfig& rope, int64_t head_dim, int64_t tokens, torch::Dtype dtype = torch::kFloat32);
/// The rotary frequencies in radians per position, [head_dim / 2], scaling applied:
///   none: base^(-2i/head_dim);  linear: that / factor;
///   llama3: wavelengths above original_context/low_freq_factor are divided by factor, those below
///   original_context/high_freq_factor stay, and between the two the frequency is interpolated.
std::vector<double> rotary_frequencies(const RopeConfig& rope, int64_t head_dim);
/// x [..., tokens, head_dim] turned: x cos + rotate_half(x) sin with rotate_half([a, b]) = [-b, a].
torch::Tensor rotate(const torch::Tensor& x, const RotaryTables& rotary);

/// Grouped-query attention: o(softmax(scale q k^T + mask) v). x [batch, tokens, hidden] -> same shape.
/// Position t sees positions max(0, t - window + 1)..t, with window = all in full-attention layers.
struct AttentionImpl : torch::nn::Module {
  AttentionImpl(const ModelConfig& config, int64_t layer, Linear q, Linear k, Linear v, Linear o, RmsNorm q_norm,
                RmsNorm k_norm);
  /// The input of o (context [batch, tokens, heads * head_dim]), before the output projection.
  torch::Tensor context(const torch::Tensor& x, const RotaryTables& rotary);
  torch::Tensor forward(const torch::Tensor& x, const RotaryTables& rotary);
  Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, o_proj{nullptr};
  RmsNorm q_norm{nullptr}, k_norm{nullptr};  ///< empty unless config.qk_norm
  ModelConfig config;
  int64_t layer;
};
TORCH_MODULE(Attention);

/// down(act(gate x) * up x)
struct MlpImpl : torch::nn::Module {
  MlpImpl(Activation activation, Linear gate, Linear up, Linear down);
  torch::Tensor hidden(const torch::Tensor& x);  ///< the input of down
  torch::Tensor forward(const torch::Tensor& x);
  Linear gate_proj{nullptr}, up_proj{nullptr}, down_proj{nullptr};
  Activation activation;
};
TORCH_MODULE(Mlp);

/// x + attention(norm(x)), then x + mlp(norm(x)); with Gemma's norms after attention and after the MLP if they exist.
/// x [batch, tokens, hidden] -> same shape.
struct BlockImpl : torch::nn::Module {
  torch::Tensor forward(const torch::Tensor& x);
  /// The tables of this layer's rope (Gemma: local base in sliding layers) for `tokens` positions.
  RotaryTables rotary(int64_t tokens, torch::Dtype dtype = torch::kFloat32) const;
  RmsNorm input_norm{nullptr};
  RmsNorm post_attention_norm{nullptr};  ///< before the MLP: "post_attention_layernorm" in Llama, "pre_feedforward_layernorm"
                                         ///< in Gemma 3
  RmsNorm attention_out_norm{nullptr}, mlp_out_norm{nullptr};  ///< Gemma only
  Attention attention{nullptr};
  Mlp mlp{nullptr};
  ModelConfig config;
  int64_t layer = 0;
};
TORCH_MODULE(Block);

/// Embedding, blocks, final norm, head.
struct DecoderImpl : torch::nn::Module {
  explicit DecoderImpl(ModelConfig config) : config(std::move(config)) {}
  /// ids [batch, tokens] int64 -> hidden states [batch, tokens, hidden], embedding scale applied. Throws ModelError on an id
  /// outside the vocabulary.
  torch::Tensor embed(const torch::Tensor& ids);
  /// ids -> hidden states after the last block, before the final norm.
  torch::Tensor hidden_states(const torch::Tensor& ids);
  /// hidden -> logits [..., vocab]: final norm, head, soft cap.
  torch::Tensor head(const torch::Tensor& hidden);
  torch::Tensor forward(const torch::Tensor& ids);
  ModelConfig config;
  torch::Tensor embedding;    ///< [vocab, hidden]
  torch::Tensor head_weight;  ///< same tensor as embedding when tied
  std::vector<Block> blocks;
  RmsNorm final_norm{nullptr};
};
TORCH_MODULE(Decoder);

/// A weight where it lives, by canonical name, so that it can be read, replaced or trained.
struct NamedTensor {
  std::string name;
  torch::Tensor* tensor;
};
/// Every weight of a block or a decoder (a tied head once), in the order of expected_tensors().
std::vector<NamedTensor> tensors(Block& block);
std::vector<NamedTensor> tensors(Decoder& decoder);

/// Hands out a tensor's values in float32 by canonical name: a WeightSource, a light model, a table in a test.
using TensorReader = std::function<std::vector<float>(const std::string& name)>;

/// Reads block `layer` only (for block-by-block work on big models).
Block load_block(const ModelConfig& config, const TensorReader& read, int64_t layer);
/// Embedding, final norm and head; `blocks` stays empty.
Decoder load_ends(const ModelConfig& config, const TensorReader& read);
/// The whole model in float32, in evaluation mode, without gradients. Throws FormatError.
Decoder load_decoder(const ModelConfig& config, const TensorReader& read);
Decoder load_decoder(const WeightSource& source);

/// Canonical names of a block's tensors: block_tensor(3, "input_layernorm.weight").
std::string block_tensor(int64_t layer, const std::string& rest);

}  // namespace lighten
