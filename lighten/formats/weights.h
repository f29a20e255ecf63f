// A float model on disk, whatever its container: tensors by canonical (Hugging Face) name.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lighten/formats/model_config.h"
#include "lighten/formats/quant_tensor.h"

namespace lighten {

class Tokenizer;

struct StoredTensor {
  std::string name;            ///< canonical: "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;  ///< [out, in] for linears
  std::string type;            ///< "F16", "Q4_1", ... as stored
  uint64_t bytes = 0;          ///< as stored
};

/// A model opened for reading: Hugging Face folder of safetensors, or a GGUF file. Nothing is copied until read.
/// GGUF: q and k rows of the llama architecture are put back in Hugging Face order; norms come as the multiplier (Gemma's 1 +
/// w).
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual const fs::path& path() const = 0;
  virtual const ModelConfig& config() const = 0;
  virtual const std::vector<StoredTensor>& tensors() const = 0;
  /// Values in float32, canonical order. Throws FormatError: missing tensor, wrong shape, NaN or infinity (named).
  virtual std::vector<float> read(const std::string& name) const = 0;
  /// The stored low-bit form, if the container holds one that QuantTensor expresses exactly (GGUF Q4_0, Q4_1, Q5_0, Q5_1,
  /// Q8_0, IQ4_NL), else nothing.
  virtual std::optional<QuantTensor> read_quantized(const std::string& name) const = 0;
  virtual std::shared_ptr<const Tokenizer> tokenizer() const = 0;
  /// The chat template text (Jinja) if the model has one, else "".
  virtual std::string chat_template() const = 0;
  /// Bytes of all files of the model.
  virtual uint64_t size_on_disk() const = 0;
  /// Container's name for people: "GGUF v3", "safetensors (2 shards)".
  virtual std::string container() const = 0;

  const StoredTensor* find(const std::string& name) const;
};

/// Opens a folder with config.json + safetensors, or a .gguf. Every tensor of expected_tensors() is checked for presence and
/// shape. Throws FileError, FormatError. A *light* model (config.json with "lighten") is refused here with a clear message: the
/// runtime opens those.
std::unique_ptr<WeightSource> open_weights(const fs::path& path);

/// What `path` is, without opening it fully.
enum class ModelKind : uint8_t { hugging_face, gguf, light };
/// Throws FileError when it is none of them, and says what was looked for.
ModelKind model_kind(const fs::path& path);

}  // namespace lighten
