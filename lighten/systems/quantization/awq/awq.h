// AWQ: a few input channels are rounded finer by scaling them up first; which ones, the activations tell.
#pragma once
#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "lighten/compress/calibration.h"
#include "lighten/compress/in_memory.h"
#include "lighten/compress/method.h"

namespace lighten {

/// Options of AWQ. Defaults are those of Lin et al. (MLSys 2024) as in the official code.
struct AwqOptions {
  bool scale = true;             ///< search channel scales and fold them
  int scale_steps = 20;          ///< exponents tried: 0, 1/n, ..., (n-1)/n
  bool duo_scaling = false;      ///< AutoAWQ's rule: also divide by w^(1-alpha), w the mean of |W| / group maximum per channel
  bool clip = true;              ///< search the clipping limit of every group before it is rounded to nearest
  int clip_steps = 20;           ///< limits tried: max|w| (1 - i/n)
  double clip_max_shrink = 0.5;  ///< ... for i < n times this
  int64_t clip_tokens = 512;     ///< tokens of calibration on which limits are compared
};

/// Declared once: flags, validation, --help, result.json and the README table come from here.
OptionList describe(AwqOptions& options);

/// Activation-aware weight quantization, the transform.
///
/// For each set of linears W [out, in] that share an input X [tokens, in], with a_j = mean_t |X_tj| over all calibration
/// tokens:
///   s(alpha) = a^alpha / sqrt(max a^alpha * min a^alpha),   W' = W diag(s),   X' = X diag(1/s)
/// and alpha in {0, 1/n, ..., (n-1)/n} minimises || f(X; W) - f(X; Q(W diag s) diag(1/s)) ||^2 on the float stream's sample
/// rows, f the inspected module (attention for q, k, v; the MLP for gate, up; the linear itself for o, down). 1/s is folded
/// into the op that feeds the set, so the float model does not change. o is skipped with grouped-query attention: a scale per
/// query head cannot be folded into v's fewer rows.
///
/// Reads the calibration once, in float. Throws CalibrationError without calibration text.
/// Source: arXiv 2306.00978, sections 3.2-4.1; mit-han-lab/llm-awq (read for the order of steps); AutoAWQ (duo scaling).
std::unique_ptr<Transform> make_awq(const AwqOptions& options = {});

/// AWQ's own rounding: every group of every linear except q and k is clamped to the limit that minimises the error of the
/// group's partial output, then rounded to nearest. (q and k are left out because their outputs meet in a product.) A rounding
/// that follows, as in "awq+gptq", takes this one's place: it aims at the unclamped weights.
std::unique_ptr<Rounding> make_awq_rounding(const AwqOptions& options = {});

/// AWQ on a whole model in memory: per block the transform, then clipping and rounding. Every linear of `model` then computes
/// with its rounded weights; the codes are returned by canonical tensor name. `rows` from read_calibration(); at least 512
/// tokens. From file to file, resumable: quantize() in compress/pipeline.h.
RoundedModel awq(Decoder& model, const CalibrationRows& rows, const GridOptions& grid = {.bits = 4, .group_size = 128},
                 const AwqOptions& options = {});

/// Both, for --method: "awq" is transform and rounding, "awq+gptq" the transform and GPTQ's rounding.
MethodEntry awq_method();

// The steps, for tests and for other methods' recipes.

/// Linears that share an input and whose scale can be folded; `inspected` is the module that tells what their rounding costs.
struct ScaleSet {
  std::vector<std::string> linears;
  std::string inspected;
};
/// The sets of a block in order of execution: {q, k, v}, {o} where v has o's width, {gate, up}, {down}.
std::vector<ScaleSet> scale_sets(const BlockView& view);

/// s(alpha) of mean |x| [in]; a^alpha is kept at 1e-4 or above.
torch::Tensor awq_scale(const torch::Tensor& mean_abs, double alpha);

struct ScaleChoice {
  double alpha = 0;
  torch::Tensor scale;         ///< [in]
  double loss = 0;             ///< mean squared error of the inspected module's output
  std::vector<double> losses;  ///< of every alpha tried; infinity where it was given up early (already above the best)
};
/// Tries every alpha. The block's weights are as before on return.
ScaleChoice search_scale(BlockView& view, const BlockCalibration& calibration, const ScaleSet& set, const GridOptions& grid,
                         const AwqOptions& options = {});

}  // namespace lighten
