#include "lighten/compress/fold.h"

#include <algorithm>

#include "lighten/base/error.h"

namespace lighten {

bool can_fold(const BlockView& view, const std::string& linear) {
  const LinearView& target = view.linear(linear);
  if (view.norm(target.feeder)) return true;
  return view.linear(target.feeder).module->weight.size(0) == target.module->weight.size(1);
}

void fold_input_scale(BlockView& view, BlockCalibration& calibration, const std::vector<std::string>& names,
                      const torch::Tensor& scale) {
  torch::NoGradGuard no_grad;
  if (names.empty()) throw_error<ModelError>("fold_input_scale: no linear was named");
  const LinearView& first = view.linear(names.front());
  const int64_t inputs = first.module->weight.size(1);
  const auto where = [&] { return fmt::format("block {}, {}", view.layer, first.name); };
  for (const LinearView& linear : view.linears) {
    const bool named = std::find(names.begin(), names.end(), linear.name) != names.end();
    if (named != (linear.feeder == first.feeder))
      throw_error<ModelError>("{}: a scale must be folded into all linears that read {} and no other; {} does not fit", where(),
                              first.feeder, linear.name);
  }
  if (!can_fold(view, first.name))
    throw_error<ModelError>("{}: {} has {} outputs for {} inputs (grouped-query attention): the scale cannot be folded there",
                            where(), first.feeder, view.linear(first.feeder).module->weight.size(0), inputs);
  if (scale.numel() != inputs) throw_error<ModelError>("{}: {} scales for {} inputs", where(), scale.numel(), inputs);
  const torch::Tensor s = scale.to(torch::kFloat).reshape({inputs});
  if (!torch::isfinite(s).all().item<bool>() || s.min().item<float>() <= 0)
    throw_error<ModelError>("{}: a scale is zero, negative or not finite", where());

  for (const std::string& name : names) view.linear(name).module->weight.mul_(s);
  if (RmsNorm norm = view.norm(first.feeder)) {
    norm->weight.div_(s);
  } else {
    Linear feeder = view.linear(first.feeder).module;
    feeder->weight.div_(s.unsqueeze(1));
    if (feeder->bias.defined()) feeder->bias.div_(s);
    calibration.outputs_were_divided(first.feeder, s);
  }
  calibration.inputs_were_divided(site_of(first.name), s);
}

}  // namespace lighten
