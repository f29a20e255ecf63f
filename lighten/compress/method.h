// What a method on weights is: a transform, a rounding, or both, applied block by block.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lighten/base/options.h"
#include "lighten/formats/quant_tensor.h"
#include "lighten/nn/decoder.h"

namespace lighten {

/// What every scalar method is told: how many bits and how they are shared.
struct GridOptions {
  int bits = 4;            ///< 2, 3, 4 or 8
  int64_t group_size = 0;  ///< resolved (never "auto"): 0 per channel, or a divisor of every width
  ZeroKind zero = ZeroKind::integer;
};

/// One linear of a block as methods see it.
struct LinearView {
  std::string name;  ///< "self_attn.q_proj"
  Linear module{
      nullptr};        ///< float weights, changed in place by transforms and replaced by the dequantized weight after rounding
  std::string feeder;  ///< the op whose output it reads: "input_layernorm", "self_attn.v_proj", "post_attention_layernorm",
                       ///< "mlp.up_proj"
  std::string inspected;  ///< the module whose output tells how much its rounding hurts: "self_attn", "mlp", or its own name
};

/// A block opened for work: its module and its seven linears in order of execution (q, k, v, o, gate, up, down).
struct BlockView {
  int64_t layer = 0;
  Block block{nullptr};
  std::vector<LinearView> linears;
  /// Throws ModelError for an unknown name.
  LinearView& linear(const std::string& name);
  const LinearView& linear(const std::string& name) const;
  /// The norm that `feeder` names ("input_layernorm" or "post_attention_layernorm"), or an empty holder when the feeder is a
  /// linear.
  RmsNorm norm(const std::string& feeder) const;
};
/// For every architecture the norm before the MLP is called "post_attention_layernorm" here (Gemma 3's file calls it
/// pre_feedforward_layernorm).
BlockView view_block(Block block, int64_t layer);

/// The calibration streams at one block; see calibration.h.
class BlockCalibration;

/// Which activations a method reads. The sample rows of the float stream (see BlockCalibration) are there whenever there is
/// calibration text.
struct StreamNeeds {
  bool float_statistics = false;  ///< mean |x|, max |x| over all rows of the float stream
  bool float_inputs = false;      ///< every linear's inputs on all rows of the float stream (kept, spilled past a limit)
  bool quantized_stream = false;  ///< inputs as the model gives them whose earlier linears are rounded already
};

/// Changes a block's float weights (and the ops that feed them) without changing what the float block computes. Stateless
/// between blocks. A transform that folds scales does it with fold_input_scale() (fold.h), which keeps the calibration in step.
class Transform {
 public:
  virtual ~Transform() = default;
  virtual void apply(BlockView& view, BlockCalibration& calibration, const GridOptions& grid) = 0;
  virtual StreamNeeds needs() const { return {.float_statistics = true}; }
};

/// Turns the linears of a block into codes. Must leave each linear's module.weight equal to dequantize(result).
class Rounding {
 public:
  virtual ~Rounding() = default;
  virtual std::map<std::string, QuantTensor> round(BlockView& view, BlockCalibration& calibration, const GridOptions& grid) = 0;
  virtual bool needs_calibration() const = 0;
  virtual StreamNeeds needs() const { return {.quantized_stream = needs_calibration()}; }
};

/// What the catalogue hands over for one name of "--method a+b". `describe` binds the method's own options so that flags can be
/// made of them.
struct MethodEntry {
  std::string name;     ///< "awq"
  std::string summary;  ///< one line
  bool is_transform = false, is_rounding = false;
  std::shared_ptr<void> options;                          ///< owns the aggregate
  OptionList described;                                   ///< bound to *options
  std::function<std::unique_ptr<Transform>()> transform;  ///< reads *options when called
  std::function<std::unique_ptr<Rounding>()> rounding;
};

/// A linear's weight replaced by what the codes say, in place (same storage).
void install(Linear& module, const QuantTensor& tensor);

}  // namespace lighten
