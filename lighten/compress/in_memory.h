// A method on a model in memory: for recipes, experiments and callers that keep the modules.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lighten/compress/calibration.h"
#include "lighten/compress/method.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/nn/decoder.h"

namespace lighten {

/// What rounding gave, by canonical tensor name ("model.layers.0.mlp.down_proj.weight").
struct RoundedModel {
  std::map<std::string, QuantTensor> tensors;
  std::vector<double>
      block_errors;  ///< mean over a block's linears of ||(W - Q) X||^2 / ||W X||^2 on the float stream's sample
};

struct InMemoryOptions {
  int64_t blocks = 0;                          ///< only the first so many; 0: all
  std::function<void(int64_t done)> on_block;  ///< after each block
};

/// Walks the blocks of `model`: transform (may be null), then rounding. Every linear's module.weight becomes
/// dequantize(codes); embedding, head and norms stay float (a transform may have folded into the norms). `rows` may be empty
/// for methods that need no text. Memory: one block's calibration beside the model. quantize() in pipeline.h is the same walk
/// from file to file.
RoundedModel round_in_memory(Decoder& model, const CalibrationRows& rows, Transform* transform, Rounding& rounding,
                             const GridOptions& grid, const InMemoryOptions& options = {});

/// Writes the rounded model as a light model folder that the runtime maps: linears from `rounded`, embedding, head and norms
/// from `model` (the former two as binary16). `method`: what was done, kept in config.json. Throws FileError; nothing is left
/// at `folder` if it fails, and an existing folder is refused.
void save_light(Decoder& model, const RoundedModel& rounded, const Tokenizer& tokenizer, const std::string& chat_template,
                const Json& method, const fs::path& folder);

}  // namespace lighten
