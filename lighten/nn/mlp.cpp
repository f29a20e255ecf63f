#include "lighten/nn/mlp.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/nn/product.h"
#include "lighten/nn/state.h"

namespace lighten {

Json to_json(const FeatureNetConfig& config) {
  return {{"inputs", config.inputs},
          {"widths", config.widths},
          {"outputs", config.outputs},
          {"dropout", config.dropout},
          {"batch_norm", config.batch_norm}};
}

FeatureNetConfig feature_net_config_from(const Json& json, const std::string& where) {
  const formats::Fields fields(json, where);
  FeatureNetConfig config{fields.integer("inputs"), fields.integers("widths"), fields.integer("outputs"),
                          fields.number("dropout", 0), fields.boolean("batch_norm", false)};
  std::vector<int64_t> sizes = config.widths;
  sizes.insert(sizes.end(), {config.inputs, config.outputs});
  for (const int64_t size : sizes)
    if (size < 1 || size > 10'000'000) throw_error<FormatError>("{}: a layer of {} cannot be", where, size);
  return config;
}

FeatureNetImpl::FeatureNetImpl(FeatureNetConfig net_config, uint64_t seed) : config(std::move(net_config)) {
  if (config.inputs < 1 || config.outputs < 1)
    throw_error<OptionError>("a net with {} inputs and {} outputs", config.inputs, config.outputs);
  auto generator = torch::make_generator<at::CPUGeneratorImpl>(seed);
  int64_t inputs = config.inputs;
  const auto layer = [&](int64_t outputs, double limit) {
    const size_t i = weights.size();
    weights.push_back(
        register_parameter(fmt::format("weight_{}", i), torch::empty({outputs, inputs}).uniform_(-limit, limit, generator)));
    biases.push_back(register_parameter(fmt::format("bias_{}", i), torch::zeros({outputs})));
    inputs = outputs;
  };
  for (const int64_t width : config.widths) {
    if (width < 1) throw_error<OptionError>("a hidden layer of width {}", width);
    layer(width, std::sqrt(6.0 / static_cast<double>(inputs)));
    if (config.batch_norm) norms.push_back(register_module(fmt::format("norm_{}", norms.size()), ChannelNorm(width)));
  }
  layer(config.outputs, 1 / std::sqrt(static_cast<double>(inputs)));
}

torch::Tensor FeatureNetImpl::hidden(const torch::Tensor& x) {
  torch::Tensor h = x;
  for (size_t i = 0; i + 1 < weights.size(); ++i) {
    h = product(h, weights[i], biases[i]);
    if (config.batch_norm) h = norms[i]->forward(h);
    h = torch::relu(h);
    if (config.dropout > 0) h = torch::dropout(h, config.dropout, is_training());
  }
  return h;
}

torch::Tensor FeatureNetImpl::forward(const torch::Tensor& x) { return product(hidden(x), weights.back(), biases.back()); }

torch::Tensor predict(FeatureNet& net, const torch::Tensor& x, int64_t batch) {
  const torch::NoGradGuard no_grad;
  const bool training = net->is_training();
  net->eval();
  std::vector<torch::Tensor> parts;
  for (int64_t at = 0; at < x.size(0); at += batch) parts.push_back(net->forward(x.slice(0, at, at + batch)));
  net->train(training);
  return parts.empty() ? torch::empty({0, net->config.outputs}) : torch::cat(parts);
}

void save_feature_net(const FeatureNet& net, const fs::path& folder, const Json& more) {
  Json json = {{"format", "lighten mlp 1"}, {"net", to_json(net->config)}};
  for (const auto& [name, value] : more.items()) json[name] = value;
  save_tensors(folder / "model.safetensors", state_of(*net));
  write_file(folder / "config.json", json_text(json, 1) + "\n");
}

FeatureNet load_feature_net(const fs::path& folder) {
  const fs::path file = folder / "config.json";
  const Json json = formats::parse_json(read_file(file), file.string());
  const formats::Fields fields(json, file.string());
  if (fields.text("format", "") != "lighten mlp 1")
    throw_error<FormatError>("{}: is no perceptron that Lighten wrote", file.string());
  FeatureNet net(feature_net_config_from(*fields.find("net"), file.string()), 0);
  copy_state(load_tensors(folder / "model.safetensors"), state_of(*net), (folder / "model.safetensors").string());
  net->eval();
  return net;
}

}  // namespace lighten
