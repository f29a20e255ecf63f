// The modules against plain loops in double, written from the formulas.
#include <gtest/gtest.h>

#include <numbers>

#include "lighten/nn/decoder.h"
#include "lighten/nn/tiny_model.h"

namespace lighten {

namespace {

using Vector = std::vector<double>;
using Matrix = std::vector<Vector>;  // [tokens][width]

struct Naive {
  const ModelConfig& config;
  const TensorTable& tensors;

  Vector linear(const std::string& name, const Vector& x, size_t rows) const {
    const auto& weight = tensors.at(name + ".weight");
    const auto bias = tensors.find(name + ".bias");
    Vector y(rows, 0.0);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < x.size(); ++c) y[r] += static_cast<double>(weight[r * x.size() + c]) * x[c];
      if (bias != tensors.end()) y[r] += static_cast<double>(bias->second[r]);
    }
    return y;
  }

  Vector norm(const std::string& name, const Vector& x) const {
    const auto& weight = tensors.at(name + ".weight");
    double squares = 0;
    for (const double value : x) squares += value * value;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + config.norm_epsilon);
    Vector y(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * static_cast<double>(weight[i]);
    return y;
  }

  double frequency(const RopeConfig& rope, size_t pair) const {
    const double plain = 1 / std::pow(rope.base, 2.0 * static_cast<double>(pair) / static_cast<double>(config.head_dim));
    if (rope.scaling == RopeConfig::Scaling::linear) return plain / rope.factor;
    if (rope.scaling == RopeConfig::Scaling::none) return plain;
    const double wavelength = 2 * std::numbers::pi / plain;
    if (wavelength > rope.original_context / rope.low_freq_factor) return plain / rope.factor;
    if (wavelength < rope.original_context / rope.high_freq_factor) return plain;
    const double smooth =
        (rope.original_context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    return (1 - smooth) * plain / rope.factor + smooth * plain;
  }

  /// Head `head` of a projection, normalised if `norm_name` is given, and turned to `position`.
  Vector head(const Vector& projected, size_t head, const std::string& norm_name, const RopeConfig& rope,
              size_t position) const {
    const size_t dim = static_cast<size_t>(config.head_dim);
    Vector x(projected.begin() + static_cast<std::ptrdiff_t>(head * dim),
             projected.begin() + static_cast<std::ptrdiff_t>((head + 1) * dim));
    if (config.qk_norm) x = norm(norm_name, x);
    Vector y(dim);
    for (size_t i = 0; i < dim / 2; ++i) {
      const double angle = static_cast<double>(position) * frequency(rope, i);
      y[i] = x[i] * std::cos(angle) - x[i + dim / 2] * std::sin(angle);
      y[i + dim / 2] = x[i + dim / 2] * std::cos(angle) + x[i] * std::sin(angle);
    }
    return y;
  }

  Matrix attention(const std::string& prefix, int64_t layer, const Matrix& x) const {
    const size_t dim = static_cast<size_t>(config.head_dim), heads = static_cast<size_t>(config.heads);
    const size_t kv_heads = static_cast<size_t>(config.kv_heads);
    const bool local = !config.sliding.empty() && config.sliding[static_cast<size_t>(layer)];
    const RopeConfig& rope = local ? config.local_rope : config.rope;
    Matrix q, k, v, out;
    for (const Vector& row : x) {
      q.push_back(linear(prefix + "q_proj", row, heads * dim));
      k.push_back(linear(prefix + "k_proj", row, kv_heads * dim));
      v.push_back(linear(prefix + "v_proj", row, kv_heads * dim));
    }
    const double scale = config.attention_scale > 0 ? config.attention_scale : 1 / std::sqrt(static_cast<double>(dim));
    for (size_t t = 0; t < x.size(); ++t) {
      Vector mixed(heads * dim, 0.0);
      for (size_t h = 0; h < heads; ++h) {
        const size_t kv = h / (heads / kv_heads);
        const Vector query = head(q[t], h, prefix + "q_norm", rope, t);
        Vector weights(t + 1, 0.0);
        double total = 0;
        for (size_t s = 0; s <= t; ++s) {
          if (local && s + static_cast<size_t>(config.sliding_window) <= t) continue;
          const Vector key = head(k[s], kv, prefix + "k_norm", rope, s);
          double score = 0;
          for (size_t i = 0; i < dim; ++i) score += query[i] * key[i];
          score *= scale;
          if (config.attention_softcap > 0) score = config.attention_softcap * std::tanh(score / config.attention_softcap);
          weights[s] = std::exp(score);
          total += weights[s];
        }
        for (size_t s = 0; s <= t; ++s) {
          for (size_t i = 0; i < dim; ++i) mixed[h * dim + i] += weights[s] / total * v[s][kv * dim + i];
        }
      }
      out.push_back(linear(prefix + "o_proj", mixed, static_cast<size_t>(config.hidden_size)));
    }
    return out;
  }

  double activate(double x) const {
    if (config.activation == Activation::silu) return x / (1 + std::exp(-x));
    return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
  }

  Vector mlp(const std::string& prefix, const Vector& x) const {
    Vector gate = linear(prefix + "gate_proj", x, static_cast<size_t>(config.intermediate_size));
    const Vector up = linear(prefix + "up_proj", x, static_cast<size_t>(config.intermediate_size));
    for (size_t i = 0; i < gate.size(); ++i) gate[i] = activate(gate[i]) * up[i];
    return linear(prefix + "down_proj", gate, static_cast<size_t>(config.hidden_size));
  }

  void block(int64_t layer, Matrix& x) const {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    Matrix normed;
    for (const Vector& row : x) normed.push_back(norm(prefix + "input_layernorm", row));
    const Matrix attended = attention(prefix + "self_attn.", layer, normed);
    for (size_t t = 0; t < x.size(); ++t) {
      const Vector first = config.sandwich_norms ? norm(prefix + "post_attention_layernorm", attended[t]) : attended[t];
      for (size_t i = 0; i < first.size(); ++i) x[t][i] += first[i];
      const std::string before = config.sandwich_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm";
      Vector second = mlp(prefix + "mlp.", norm(prefix + before, x[t]));
      if (config.sandwich_norms) second = norm(prefix + "post_feedforward_layernorm", second);
      for (size_t i = 0; i < second.size(); ++i) x[t][i] += second[i];
    }
  }
};

/// Logits [tokens, vocab].
std::vector<double> naive_logits(const ModelConfig& config, const TensorTable& tensors, const std::vector<int64_t>& ids) {
  const Naive naive{config, tensors};
  const size_t width = static_cast<size_t>(config.hidden_size);
  const auto& embedding = tensors.at("model.embed_tokens.weight");
  Matrix x;
  for (const int64_t id : ids) {
    Vector row(width);
    for (size_t i = 0; i < width; ++i) {
      row[i] = static_cast<double>(embedding[static_cast<size_t>(id) * width + i]) * config.embedding_scale;
    }
    x.push_back(row);
  }
  for (int64_t layer = 0; layer < config.layers; ++layer) naive.block(layer, x);
  std::vector<double> logits;
  const std::string head = config.tied_head ? "model.embed_tokens" : "lm_head";
  for (const Vector& row : x) {
    for (double logit : naive.linear(head, naive.norm("model.norm", row), static_cast<size_t>(config.vocab_size))) {
      if (config.logit_softcap > 0) logit = config.logit_softcap * std::tanh(logit / config.logit_softcap);
      logits.push_back(logit);
    }
  }
  return logits;
}

Decoder double_decoder(const ModelConfig& config, const TensorTable& table) {
  Decoder decoder = load_decoder(config, [&](const std::string& name) { return table.at(name); });
  for (const NamedTensor& entry : tensors(decoder)) *entry.tensor = entry.tensor->to(torch::kFloat64);
  if (config.tied_head) decoder->head_weight = decoder->embedding;
  return decoder;
}

class NaiveDecoder : public testing::TestWithParam<Architecture> {};

TEST_P(NaiveDecoder, LogitsEqualPlainLoopsInDouble) {
  const ModelConfig config = tiny_config(GetParam());
  const TensorTable table = random_tensors(config, 7);
  Decoder decoder = double_decoder(config, table);
  const std::vector<int64_t> ids = {3, 17, 0, 30, 5, 5, 12, 9, 22, 1, 14};
  const auto logits = decoder->forward(torch::tensor(ids).unsqueeze(0)).squeeze(0);
  const auto naive = torch::tensor(naive_logits(config, table, ids), torch::kFloat64).view({11, 31});
  EXPECT_LT((logits - naive).abs().max().item<double>(), 1e-11);
  EXPECT_GT(naive.std().item<double>(), 0.5);  // not a comparison of zeros
}

TEST_P(NaiveDecoder, RowsOfABatchDoNotSeeEachOther) {
  const ModelConfig config = tiny_config(GetParam());
  Decoder decoder = double_decoder(config, random_tensors(config, 8));
  const auto ids = torch::tensor({{3, 17, 0, 30, 5, 6}, {8, 2, 2, 19, 25, 11}}, torch::kInt64);
  const auto together = decoder->forward(ids);
  for (int64_t row = 0; row < 2; ++row) {
    const auto alone = decoder->forward(ids.slice(0, row, row + 1));
    EXPECT_LT((together[row] - alone[0]).abs().max().item<double>(), 1e-12);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, NaiveDecoder,
                         testing::Values(Architecture::llama, Architecture::qwen2, Architecture::qwen3, Architecture::gemma3));

}  // namespace
}  // namespace lighten
