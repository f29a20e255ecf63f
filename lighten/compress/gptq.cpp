#include "lighten/compress/gptq.h"

#include "lighten/compress/calibration.h"
#include "lighten/nn/product.h"

namespace lighten {
namespace {

RangeSearch range_search(const GptqOptions& options) { return {.steps = options.mse ? 100 : 0}; }

/// X_float^T X_quantized (2 / n), float64.
torch::Tensor cross_moment(BlockCalibration& calibration, const std::string& linear, int64_t inputs) {
  torch::Tensor sum = torch::zeros({inputs, inputs}, torch::kDouble);
  int64_t count = 0;
  calibration.for_each_pair(linear, [&](const torch::Tensor& floating, const torch::Tensor& quantized) {
    const torch::Tensor rows = quantized.reshape({-1, inputs});
    sum += product((floating.reshape({-1, inputs}) - rows).t(), rows.t());
    count += rows.size(0);
  });
  return sum * (2.0 / static_cast<double>(std::max<int64_t>(count, 1)));
}

/// (C - H)(H + damping)^-1: W' = W + W of it is the weight whose output on the quantized stream is nearest to the float output.
torch::Tensor target_correction(const torch::Tensor& cross_minus_h, const torch::Tensor& hessian, double damping) {
  torch::Tensor damped = hessian.clone();
  damped.diagonal().add_(damping * hessian.diagonal().mean());
  return torch::linalg_solve(damped, cross_minus_h.t()).t().to(torch::kFloat);
}

/// 1 / U_jj^2 in W's column order: what an error of column j costs once the later columns have made up for it.
torch::Tensor column_importance(const HessianFactor& factor) {
  torch::Tensor importance = torch::empty({factor.upper.size(0)});
  importance.index_copy_(0, torch::tensor(factor.order), factor.upper.diagonal().square().reciprocal());
  return importance;
}

class Gptq : public Rounding {
 public:
  explicit Gptq(const GptqOptions& options) : options_(options) {}
  bool needs_calibration() const override { return true; }
  StreamNeeds needs() const override { return {.float_inputs = options_.asymmetric, .quantized_stream = true}; }

  std::map<std::string, QuantTensor> round(BlockView& view, BlockCalibration& calibration, const GridOptions& grid) override {
    torch::NoGradGuard no_grad;
    std::map<std::string, QuantTensor> result;
    for (const Site site : kSites) {
      torch::Tensor hessian, correction;
      for (LinearView& linear : view.linears) {
        if (site_of(linear.name) != site) continue;
        if (!hessian.defined()) {
          hessian = calibration.hessian(linear.name, Stream::quantized);
          if (options_.asymmetric)
            correction = target_correction(cross_moment(calibration, linear.name, hessian.size(0)), hessian,
                                           options_.asymmetric_damping);
          factor_ = factor_hessian(hessian, {options_.damping, options_.act_order});
        }
        torch::Tensor target = linear.module->weight.detach();
        if (correction.defined()) target = target + product(target, correction.t());
        QuantTensor tensor = gptq_round(target, hessian, factor_, grid, options_);
        install(linear.module, tensor);
        result.emplace(linear.name, std::move(tensor));
      }
    }
    return result;
  }

 private:
  GptqOptions options_;
  HessianFactor factor_;
};

}  // namespace

OptionList describe(GptqOptions& o) {
  return {
      option("damping", o.damping, range(0, 1), "times mean(diag H), added to the diagonal of the Hessian", "section 4 (1 %)"),
      Option("act-order", o.act_order, "round the columns with the largest diag H first (groups keep their place)",
             "official code, off"),
      Option("static-groups", o.static_groups, "find all grids before the sweep", "official code, off"),
      option("block", o.block, range(1, 4096), "columns of a lazy block", "section 3.3 (128)"),
      Option("mse", o.mse, "search each group's range for the least error", "official code, off"),
      Option("asymmetric", o.asymmetric, "aim at the float model's outputs from the rounded model's inputs",
             "GPTAQ, arXiv 2504.02692; --no-asymmetric is the paper of 2022"),
      option("asymmetric-damping", o.asymmetric_damping, range(1e-6, 10), "times mean(diag H), in that correction",
             "not in the paper"),
      option("passes", o.passes, range(0, 100), "coordinate-descent passes after the sweep", "not in the paper, off"),
      Option("refit-scales", o.refit_scales, "in those passes move every group's scale to its optimum first",
             "not in the paper"),
  };
}

QuantTensor gptq_round(const torch::Tensor& weight, const torch::Tensor& hessian, const HessianFactor& factor,
                       const GridOptions& grid, const GptqOptions& options) {
  torch::NoGradGuard no_grad;
  torch::Tensor work = weight.detach().to(torch::kFloat).clone();
  GroupColumnQuantizer quantizer(work, grid, GroupAxis::input, options.static_groups || options.act_order,
                                 range_search(options), options.mse ? column_importance(factor) : torch::Tensor());
  obs_sweep(work, factor, quantizer, options.block);
  QuantTensor tensor = quantizer.take();
  if (options.passes > 0) {
    torch::Tensor damped = hessian.clone();
    damped.diagonal().add_(factor.damping * hessian.diagonal().mean());
    refine_codes(tensor, weight, damped, options.passes, options.refit_scales);
  }
  return tensor;
}

QuantTensor gptq_round(const torch::Tensor& weight, const torch::Tensor& hessian, const GridOptions& grid,
                       const GptqOptions& options) {
  return gptq_round(weight, hessian, factor_hessian(hessian, {options.damping, options.act_order}), grid, options);
}

std::unique_ptr<Rounding> make_gptq(const GptqOptions& options) { return std::make_unique<Gptq>(options); }

MethodEntry gptq_method() {
  auto options = std::make_shared<GptqOptions>();
  MethodEntry entry;
  entry.name = "gptq";
  entry.summary = "round column by column, letting the later columns make up for the error (Hessian of calibration inputs)";
  entry.is_rounding = true;
  entry.described = describe(*options);
  entry.options = options;
  entry.rounding = [options] { return make_gptq(*options); };
  return entry;
}

}  // namespace lighten
