// Block and decoder: how the layers are put together.
#include "lighten/nn/decoder.h"

#include "lighten/nn/product.h"

#include "lighten/base/error.h"

namespace lighten {

RotaryTables BlockImpl::rotary(int64_t tokens, torch::Dtype dtype) const {
  return rotary_tables(config.slides(layer) ? config.local_rope : config.rope, config.head_dim, tokens, dtype);
}

torch::Tensor BlockImpl::forward(const torch::Tensor& x) {
  auto attended = attention->forward(input_norm->forward(x), rotary(x.size(1), x.scalar_type()));
  if (attention_out_norm) attended = attention_out_norm->forward(attended);
  const auto middle = x + attended;
  auto fed = mlp->forward(post_attention_norm->forward(middle));
  if (mlp_out_norm) fed = mlp_out_norm->forward(fed);
  return middle + fed;
}

torch::Tensor DecoderImpl::embed(const torch::Tensor& ids) {
  if (ids.numel() > 0) {
    const auto [low, high] = torch::aminmax(ids);
    const int64_t bad = low.item<int64_t>() < 0 ? low.item<int64_t>() : high.item<int64_t>();
    if (bad < 0 || bad >= embedding.size(0)) {
      throw_error<ModelError>("token id {} is outside the model's vocabulary of {}: use the model's own tokenizer", bad,
                              embedding.size(0));
    }
  }
  const auto rows = torch::embedding(embedding, ids);
  return config.embedding_scale == 1 ? rows : rows * config.embedding_scale;
}

torch::Tensor DecoderImpl::hidden_states(const torch::Tensor& ids) {
  auto hidden = embed(ids);
  for (Block& block : blocks) hidden = block->forward(hidden);
  return hidden;
}

torch::Tensor DecoderImpl::head(const torch::Tensor& hidden) {
  const auto logits = product(final_norm->forward(hidden), head_weight);
  return config.logit_softcap > 0 ? torch::tanh(logits / config.logit_softcap) * config.logit_softcap : logits;
}

torch::Tensor DecoderImpl::forward(const torch::Tensor& ids) { return head(hidden_states(ids)); }

}  // namespace lighten
