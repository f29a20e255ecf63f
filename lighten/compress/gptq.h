// GPTQ: rounds column by column and lets the columns that are left make up for the error.
#pragma once
#include "lighten/compress/hessian.h"
#include "lighten/compress/method.h"
#include "lighten/compress/obs.h"

namespace lighten {

/// Options of GPTQ. Defaults are those of Frantar et al. (ICLR 2023), but for `asymmetric`, which is on so that the baseline is
/// a strong one: on SmolLM2-135M at 3 bits it takes perplexity from 43 to 26 (README of awq: "gptq" beside "gptq-2022").
struct GptqOptions {
  double damping = 0.01;
  bool act_order = false;      ///< columns with the largest diag H first; groups keep their place (static)
  bool static_groups = false;  ///< all grids are found before the sweep
  int block = 128;
  bool mse = false;        ///< range search when a group's grid is found, errors weighted by 1 / U_jj^2
  bool asymmetric = true;  ///< the target is the float model's output: W is replaced by W + W (C - H)(H + damping)^-1, C =
                           ///< X_float^T X_quantized (the aim of GPTAQ, Li et al. 2025, solved in one step)
  double asymmetric_damping = 0.05;  ///< times mean(diag H), of that correction only
  int passes = 0;                    ///< coordinate-descent passes after the sweep
  bool refit_scales = true;          ///< in those passes every group's scale moves to its optimum first
};
OptionList describe(GptqOptions& options);

/// Minimises ||W X - Q X||^2 linear by linear with X from the quantized stream, true-sequential (q, k, v; o; gate, up; down).
/// Memory: one H [in, in] in float64 and its factor. Source: arXiv 2210.17323; AutoGPTQ (read for damping and dead channels).
std::unique_ptr<Rounding> make_gptq(const GptqOptions& options = {});
MethodEntry gptq_method();

/// One weight on one Hessian (float64): what a block's linears, the head, and other systems call. W is not changed.
QuantTensor gptq_round(const torch::Tensor& weight, const torch::Tensor& hessian, const GridOptions& grid,
                       const GptqOptions& options = {});
/// The same with a factor that is shared by several weights.
QuantTensor gptq_round(const torch::Tensor& weight, const torch::Tensor& hessian, const HessianFactor& factor,
                       const GridOptions& grid, const GptqOptions& options);

}  // namespace lighten
