#include "lighten/systems/quantization/awq/awq.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/compress/clip.h"
#include "lighten/compress/fold.h"
#include "lighten/compress/quantizer.h"
#include "lighten/nn/product.h"

namespace lighten {
namespace {

constexpr double kSmallestScale = 1e-4;
constexpr int64_t kSearchRows = 2;  // sample rows that pass through a module together

torch::Tensor normalized(const torch::Tensor& scale) { return scale / (scale.max() * scale.min()).sqrt(); }

/// How much each input channel's weights fill their groups: mean over rows of |w| / max of its group. [in]
torch::Tensor channel_fill(const BlockView& view, const ScaleSet& set, const GridOptions& grid) {
  std::vector<torch::Tensor> fills;
  for (const std::string& name : set.linears) {
    const torch::Tensor w = view.linear(name).module->weight.detach().abs();
    const int64_t size = grid.group_size == 0 ? w.size(1) : grid.group_size;
    const torch::Tensor groups = w.reshape({w.size(0), -1, size});
    fills.push_back((groups / groups.amax(-1, /*keepdim=*/true).clamp_min(1e-6)).reshape_as(w));
  }
  return torch::cat(fills).mean(0);
}

/// s^-1 applied to the rounded W diag(s): what the linear would compute with if this scale were folded.
torch::Tensor rounded_under_scale(const torch::Tensor& weight, const torch::Tensor& scale, const GridOptions& grid) {
  return fake_quantize(weight * scale, grid) / scale;
}

/// tr(D G D^T) for D = W - rounded, G = X^T X: the squared error of a single linear's output.
double trace_loss(const torch::Tensor& weight, const torch::Tensor& gram, const torch::Tensor& scale, const GridOptions& grid) {
  const torch::Tensor delta = rounded_under_scale(weight, scale, grid) - weight;
  return (product(delta, gram) * delta).sum(torch::kDouble).item<double>();
}

/// The float weights of a set, put back when the search leaves.
class WeightsKept {
 public:
  WeightsKept(BlockView& view, const std::vector<std::string>& names) {
    for (const std::string& name : names) modules_.push_back(view.linear(name).module);
    for (const Linear& module : modules_) weights_.push_back(module->weight);
  }
  ~WeightsKept() {
    for (size_t i = 0; i < modules_.size(); ++i) modules_[i]->weight = weights_[i];
  }
  WeightsKept(const WeightsKept&) = delete;
  WeightsKept& operator=(const WeightsKept&) = delete;
  void round_under(const torch::Tensor& scale, const GridOptions& grid) {
    for (size_t i = 0; i < modules_.size(); ++i) modules_[i]->weight = rounded_under_scale(weights_[i], scale, grid);
  }

 private:
  std::vector<Linear> modules_;
  std::vector<torch::Tensor> weights_;
};

/// Squared error of the module with its present weights, summed row by row and given up above `limit`.
double module_loss(const BlockCalibration& calibration, const std::string& module, const torch::Tensor& inputs,
                   const torch::Tensor& outputs, double limit) {
  double loss = 0;
  for (int64_t row = 0; row < inputs.size(0); row += kSearchRows) {
    const int64_t count = std::min(kSearchRows, inputs.size(0) - row);
    const torch::Tensor error = calibration.run_module(module, inputs.narrow(0, row, count)) - outputs.narrow(0, row, count);
    loss += error.square().sum(torch::kDouble).item<double>();
    if (loss > limit) return std::numeric_limits<double>::infinity();
  }
  return loss;
}

void require_whole_groups(const BlockView& view, const GridOptions& grid) {
  for (const LinearView& linear : view.linears) {
    const int64_t inputs = linear.module->weight.size(1);
    if (grid.group_size == 0 || inputs % grid.group_size == 0) continue;
    std::string fitting;
    for (const int64_t size : {32, 64, 128})
      if (inputs % size == 0) fitting += fmt::format("{}, ", size);
    throw_error<OptionError>("block {}: group size {} does not divide the {} inputs of {}; {}0 (per channel) would do",
                             view.layer, grid.group_size, inputs, linear.name, fitting);
  }
}

class AwqTransform : public Transform {
 public:
  explicit AwqTransform(const AwqOptions& options) : options_(options) {}
  StreamNeeds needs() const override { return {.float_statistics = options_.scale}; }
  void apply(BlockView& view, BlockCalibration& calibration, const GridOptions& grid) override {
    if (!options_.scale) return;
    require_whole_groups(view, grid);
    for (const ScaleSet& set : scale_sets(view))
      fold_input_scale(view, calibration, set.linears, search_scale(view, calibration, set, grid, options_).scale);
  }

 private:
  AwqOptions options_;
};

class AwqRounding : public Rounding {
 public:
  explicit AwqRounding(const AwqOptions& options) : options_(options) {}
  bool needs_calibration() const override { return options_.clip; }
  StreamNeeds needs() const override { return {}; }
  std::map<std::string, QuantTensor> round(BlockView& view, BlockCalibration& calibration, const GridOptions& grid) override {
    torch::NoGradGuard no_grad;
    require_whole_groups(view, grid);
    std::map<std::string, QuantTensor> result;
    for (LinearView& linear : view.linears) {
      check_interrupt();
      if (options_.clip && !meets_in_a_product(linear)) clip(linear, calibration, grid);
      QuantTensor tensor = quantize_groups(linear.module->weight, grid);
      install(linear.module, tensor);
      result.emplace(linear.name, std::move(tensor));
    }
    return result;
  }

 private:
  static bool meets_in_a_product(const LinearView& linear) {
    return linear.name == "self_attn.q_proj" || linear.name == "self_attn.k_proj";
  }
  void clip(LinearView& linear, const BlockCalibration& calibration, const GridOptions& grid) const {
    torch::Tensor inputs = calibration.sample_inputs(linear.name).flatten(0, -2);
    const int64_t stride = std::max<int64_t>(1, inputs.size(0) / options_.clip_tokens);
    inputs = inputs.slice(0, 0, inputs.size(0), stride);
    const ClipOptions search{.steps = options_.clip_steps, .max_shrink = options_.clip_max_shrink};
    apply_clip(linear.module->weight, search_clip(linear.module->weight, inputs, grid, search), grid);
  }

  AwqOptions options_;
};

}  // namespace

OptionList describe(AwqOptions& o) {
  return {
      Option("scale", o.scale, "search a scale for every input channel and fold it into what feeds the linear", "section 3.2"),
      option("scale-steps", o.scale_steps, range(1, 100), "exponents tried between 0 and 1", "official auto_scale.py (20)"),
      Option("duo-scaling", o.duo_scaling, "let the weights' own sizes take part in the scale",
             "official code, off (AutoAWQ: on)"),
      Option("clip", o.clip, "search the clipping limit of every group before it is rounded to nearest",
             "official auto_clip.py"),
      option("clip-steps", o.clip_steps, range(1, 100), "limits tried: max|w| (1 - i/steps)", "official auto_clip.py (20)"),
      option("clip-max-shrink", o.clip_max_shrink, range(0, 0.95), "the largest share that is clipped off",
             "official auto_clip.py (0.5)"),
      option("clip-tokens", o.clip_tokens, range(1, 1e9), "calibration tokens on which limits are compared",
             "official auto_clip.py (512)"),
  };
}

std::vector<ScaleSet> scale_sets(const BlockView& view) {
  std::vector<ScaleSet> sets;
  std::string feeder;
  for (const LinearView& linear : view.linears) {
    if (!can_fold(view, linear.name)) continue;
    if (sets.empty() || linear.feeder != feeder) sets.push_back({.linears = {}, .inspected = linear.inspected});
    sets.back().linears.push_back(linear.name);
    feeder = linear.feeder;
  }
  return sets;
}

torch::Tensor awq_scale(const torch::Tensor& mean_abs, double alpha) {
  return normalized(mean_abs.pow(alpha).clamp_min(kSmallestScale));
}

ScaleChoice search_scale(BlockView& view, const BlockCalibration& calibration, const ScaleSet& set, const GridOptions& grid,
                         const AwqOptions& options) {
  torch::NoGradGuard no_grad;
  const std::string& first = set.linears.front();
  const torch::Tensor mean_abs = calibration.mean_abs(first);
  const torch::Tensor fill = options.duo_scaling ? channel_fill(view, set, grid) : torch::Tensor();
  const bool single = set.linears.size() == 1 && set.inspected == first;
  const torch::Tensor inputs = calibration.module_inputs(set.inspected), outputs = calibration.module_outputs(set.inspected);
  torch::Tensor gram;
  if (single) gram = product(inputs.flatten(0, -2).t(), inputs.flatten(0, -2).t());

  ScaleChoice best;
  best.loss = std::numeric_limits<double>::infinity();
  best.losses.resize(static_cast<size_t>(options.scale_steps));
  WeightsKept weights(view, set.linears);
  const torch::Tensor weight = view.linear(first).module->weight;
  for (int step = 0; step < options.scale_steps; ++step) {
    check_interrupt();
    const double alpha = static_cast<double>(step) / options.scale_steps;
    torch::Tensor scale = awq_scale(mean_abs, alpha);
    if (fill.defined()) {
      const torch::Tensor duo = mean_abs.pow(alpha) / (fill.pow(1 - alpha) + kSmallestScale);
      scale = normalized(duo.clamp_min(kSmallestScale));
    }
    double loss;
    if (single) {
      loss = trace_loss(weight, gram, scale, grid);
    } else {
      weights.round_under(scale, grid);
      loss = module_loss(calibration, set.inspected, inputs, outputs, best.loss);
    }
    best.losses[static_cast<size_t>(step)] = loss;
    if (loss < best.loss) {
      best.alpha = alpha;
      best.scale = scale;
      best.loss = loss;
    }
  }
  if (!best.scale.defined())
    throw_error<ModelError>("block {}, {}: no scale gives a finite error; check the model's weights", view.layer, first);
  const auto elements = static_cast<double>(outputs.numel());
  best.loss /= elements;
  for (double& loss : best.losses) loss /= elements;
  return best;
}

std::unique_ptr<Transform> make_awq(const AwqOptions& options) { return std::make_unique<AwqTransform>(options); }
std::unique_ptr<Rounding> make_awq_rounding(const AwqOptions& options) { return std::make_unique<AwqRounding>(options); }

RoundedModel awq(Decoder& model, const CalibrationRows& rows, const GridOptions& grid, const AwqOptions& options) {
  if (static_cast<int64_t>(rows.rows.size()) * rows.row < 512)
    throw_error<CalibrationError>("awq: {} tokens of calibration are too few; give at least 512",
                                  static_cast<int64_t>(rows.rows.size()) * rows.row);
  AwqOptions checked = options;
  validate(describe(checked));
  AwqTransform transform(options);
  AwqRounding rounding(options);
  return round_in_memory(model, rows, &transform, rounding, grid);
}

MethodEntry awq_method() {
  auto options = std::make_shared<AwqOptions>();
  MethodEntry entry;
  entry.name = "awq";
  entry.summary = "scale up the input channels that activations call important, then clip and round to nearest";
  entry.is_transform = true;
  entry.is_rounding = true;
  entry.described = describe(*options);
  entry.options = options;
  entry.transform = [options] { return make_awq(*options); };
  entry.rounding = [options] { return make_awq_rounding(*options); };
  return entry;
}

}  // namespace lighten
