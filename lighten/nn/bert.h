// The BERT encoder in torch (MiniLM and its relatives), with low-rank adapters, and the text encoder built on it.
//
// Weights are registered parameters and start without gradient: training says which ones it wants (trainable_layers, add_lora).
#pragma once
#include <torch/torch.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/nn/state.h"

namespace lighten {

/// The numbers of a BERT's config.json.
struct BertConfig {
  int64_t vocab_size = 0, hidden_size = 0, layers = 0, heads = 0, intermediate_size = 0;
  int64_t positions = 512;  ///< rows of the position table: the longest input
  int64_t token_types = 2;  ///< only type 0 is used: one text at a time
  double norm_epsilon = 1e-12;
  double dropout = 0.1;  ///< in training mode only
};
/// Reads `folder`/config.json. Throws FormatError: not a BERT, a missing field, an activation other than erf-GELU.
BertConfig read_bert_config(const fs::path& folder);

/// x -> (alpha / rank) (x A^T) B^T with A [rank, in] ~ N(0, 1 / rank), B [out, rank] = 0 at first.
/// Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models".
struct LoraImpl : torch::nn::Module {
  LoraImpl(int64_t inputs, int64_t outputs, int64_t rank, double alpha, torch::Generator generator);
  torch::Tensor forward(const torch::Tensor& x);
  torch::Tensor a, b;
  double scale;
};
TORCH_MODULE(Lora);

/// y = x W^T + b, plus the adapter's output if there is one. W [out, in], b [out], x [..., in].
struct AdaptableLinearImpl : torch::nn::Module {
  AdaptableLinearImpl(int64_t inputs, int64_t outputs);
  torch::Tensor forward(const torch::Tensor& x);
  /// Nothing changes at first. W and b lose their gradient.
  void add_lora(int64_t rank, double alpha, torch::Generator generator);
  /// W += (alpha / rank) B A; the adapter is gone.
  void merge_lora();
  torch::Tensor weight, bias;
  Lora lora{nullptr};
};
TORCH_MODULE(AdaptableLinear);

/// x + output(attention(x)), normalised; then x + down(gelu(up(x))), normalised (norms come after the sums).
struct BertLayerImpl : torch::nn::Module {
  explicit BertLayerImpl(const BertConfig& config);
  /// x [batch, tokens, hidden]; mask [batch, 1, 1, tokens] of bool (true: may be seen), or undefined: all may be.
  torch::Tensor forward(const torch::Tensor& x, const torch::Tensor& mask);
  AdaptableLinear query{nullptr}, key{nullptr}, value{nullptr}, output{nullptr}, up{nullptr}, down{nullptr};
  torch::nn::LayerNorm attention_norm{nullptr}, output_norm{nullptr};
  int64_t heads;
  double dropout;
};
TORCH_MODULE(BertLayer);

/// norm(word + position + type embedding), then the layers.
struct BertImpl : torch::nn::Module {
  explicit BertImpl(BertConfig config);
  /// ids [batch, tokens] int64, lengths[i] real tokens in row i (the rest is padding). -> [batch, tokens, hidden]; what stands
  /// at padded places means nothing. Throws ModelError on an id outside the vocabulary or more tokens than positions.
  torch::Tensor forward(const torch::Tensor& ids, const std::vector<int64_t>& lengths);
  BertConfig config;
  torch::Tensor words, positions, types;  ///< [vocab, hidden], [positions, hidden], [types, hidden]
  torch::nn::LayerNorm norm{nullptr};
  std::vector<BertLayer> layers;
};
TORCH_MODULE(Bert);

/// A BERT with random weights: N(0, 0.02^2), biases 0, norms 1 (as the original).
Bert random_bert(const BertConfig& config, uint64_t seed);
/// From a Hugging Face folder (config.json + safetensors; names with or without "bert." before them), in evaluation mode.
Bert load_bert(const fs::path& folder);
/// The parameters by the names of a Hugging Face checkpoint; they share memory with the module.
NamedTensors stored_parameters(const Bert& bert);
/// Gives the last `count` layers (-1: everything, embeddings too) their gradient and takes it from the others.
void trainable_layers(Bert& bert, int64_t count);
/// Adapters on query and value (Hu et al., "LoRA", section 4.2) of the last `count` layers (-1: all); only they have gradients.
void add_lora(Bert& bert, int64_t rank, double alpha, uint64_t seed, int64_t count = -1);
void merge_lora(Bert& bert);

enum class Pooling : uint8_t { mean, cls };
/// Texts -> unit vectors: tokenizer, BERT, pooling over the real tokens, L2 normalisation.
struct TextEncoder {
  Bert bert{nullptr};
  std::shared_ptr<const Tokenizer> tokenizer;
  int64_t max_tokens = 256;  ///< [CLS] and [SEP] included; longer texts are cut
  Pooling pooling = Pooling::mean;
};
/// Bert and tokenizer.json of `folder`; max_tokens from its sentence_bert_config.json if there is one.
TextEncoder load_text_encoder(const fs::path& folder);
/// Writes model.safetensors beside copies of the small files (.json, .txt) of `source`, the folder that it was loaded from:
/// what load_text_encoder and transformers read. `folder` must exist.
void save_text_encoder(const TextEncoder& encoder, const fs::path& source, const fs::path& folder);
/// [CLS] text [SEP], at most `max_tokens` ids.
std::vector<int32_t> token_ids(const TextEncoder& encoder, std::string_view text);
/// Rows of ids (none empty) -> [rows, hidden], unit length. Pads to the longest row: bring rows of like length together.
torch::Tensor embed(TextEncoder& encoder, std::span<const std::vector<int32_t>> rows);
/// The same without gradient for any number of texts: sorted by length, in batches of about `batch_tokens` tokens.
torch::Tensor embed_texts(TextEncoder& encoder, const std::vector<std::string>& texts, int64_t batch_tokens = 4096);

/// Index lists that cover rows of the given lengths, longest first, each with at most `batch_tokens` tokens after padding.
std::vector<std::vector<int64_t>> batches_by_length(const std::vector<int64_t>& lengths, int64_t batch_tokens);

}  // namespace lighten
