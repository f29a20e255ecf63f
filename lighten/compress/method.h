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
  int bits = 4;                        ///< 2, 3, 4 or 8
  int64_t group_size = 0;              ///< resolved (never "auto"): 0 per channel, or a divisor of every width
  ZeroKind zero = ZeroKind::integer;
};

/// One linear of a block as methods see it.
struct LinearView {
  std::string name;         ///< "self_attn.q_proj"
  Linear module;            ///< float weights, changed in place by transforms and replaced by the dequantized weight after rounding
  std::string feeder;       ///< the op whose output it reads: "input_layernorm", "self_attn.v_proj", "mlp.up_proj"
  std::string inspected;    ///< the module whose output tells how much its rounding hurts: "self_attn", "mlp", or its own name
};

/// A block opened for work: its module and its seven linears in order of execution (q, k, v, o, gate, up, down).
struct BlockView {
  int64_t layer = 0;
  Block block{nullptr};
  std::vector<LinearView> linears;
  LinearView& linear(const std::string& name);
};
BlockView view_block(Block block, int64_t layer);

/// The calibration streams at one block, in chunks of rows; see calibration.h.
class BlockCalibration;

/// Changes a block's float weights (and the ops that feed them) without changing what the float block computes. Stateless between blocks.
class Transform {
 public:
  virtual ~Transform() = default;
  virtual void apply(BlockView& view, BlockCalibration& calibration, const GridOptions& grid) = 0;
};

/// Turns the linears of a block into codes. Must leave each linear's module.weight equal to dequantize(result).
class Rounding {
 public:
  virtual ~Rounding() = default;
  virtual std::map<std::string, QuantTensor> round(BlockView& view, BlockCalibration& calibration, const GridOptions& grid) = 0;
  virtual bool needs_calibration() const = 0;
};

/// What the catalogue hands over for one name of "--method a+b". `describe` binds the method's own options so that flags can be made of them.
struct MethodEntry {
  std::string name;                                     ///< "awq"
  std::string summary;                                  ///< one line
  bool is_transform = false, is_rounding = false;
  std::shared_ptr<void> options;                        ///< owns the aggregate
  OptionList described;                                 ///< bound to *options
  std::function<std::unique_ptr<Transform>()> transform;///< reads *options when called
  std::function<std::unique_ptr<Rounding>()> rounding;
};

}  // namespace lighten
