// Calibration: rows of tokens drawn from text, and what every linear of a block sees when they run through the model.
#pragma once
#include <torch/torch.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/compress/activation_store.h"
#include "lighten/compress/method.h"
#include "lighten/formats/tokenizer.h"

namespace lighten {

struct CalibrationOptions {
  int64_t tokens = 32768;  ///< wanted in all: tokens / row rows are drawn
  int64_t row = 512;       ///< tokens of a row, BOS included
  uint64_t seed = 0;
};

/// Rows drawn from text. A row is `row` token ids; models whose tokenizer adds BOS get BOS + row-1 tokens of text.
struct CalibrationRows {
  std::vector<std::vector<int32_t>> rows;
  int64_t row = 0;
  std::vector<int64_t> counts;  ///< of every token id in the text, up to the largest that is there
  int64_t text_tokens = 0;      ///< tokens that were tokenized (a very long text is thinned out first, by seed)
};

/// Reads text files, tokenizes them (no special tokens recognised) and draws rows by seed: the text is cut at a random offset
/// into rows that do not overlap, and of these a random choice is taken. A text too short for all rows gives those it has, with
/// a warning. Throws FormatError for a file that is empty or binary (read_plain_text), CalibrationError if all
/// files together below one row.
CalibrationRows read_calibration(const std::vector<fs::path>& files, const Tokenizer& tokenizer,
                                 const CalibrationOptions& options);

enum class Stream : uint8_t { floating, quantized };

/// The four places of a block whose values are inputs of linears.
enum class Site : uint8_t { attention, output, mlp, down };
inline constexpr std::array<Site, 4> kSites = {Site::attention, Site::output, Site::mlp, Site::down};
/// The site that feeds a linear: q, k, v -> attention; o -> output; gate, up -> mlp; down -> down. Throws ModelError for
/// another name.
Site site_of(const std::string& linear);

/// The inputs of the next block for all rows in both streams; what is carried from block to block.
/// The first `sample_rows` rows are the *sample*: a fixed set on which losses are searched and errors reported. The float
/// stream holds all rows if a method reads them, else the sample only.
struct CalibrationStreams {
  std::shared_ptr<SpillBudget> budget;
  int64_t rows = 0, sample_rows = 0, row = 0;
  int64_t chunk_rows = 4;  ///< rows that pass through a block together
  StreamNeeds needs;
  std::optional<ActivationStore> floating, quantized;

  bool available() const { return rows > 0; }
};
inline constexpr int64_t kSampleTokens = 4096;
/// The shape of the streams for these rows, stores empty.
CalibrationStreams plan_streams(const CalibrationRows& rows, const StreamNeeds& needs, std::shared_ptr<SpillBudget> budget);

/// Embeds the rows: the float stream with `embedding` (float), the quantized stream with `rounded_embedding` (the same tensor
/// if the embedding stays float). Both take the model's embedding scale from `config`.
CalibrationStreams start_streams(const ModelConfig& config, const torch::Tensor& embedding,
                                 const torch::Tensor& rounded_embedding, const CalibrationRows& rows, const StreamNeeds& needs,
                                 std::shared_ptr<SpillBudget> budget);

/// The calibration at one block.
///
/// The float stream is run through the block once, at construction, with the weights as they are then (nothing changed yet):
/// statistics cover all of its rows, and inputs and outputs on the sample rows are kept. The quantized stream is run site by
/// site when a linear of that site is asked for, with the weights as they are at that moment: a rounding that asks for q, k, v,
/// installs them, then asks for o and so on sees the inputs that the rounded linears before produce. Going back is not
/// possible.
///
/// Memory: one activation set per stream, and the inputs of one site (of all four with needs.float_inputs).
class BlockCalibration {
 public:
  /// `streams.rows == 0`: no calibration text; then available() is false and every question throws CalibrationError.
  BlockCalibration(BlockView& view, CalibrationStreams& streams);
  ~BlockCalibration();
  BlockCalibration(const BlockCalibration&) = delete;
  BlockCalibration& operator=(const BlockCalibration&) = delete;

  bool available() const;
  int64_t tokens(Stream stream) const;

  // Float stream, statistics over all its rows; [in] each.
  torch::Tensor mean_abs(const std::string& linear) const;  ///< mean_t |X_tj|
  torch::Tensor max_abs(const std::string& linear) const;   ///< max_t |X_tj|

  // Float stream, the sample rows.
  torch::Tensor sample_inputs(const std::string& linear) const;  ///< X [sample_rows, row, in], folded scales divided out
  torch::Tensor sample_outputs(const std::string& linear)
      const;  ///< X W^T + b of the float linear [sample_rows, row, out] before any change (rows that a fold scaled are scaled)
  /// Input and float output of an inspected module on the sample rows [sample_rows, row, hidden]: "self_attn" (its input is the
  /// output of the norm before it), "mlp", or a linear's name.
  torch::Tensor module_inputs(const std::string& module) const;
  torch::Tensor module_outputs(const std::string& module) const;
  /// Runs an inspected module with its present weights.
  torch::Tensor run_module(const std::string& module, const torch::Tensor& inputs) const;
  const RotaryTables& rotary() const;

  /// Hands out the linear's inputs X [rows, row, in] chunk by chunk, the same order every time. floating: all rows with
  /// needs.float_inputs, else the sample.
  void for_each_input(const std::string& linear, Stream stream, const std::function<void(const torch::Tensor& x)>& visit);
  /// Both streams' inputs of the same rows; needs both streams.
  void for_each_pair(const std::string& linear,
                     const std::function<void(const torch::Tensor& floating, const torch::Tensor& quantized)>& visit);

  /// H = (2 / n) X^T X over all rows [in, in] float64, computed once per site and kept until the next site is asked for.
  torch::Tensor hessian(const std::string& linear, Stream stream);

  /// For fold.h: the linear's input channels were divided by `scale` [in] / the linear's output rows were divided by `scale`
  /// [out].
  void inputs_were_divided(Site site, const torch::Tensor& scale);
  void outputs_were_divided(const std::string& linear, const torch::Tensor& scale);

  /// ||Y - X' W'^T||^2 / ||Y||^2 on the sample rows, Y the float linear's output (bias left out) and W' its present weight.
  double relative_error(const std::string& linear) const;

  /// Runs the quantized stream to the block's end with the present weights and puts both streams at the next block's input.
  /// Call once, last.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lighten
