// Grouped-query attention with rope, q/k norms, sliding windows and soft caps.
#include <limits>

#include "lighten/nn/decoder.h"

namespace lighten {

namespace {

/// [batch, tokens, heads * dim] -> [batch, heads, tokens, dim]
torch::Tensor split_heads(const torch::Tensor& x, int64_t heads, int64_t dim) {
  return x.view({x.size(0), x.size(1), heads, dim}).transpose(1, 2);
}

/// [batch, kv_heads, tokens, dim] -> [batch, kv_heads * group, tokens, dim]: each head serves `group` neighbouring query heads.
torch::Tensor repeat_heads(const torch::Tensor& x, int64_t group) {
  if (group == 1) return x;
  return x.unsqueeze(2).expand({x.size(0), x.size(1), group, x.size(2), x.size(3)}).flatten(1, 2);
}

/// True where query t (row) must not see key s (column): s > t, or s <= t - window.
torch::Tensor hidden_keys(int64_t tokens, int64_t window, const torch::Device& device) {
  const auto positions = torch::arange(tokens, torch::TensorOptions(torch::kInt64).device(device));
  const auto ahead = positions.unsqueeze(0) - positions.unsqueeze(1);
  auto hidden = ahead > 0;
  if (window > 0) hidden = hidden | (ahead <= -window);
  return hidden;
}

}  // namespace

AttentionImpl::AttentionImpl(const ModelConfig& config, int64_t layer, Linear q, Linear k, Linear v, Linear o, RmsNorm q_norm,
                             RmsNorm k_norm)
    : q_proj(std::move(q)),
      k_proj(std::move(k)),
      v_proj(std::move(v)),
      o_proj(std::move(o)),
      q_norm(std::move(q_norm)),
      k_norm(std::move(k_norm)),
      config(config),
      layer(layer) {}

torch::Tensor AttentionImpl::context(const torch::Tensor& x, const RotaryTables& rotary) {
  const int64_t tokens = x.size(1);
  auto q = split_heads(q_proj->forward(x), config.heads, config.head_dim);
  auto k = split_heads(k_proj->forward(x), config.kv_heads, config.head_dim);
  auto v = split_heads(v_proj->forward(x), config.kv_heads, config.head_dim);
  if (q_norm) q = q_norm->forward(q);
  if (k_norm) k = k_norm->forward(k);
  const int64_t group = config.heads / config.kv_heads;
  q = rotate(q, rotary);
  k = repeat_heads(rotate(k, rotary), group);
  v = repeat_heads(v, group);

  const int64_t window = config.slides(layer) && config.sliding_window < tokens ? config.sliding_window : 0;
  torch::Tensor mixed;
  if (window == 0 && config.attention_softcap == 0) {
    mixed = torch::scaled_dot_product_attention(q, k, v, /*attn_mask=*/{}, /*dropout_p=*/0.0, /*is_causal=*/true,
                                                config.score_scale());
  } else {
    auto scores = torch::matmul(q, k.transpose(-1, -2)) * config.score_scale();
    if (config.attention_softcap > 0) scores = torch::tanh(scores / config.attention_softcap) * config.attention_softcap;
    scores = scores.masked_fill(hidden_keys(tokens, window, x.device()), -std::numeric_limits<double>::infinity());
    mixed = torch::matmul(torch::softmax(scores, -1), v);
  }
  return mixed.transpose(1, 2).reshape({x.size(0), tokens, config.heads * config.head_dim});
}

torch::Tensor AttentionImpl::forward(const torch::Tensor& x, const RotaryTables& rotary) {
  return o_proj->forward(context(x, rotary));
}

}  // namespace lighten
