#include "lighten/base/error.h"
#include "lighten/compress/method.h"

namespace lighten {
namespace {

template <typename View>
auto& find_linear(View& view, const std::string& name) {
  for (auto& linear : view.linears)
    if (linear.name == name) return linear;
  std::vector<std::string> names;
  for (const LinearView& linear : view.linears) names.push_back(linear.name);
  throw ModelError(unknown_name_message("linear", name, names));
}

}  // namespace

LinearView& BlockView::linear(const std::string& name) { return find_linear(*this, name); }
const LinearView& BlockView::linear(const std::string& name) const { return find_linear(*this, name); }

RmsNorm BlockView::norm(const std::string& feeder) const {
  if (feeder == "input_layernorm") return block->input_norm;
  if (feeder == "post_attention_layernorm") return block->post_attention_norm;
  return RmsNorm{nullptr};
}

BlockView view_block(Block block, int64_t layer) {
  const Attention attention = block->attention;
  const Mlp mlp = block->mlp;
  return {.layer = layer,
          .block = block,
          .linears = {{"self_attn.q_proj", attention->q_proj, "input_layernorm", "self_attn"},
                      {"self_attn.k_proj", attention->k_proj, "input_layernorm", "self_attn"},
                      {"self_attn.v_proj", attention->v_proj, "input_layernorm", "self_attn"},
                      {"self_attn.o_proj", attention->o_proj, "self_attn.v_proj", "self_attn.o_proj"},
                      {"mlp.gate_proj", mlp->gate_proj, "post_attention_layernorm", "mlp"},
                      {"mlp.up_proj", mlp->up_proj, "post_attention_layernorm", "mlp"},
                      {"mlp.down_proj", mlp->down_proj, "mlp.up_proj", "mlp.down_proj"}}};
}

}  // namespace lighten
