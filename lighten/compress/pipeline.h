// The main job: a float model in, a light model out, block by block, resumable.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/compress/head_bands.h"
#include "lighten/compress/method.h"

namespace lighten {

inline constexpr int64_t kLargestThatFits = -1;  ///< group size "auto": the largest of 128, 64, 32 that divides every width

struct QuantizeRequest {
  fs::path model, output;
  std::vector<MethodEntry> methods;  ///< at most one with a transform and one with a rounding are used: "awq+gptq"; transform
                                     ///< alone rounds to nearest
  std::string method_name;           ///< as the user wrote it
  int bits = 4;
  int64_t group_size = kLargestThatFits;
  ZeroKind zero = ZeroKind::integer;
  int head_bits = 0;  ///< embedding and head: 0 keeps them in binary16
  /// The tokens that the calibration text holds most often in widths of their own, most frequent first, BOS, ends and what
  /// chats consist of before all; the others have head_bits. Empty: all do.
  std::vector<HeadBand> head_frequent;
  int64_t head_group_size = kLargestThatFits;
  std::vector<fs::path> calibration;  ///< text files
  std::vector<fs::path> trim_corpus;  ///< text files: only the tokens that they need stay (trim_vocabulary.h); none: all stay
  int64_t trim_min_count = 1;         ///< of a token in the corpus
  int64_t trim_tokens = 0;            ///< fill up to so many; 0: no more than the corpus needs
  int64_t calibration_tokens = 32768, calibration_row = 512;
  uint64_t seed = 0;
  int threads = 0;
  bool force = false;                 ///< replace an existing light model; start anew over unfinished work of other settings
  bool resume = true;                 ///< go on with unfinished work of the same settings; false: start anew
  uint64_t spill_bytes = 4ull << 30;  ///< activations past this many bytes go to disk
  double checkpoint_seconds = 20;     ///< how often the streams are saved for going on; work since the last time is done again
  std::function<void(int64_t layer)> on_block;  ///< called before each block; what it throws ends the work like an interruption
};

/// What quantize() will do; made without reading calibration activations. Every shape has been checked.
struct QuantizePlan {
  std::string text;  ///< for people: per-linear-type table, size before and after, memory, time estimate, disk needed and free
  Json json;
};
QuantizePlan plan_quantize(const QuantizeRequest& request);

/// Throws unless the output may be written. It must not be the model or a text that is read, nor a folder around them, nor lie
/// inside the model's folder (OptionError). If it exists, `force` is needed, and it must be a light model or empty: nothing
/// else is ever replaced (FileError). The same holds for what is found in partial_folder(output), where no other process may be
/// working.
void check_output(const QuantizeRequest& request);
/// Everything that quantize() checks before it writes: output, options, shapes, disk, calibration text. Throws as it does.
void check_quantize(const QuantizeRequest& request);
/// Where unfinished work is kept: "OUT.partial".
fs::path partial_folder(const fs::path& output);

struct LayerError {
  int64_t layer;
  std::string linear;
  double relative_error;  ///< ||(W - Q) X||^2 / ||W X||^2 on calibration inputs (weights only when there is no calibration)
};
struct QuantizeReport {
  uint64_t size_before = 0, size_after = 0;     ///< bytes of all files
  int64_t tokens_before = 0, tokens_after = 0;  ///< rows of the embedding
  uint64_t rows_saved = 0;                      ///< bytes that the rows which went would take in the light model
  double bits_per_weight = 0;                   ///< all tensors
  double linear_bits = 0;                       ///< quantized linears only, scales and zeros counted
  double seconds = 0;
  uint64_t peak_bytes = 0;
  std::vector<LayerError> errors;
  Json json() const;
};
/// Throws OptionError, FormatError, CalibrationError, FileError. Ctrl-C and kill leave `<output>.partial`, from which the
/// same request goes on to bit-equal output; work of other settings there is an OptionError that names the difference.
QuantizeReport quantize(const QuantizeRequest& request);

}  // namespace lighten
