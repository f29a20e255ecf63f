// The decoder written as plain loops in double precision, from the formulas: what the runtime is compared with.
#pragma once
#include <cmath>
#include <limits>
#include <numbers>

#include "lighten/runtime/tiny_model_test.h"

namespace lighten::test {

class ReferenceDecoder {
 public:
  using Vector = std::vector<double>;
  ReferenceDecoder(const ModelConfig& config, const Tensors& tensors) : c_(config), t_(tensors) {}

  /// Logits [ids, vocab] of a whole text, scored without any cache.
  Vector logits(const std::vector<int32_t>& ids) const {
    std::vector<Vector> x;
    for (const int32_t id : ids) {
      const std::vector<float>& table = t_.at("model.embed_tokens.weight");
      Vector row(static_cast<size_t>(c_.hidden_size));
      for (size_t i = 0; i < row.size(); ++i)
        row[i] = c_.embedding_scale * static_cast<double>(table[static_cast<size_t>(id) * row.size() + i]);
      x.push_back(row);
    }
    for (int64_t layer = 0; layer < c_.layers; ++layer) block(x, layer);
    Vector out;
    for (const Vector& row : x) {
      Vector scores = product(c_.tied_head ? "model.embed_tokens" : "lm_head", norm(row, "model.norm"));
      for (double& s : scores) out.push_back(c_.logit_softcap > 0 ? c_.logit_softcap * std::tanh(s / c_.logit_softcap) : s);
    }
    return out;
  }

 private:
  Vector norm(const Vector& x, const std::string& name, size_t begin = 0, size_t width = 0) const {
    if (width == 0) width = x.size();
    double sum = 0;
    for (size_t i = 0; i < width; ++i) sum += x[begin + i] * x[begin + i];
    const double scale = 1 / std::sqrt(sum / static_cast<double>(width) + c_.norm_epsilon);
    Vector y(width);
    for (size_t i = 0; i < width; ++i)
      y[i] = x[begin + i] * scale * (static_cast<double>(t_.at(name + ".weight")[i]) + (c_.norm_plus_one ? 1 : 0));
    return y;
  }

  Vector product(const std::string& name, const Vector& x) const {
    const std::vector<float>& w = t_.at(name + ".weight");
    const auto bias = t_.find(name + ".bias");
    Vector y(w.size() / x.size());
    for (size_t r = 0; r < y.size(); ++r) {
      if (bias != t_.end()) y[r] = static_cast<double>(bias->second[r]);
      for (size_t i = 0; i < x.size(); ++i) y[r] += static_cast<double>(w[r * x.size() + i]) * x[i];
    }
    return y;
  }

  double frequency(const RopeConfig& rope, double pair) const {
    const double plain = std::pow(rope.base, -2 * pair / static_cast<double>(c_.head_dim));
    if (rope.scaling == RopeConfig::Scaling::none) return plain;
    if (rope.scaling == RopeConfig::Scaling::linear) return plain / rope.factor;
    const double turns = rope.original_context * plain / (2 * std::numbers::pi);
    if (turns > rope.high_freq_factor) return plain;
    if (turns < rope.low_freq_factor) return plain / rope.factor;
    const double smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    return (1 - smooth) * plain / rope.factor + smooth * plain;
  }

  /// One head at one position: normalized (if there is a norm) and rotated.
  Vector head(const Vector& all, int64_t index, const std::string& norm_name, const RopeConfig& rope, double position) const {
    const auto d = static_cast<size_t>(c_.head_dim), begin = static_cast<size_t>(index) * d;
    Vector h = c_.qk_norm ? norm(all, norm_name, begin, d)
                          : Vector(all.begin() + static_cast<std::ptrdiff_t>(begin),
                                   all.begin() + static_cast<std::ptrdiff_t>(begin + d));
    Vector rotated(d);
    for (size_t i = 0; i < d / 2; ++i) {
      const double angle = position * frequency(rope, static_cast<double>(i)), cosine = std::cos(angle), sine = std::sin(angle);
      rotated[i] = h[i] * cosine - h[i + d / 2] * sine;
      rotated[i + d / 2] = h[i + d / 2] * cosine + h[i] * sine;
    }
    return rotated;
  }

  Vector attend(const Vector& q, const std::vector<Vector>& keys, const std::vector<Vector>& values, int64_t kv_head,
                size_t position, int64_t window) const {
    const size_t first =
        window > 0 && position + 1 > static_cast<size_t>(window) ? position + 1 - static_cast<size_t>(window) : 0;
    Vector scores;
    double total = 0;
    for (size_t s = first; s <= position; ++s) {
      double dot = 0;
      for (size_t i = 0; i < q.size(); ++i) dot += q[i] * keys[s][i];
      dot *= c_.score_scale();
      if (c_.attention_softcap > 0) dot = c_.attention_softcap * std::tanh(dot / c_.attention_softcap);
      scores.push_back(std::exp(dot));
      total += scores.back();
    }
    Vector out(q.size(), 0.0);
    for (size_t s = first; s <= position; ++s)
      for (size_t i = 0; i < q.size(); ++i)
        out[i] += scores[s - first] / total * values[s][static_cast<size_t>(kv_head) * q.size() + i];
    return out;
  }

  void block(std::vector<Vector>& x, int64_t layer) const {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".", attention = prefix + "self_attn.",
                      mlp = prefix + "mlp.";
    const bool slides = c_.slides(layer);
    const RopeConfig& rope = slides ? c_.local_rope : c_.rope;
    std::vector<Vector> q, k, v, context(x.size());
    for (const Vector& row : x) {
      const Vector n = norm(row, prefix + "input_layernorm");
      q.push_back(product(attention + "q_proj", n));
      k.push_back(product(attention + "k_proj", n));
      v.push_back(product(attention + "v_proj", n));
    }
    for (int64_t h = 0; h < c_.heads; ++h) {
      const int64_t kv_head = h / (c_.heads / c_.kv_heads);
      std::vector<Vector> keys;
      for (size_t p = 0; p < x.size(); ++p)
        keys.push_back(head(k[p], kv_head, attention + "k_norm", rope, static_cast<double>(p)));
      for (size_t p = 0; p < x.size(); ++p) {
        const Vector rotated = head(q[p], h, attention + "q_norm", rope, static_cast<double>(p));
        const Vector mixed = attend(rotated, keys, v, kv_head, p, slides ? c_.sliding_window : 0);
        context[p].insert(context[p].end(), mixed.begin(), mixed.end());
      }
    }
    for (size_t p = 0; p < x.size(); ++p) {
      Vector out = product(attention + "o_proj", context[p]);
      if (c_.sandwich_norms) out = norm(out, prefix + "post_attention_layernorm");
      for (size_t i = 0; i < out.size(); ++i) x[p][i] += out[i];
      const Vector n = norm(x[p], prefix + (c_.sandwich_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm"));
      Vector gate = product(mlp + "gate_proj", n);
      const Vector up = product(mlp + "up_proj", n);
      for (size_t i = 0; i < gate.size(); ++i) gate[i] = activate(gate[i]) * up[i];
      Vector down = product(mlp + "down_proj", gate);
      if (c_.sandwich_norms) down = norm(down, prefix + "post_feedforward_layernorm");
      for (size_t i = 0; i < down.size(); ++i) x[p][i] += down[i];
    }
  }

  double activate(double g) const {
    if (c_.activation == Activation::silu) return g / (1 + std::exp(-g));
    return 0.5 * g * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (g + 0.044715 * g * g * g)));
  }

  const ModelConfig& c_;
  const Tensors& t_;
};

}  // namespace lighten::test
