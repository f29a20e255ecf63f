// A request with everything decided: what plan_quantize() prints and quantize() does.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lighten/compress/pipeline.h"
#include "lighten/compress/trim.h"
#include "lighten/formats/weights.h"

namespace lighten::compress {

struct Decided {
  std::unique_ptr<WeightSource> source;  ///< trimmed already if the request asks for it
  std::optional<TrimRecord> trim;
  GridOptions grid;  ///< of the block linears
  GridOptions head;  ///< of embedding and head; used if `low_bit_head`
  bool low_bit_head = false;
  std::vector<HeadBand> bands;           ///< of embedding and head, all rows; empty: `head` for all of them
  std::unique_ptr<Transform> transform;  ///< may be null
  std::unique_ptr<Rounding> rounding;
  StreamNeeds needs;
  bool calibrated = false;  ///< there is calibration text
  int threads = 1;
};

/// Opens the model and checks every option and every shape. Throws OptionError (group sizes: names the tensor and what would
/// do), ModelError, CalibrationError.
Decided decide(const QuantizeRequest& request);

/// Sizes in bytes that the run will need.
struct Footprint {
  uint64_t before = 0, after = 0;    ///< all files of the model; tensors of the light model
  uint64_t memory = 0;               ///< peak, estimated
  uint64_t disk = 0, disk_free = 0;  ///< while it runs: pieces, joined file, checkpoint, spilled activations
  uint64_t streams = 0;              ///< activations carried from block to block
  uint64_t rows_saved = 0;           ///< what the light model would hold for the tokens that were trimmed
  double operations = 0;             ///< floating-point operations
};
Footprint footprint(const QuantizeRequest& request, const Decided& decided);

/// The request as JSON: what must be equal for resumed work to be the same work.
Json fingerprint(const QuantizeRequest& request, const Decided& decided);
/// What was done, for config.json of the light model.
Json method_record(const QuantizeRequest& request, const Decided& decided);

}  // namespace lighten::compress
