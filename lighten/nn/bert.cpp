#include "lighten/nn/bert.h"

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/safetensors.h"
#include "lighten/nn/product.h"

namespace lighten {

BertConfig read_bert_config(const fs::path& folder) {
  const fs::path file = folder / "config.json";
  const Json json = formats::parse_json(read_file(file), file.string());
  const formats::Fields fields(json, file.string());
  if (fields.text("model_type") != "bert")
    throw_error<FormatError>("{}: field \"model_type\" is \"{}\"; a text encoder must be a \"bert\"", file.string(),
                             fields.text("model_type"));
  if (fields.text("hidden_act", "gelu") != "gelu" || fields.text("position_embedding_type", "absolute") != "absolute")
    throw_error<FormatError>("{}: only hidden_act \"gelu\" and absolute positions are supported", file.string());
  BertConfig config;
  config.vocab_size = fields.integer("vocab_size");
  config.hidden_size = fields.integer("hidden_size");
  config.layers = fields.integer("num_hidden_layers");
  config.heads = fields.integer("num_attention_heads");
  config.intermediate_size = fields.integer("intermediate_size");
  config.positions = fields.integer("max_position_embeddings", 512);
  config.token_types = fields.integer("type_vocab_size", 2);
  config.norm_epsilon = fields.number("layer_norm_eps", 1e-12);
  config.dropout = fields.number("hidden_dropout_prob", 0.1);
  for (const int64_t size : {config.vocab_size, config.hidden_size, config.layers, config.heads, config.intermediate_size,
                             config.positions, config.token_types})
    if (size < 1 || size > 10'000'000) throw_error<FormatError>("{}: a size of {} cannot be", file.string(), size);
  if (config.hidden_size % config.heads != 0)
    throw_error<FormatError>("{}: hidden_size {} is no multiple of num_attention_heads {}", file.string(), config.hidden_size,
                             config.heads);
  return config;
}

LoraImpl::LoraImpl(int64_t inputs, int64_t outputs, int64_t rank, double alpha, torch::Generator generator)
    : scale(alpha / static_cast<double>(rank)) {
  a = register_parameter("a", torch::randn({rank, inputs}, generator) / std::sqrt(static_cast<double>(rank)));
  b = register_parameter("b", torch::zeros({outputs, rank}));
}

torch::Tensor LoraImpl::forward(const torch::Tensor& x) { return product(product(x, a), b) * scale; }

AdaptableLinearImpl::AdaptableLinearImpl(int64_t inputs, int64_t outputs)
    : weight(register_parameter("weight", torch::empty({outputs, inputs}), false)),
      bias(register_parameter("bias", torch::zeros({outputs}), false)) {}

torch::Tensor AdaptableLinearImpl::forward(const torch::Tensor& x) {
  const torch::Tensor y = product(x, weight, bias);
  return lora ? y + lora->forward(x) : y;
}

void AdaptableLinearImpl::add_lora(int64_t rank, double alpha, torch::Generator generator) {
  if (lora) throw ModelError("this layer has an adapter already; merge it first");
  weight.requires_grad_(false);
  bias.requires_grad_(false);
  lora = register_module("lora", Lora(weight.size(1), weight.size(0), rank, alpha, std::move(generator)));
}

void AdaptableLinearImpl::merge_lora() {
  if (!lora) return;
  const torch::NoGradGuard no_grad;
  weight.add_(torch::mm(lora->b, lora->a), lora->scale);
  unregister_module("lora");
  lora = nullptr;
}

namespace {

torch::nn::LayerNorm layer_norm(const BertConfig& config) {
  auto norm = torch::nn::LayerNorm(torch::nn::LayerNormOptions({config.hidden_size}).eps(config.norm_epsilon));
  for (auto& parameter : norm->parameters()) parameter.requires_grad_(false);
  return norm;
}

}  // namespace

BertLayerImpl::BertLayerImpl(const BertConfig& config) : heads(config.heads), dropout(config.dropout) {
  const int64_t hidden = config.hidden_size;
  query = register_module("query", AdaptableLinear(hidden, hidden));
  key = register_module("key", AdaptableLinear(hidden, hidden));
  value = register_module("value", AdaptableLinear(hidden, hidden));
  output = register_module("output", AdaptableLinear(hidden, hidden));
  attention_norm = register_module("attention_norm", layer_norm(config));
  up = register_module("up", AdaptableLinear(hidden, config.intermediate_size));
  down = register_module("down", AdaptableLinear(config.intermediate_size, hidden));
  output_norm = register_module("output_norm", layer_norm(config));
}

torch::Tensor BertLayerImpl::forward(const torch::Tensor& x, const torch::Tensor& mask) {
  const auto split = [&](const torch::Tensor& y) {  // [batch, heads, tokens, hidden / heads]
    return y.view({y.size(0), y.size(1), heads, -1}).transpose(1, 2);
  };
  const auto drop = [&](const torch::Tensor& y) { return is_training() && dropout > 0 ? torch::dropout(y, dropout, true) : y; };
  const torch::Tensor context =
      torch::scaled_dot_product_attention(split(query->forward(x)), split(key->forward(x)), split(value->forward(x)),
                                          mask.defined() ? std::optional(mask) : std::nullopt, is_training() ? dropout : 0.0);
  const torch::Tensor attended = attention_norm->forward(x + drop(output->forward(context.transpose(1, 2).reshape(x.sizes()))));
  return output_norm->forward(attended + drop(down->forward(torch::gelu(up->forward(attended)))));
}

BertImpl::BertImpl(BertConfig bert_config) : config(bert_config) {
  const auto table = [&](const char* name, int64_t rows) {
    return register_parameter(name, torch::empty({rows, config.hidden_size}), false);
  };
  words = table("words", config.vocab_size);
  positions = table("positions", config.positions);
  types = table("types", config.token_types);
  norm = register_module("norm", layer_norm(config));
  for (int64_t i = 0; i < config.layers; ++i) layers.push_back(register_module(fmt::format("layer_{}", i), BertLayer(config)));
}

torch::Tensor BertImpl::forward(const torch::Tensor& ids, const std::vector<int64_t>& lengths) {
  const int64_t batch = ids.size(0), tokens = ids.size(1);
  if (tokens > config.positions)
    throw_error<ModelError>("{} tokens, but this encoder knows {} positions; cut the texts", tokens, config.positions);
  if (static_cast<int64_t>(lengths.size()) != batch) throw_error<ModelError>("{} lengths for {} rows", lengths.size(), batch);
  if (ids.numel() > 0 && (ids.min().item<int64_t>() < 0 || ids.max().item<int64_t>() >= config.vocab_size))
    throw_error<ModelError>("a token id lies outside the vocabulary of {}", config.vocab_size);
  torch::Tensor mask;
  if (std::any_of(lengths.begin(), lengths.end(), [&](int64_t length) { return length != tokens; }))
    mask = (torch::arange(tokens) < torch::tensor(lengths).unsqueeze(1)).view({batch, 1, 1, tokens});
  torch::Tensor x = torch::embedding(words, ids) + positions.slice(0, 0, tokens) + types[0];
  x = norm->forward(x);
  if (is_training() && config.dropout > 0) x = torch::dropout(x, config.dropout, true);
  for (BertLayer& layer : layers) x = layer->forward(x, mask);
  return x;
}

Bert random_bert(const BertConfig& config, uint64_t seed) {
  Bert bert(config);
  const torch::NoGradGuard no_grad;
  auto generator = torch::make_generator<at::CPUGeneratorImpl>(seed);
  for (auto& entry : bert->named_parameters())
    if (entry.key().find("norm") == std::string::npos && !entry.key().ends_with("bias"))
      entry.value().normal_(0, 0.02, generator);
  bert->eval();
  return bert;
}

namespace {

/// Our parameter's name in a Hugging Face checkpoint.
std::string stored_name(const std::string& name) {
  static const std::vector<std::pair<std::string, std::string>> parts = {
      {"query", "attention.self.query"},    {"key", "attention.self.key"},
      {"value", "attention.self.value"},    {"output_norm", "output.LayerNorm"},
      {"output", "attention.output.dense"}, {"attention_norm", "attention.output.LayerNorm"},
      {"up", "intermediate.dense"},         {"down", "output.dense"}};
  if (name == "words") return "embeddings.word_embeddings.weight";
  if (name == "positions") return "embeddings.position_embeddings.weight";
  if (name == "types") return "embeddings.token_type_embeddings.weight";
  if (name.starts_with("norm.")) return "embeddings.LayerNorm." + name.substr(5);
  const size_t dot = name.find('.'), last = name.rfind('.');
  const std::string part = name.substr(dot + 1, last - dot - 1);
  for (const auto& [ours, theirs] : parts)
    if (part == ours) return fmt::format("encoder.layer.{}.{}{}", name.substr(6, dot - 6), theirs, name.substr(last));
  throw_error<ModelError>("no stored name for {}", name);
}

}  // namespace

Bert load_bert(const fs::path& folder) {
  Bert bert(read_bert_config(folder));
  const SafetensorsModel model(folder);
  const torch::NoGradGuard no_grad;
  for (auto& entry : bert->named_parameters()) {
    const std::string name = stored_name(entry.key());
    const TensorView* view = model.find(name);
    if (!view) view = model.find("bert." + name);
    if (!view) throw_error<FormatError>("{}: tensor {} is missing", folder.string(), name);
    torch::Tensor& parameter = entry.value();
    if (view->shape != parameter.sizes().vec())
      throw_error<FormatError>("{}: tensor {} is {}, but config.json asks for {}", folder.string(), name,
                               fmt::join(view->shape, " x "), fmt::join(parameter.sizes().vec(), " x "));
    const std::vector<float> values = to_float(*view, folder.string() + ": tensor " + name);
    std::copy(values.begin(), values.end(), parameter.data_ptr<float>());
  }
  bert->eval();
  return bert;
}

NamedTensors stored_parameters(const Bert& bert) {
  NamedTensors tensors;
  for (const auto& entry : bert->named_parameters()) tensors.emplace_back(stored_name(entry.key()), entry.value());
  return tensors;
}

void trainable_layers(Bert& bert, int64_t count) {
  for (auto& parameter : bert->parameters()) parameter.requires_grad_(count < 0);
  const auto all = static_cast<int64_t>(bert->layers.size());
  for (int64_t i = count < 0 ? 0 : std::max<int64_t>(0, all - count); i < all; ++i)
    for (auto& parameter : bert->layers[static_cast<size_t>(i)]->parameters()) parameter.requires_grad_(true);
}

void add_lora(Bert& bert, int64_t rank, double alpha, uint64_t seed, int64_t count) {
  if (rank < 1 || rank > bert->config.hidden_size)
    throw_error<OptionError>("a LoRA rank of {}; it must lie between 1 and the width {}", rank, bert->config.hidden_size);
  trainable_layers(bert, 0);
  auto generator = torch::make_generator<at::CPUGeneratorImpl>(seed);
  const auto all = static_cast<int64_t>(bert->layers.size());
  for (int64_t i = count < 0 ? 0 : std::max<int64_t>(0, all - count); i < all; ++i) {
    bert->layers[static_cast<size_t>(i)]->query->add_lora(rank, alpha, generator);
    bert->layers[static_cast<size_t>(i)]->value->add_lora(rank, alpha, generator);
  }
}

void merge_lora(Bert& bert) {
  for (BertLayer& layer : bert->layers) {
    layer->query->merge_lora();
    layer->value->merge_lora();
  }
}

}  // namespace lighten
