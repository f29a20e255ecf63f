// Building the modules from tensors by canonical name.
#include <numeric>

#include "lighten/base/error.h"
#include "lighten/nn/decoder.h"

namespace lighten {

namespace {

/// A tensor that owns the reader's vector: nothing is copied.
torch::Tensor read_tensor(const TensorReader& read, const std::string& name, const std::vector<int64_t>& shape) {
  auto values = std::make_unique<std::vector<float>>(read(name));
  const int64_t wanted = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  if (static_cast<int64_t>(values->size()) != wanted) {
    throw_error<FormatError>("tensor {} has {} values, but the model's configuration asks for {} ({})", name, values->size(),
                             wanted, fmt::join(shape, " x "));
  }
  float* data = values->data();
  auto* owner = values.release();
  return torch::from_blob(
      data, shape, [owner](void*) { delete owner; }, torch::kFloat32);
}

struct BlockReader {
  const ModelConfig& config;
  const TensorReader& read;
  int64_t layer;

  RmsNorm norm(const std::string& rest, int64_t width) const {
    return RmsNorm(read_tensor(read, block_tensor(layer, rest + ".weight"), {width}), config.norm_epsilon);
  }
  Linear linear(const LinearShape& shape) const {
    auto weight = read_tensor(read, shape.name + ".weight", {shape.rows, shape.columns});
    return Linear(weight, shape.bias ? read_tensor(read, shape.name + ".bias", {shape.rows}) : torch::Tensor());
  }
};

// Llama and Qwen call the norm before the MLP "post_attention_layernorm"; Gemma gives that name to the norm of attention's
// output.
std::string mlp_norm_name(const ModelConfig& config) {
  return config.sandwich_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm";
}

void add(std::vector<NamedTensor>& list, const std::string& name, torch::Tensor& tensor) {
  if (tensor.defined()) list.push_back({name, &tensor});
}

}  // namespace

std::string block_tensor(int64_t layer, const std::string& rest) { return fmt::format("model.layers.{}.{}", layer, rest); }

Block load_block(const ModelConfig& config, const TensorReader& read, int64_t layer) {
  if (layer < 0 || layer >= config.layers) throw_error<ModelError>("block {} of a model with {} blocks", layer, config.layers);
  const BlockReader from{config, read, layer};
  const auto shapes = block_linears(config, layer);
  Block block;
  block->config = config;
  block->layer = layer;
  block->input_norm = from.norm("input_layernorm", config.hidden_size);
  block->post_attention_norm = from.norm(mlp_norm_name(config), config.hidden_size);
  if (config.sandwich_norms) {
    block->attention_out_norm = from.norm("post_attention_layernorm", config.hidden_size);
    block->mlp_out_norm = from.norm("post_feedforward_layernorm", config.hidden_size);
  }
  RmsNorm q_norm{nullptr}, k_norm{nullptr};
  if (config.qk_norm) {
    q_norm = from.norm("self_attn.q_norm", config.head_dim);
    k_norm = from.norm("self_attn.k_norm", config.head_dim);
  }
  block->attention = Attention(config, layer, from.linear(shapes.at(0)), from.linear(shapes.at(1)), from.linear(shapes.at(2)),
                               from.linear(shapes.at(3)), q_norm, k_norm);
  block->mlp = Mlp(config.activation, from.linear(shapes.at(4)), from.linear(shapes.at(5)), from.linear(shapes.at(6)));
  block->eval();
  return block;
}

Decoder load_ends(const ModelConfig& config, const TensorReader& read) {
  Decoder decoder(config);
  decoder->embedding = read_tensor(read, "model.embed_tokens.weight", {config.vocab_size, config.hidden_size});
  decoder->head_weight =
      config.tied_head ? decoder->embedding : read_tensor(read, "lm_head.weight", {config.vocab_size, config.hidden_size});
  decoder->final_norm = RmsNorm(read_tensor(read, "model.norm.weight", {config.hidden_size}), config.norm_epsilon);
  decoder->eval();
  return decoder;
}

Decoder load_decoder(const ModelConfig& config, const TensorReader& read) {
  Decoder decoder = load_ends(config, read);
  for (int64_t layer = 0; layer < config.layers; ++layer) decoder->blocks.push_back(load_block(config, read, layer));
  return decoder;
}

Decoder load_decoder(const WeightSource& source) {
  return load_decoder(source.config(), [&source](const std::string& name) { return source.read(name); });
}

std::vector<NamedTensor> tensors(Block& block) {
  std::vector<NamedTensor> list;
  const auto norm = [&](const std::string& rest, RmsNorm& module) {
    if (module) add(list, block_tensor(block->layer, rest + ".weight"), module->weight);
  };
  const auto linear = [&](const std::string& rest, Linear& module) {
    add(list, block_tensor(block->layer, rest + ".weight"), module->weight);
    add(list, block_tensor(block->layer, rest + ".bias"), module->bias);
  };
  norm("input_layernorm", block->input_norm);
  linear("self_attn.q_proj", block->attention->q_proj);
  linear("self_attn.k_proj", block->attention->k_proj);
  linear("self_attn.v_proj", block->attention->v_proj);
  linear("self_attn.o_proj", block->attention->o_proj);
  norm("self_attn.q_norm", block->attention->q_norm);
  norm("self_attn.k_norm", block->attention->k_norm);
  norm("post_attention_layernorm", block->config.sandwich_norms ? block->attention_out_norm : block->post_attention_norm);
  if (block->config.sandwich_norms) norm("pre_feedforward_layernorm", block->post_attention_norm);
  linear("mlp.gate_proj", block->mlp->gate_proj);
  linear("mlp.up_proj", block->mlp->up_proj);
  linear("mlp.down_proj", block->mlp->down_proj);
  norm("post_feedforward_layernorm", block->mlp_out_norm);
  return list;
}

std::vector<NamedTensor> tensors(Decoder& decoder) {
  std::vector<NamedTensor> list;
  add(list, "model.embed_tokens.weight", decoder->embedding);
  for (Block& block : decoder->blocks) {
    for (const NamedTensor& entry : tensors(block)) list.push_back(entry);
  }
  add(list, "model.norm.weight", decoder->final_norm->weight);
  if (!decoder->config.tied_head) add(list, "lm_head.weight", decoder->head_weight);
  return list;
}

}  // namespace lighten
