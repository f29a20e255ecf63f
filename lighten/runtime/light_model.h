// The light model on disk: a Hugging Face style folder whose low-bit tensors lie in kernel layout, ready to be mapped.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lighten/formats/model_config.h"
#include "lighten/formats/quant_tensor.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/kernels/linear.h"

namespace lighten {

/// Version of the folder's format; a reader refuses others with a message that says which Lighten wrote it.
inline constexpr int kLightFormatVersion = 2;  ///< 1: no banded tensors

/// A linear's or embedding's weight: where it lies and what it is. `data` is 64-byte aligned and lives as long as its owner.
struct PackedWeight {
  LinearSpec spec;
  const std::byte* data = nullptr;
};

/// The embedding or the head with more bits for frequent tokens: its rows lie in several packed weights of different widths
/// ("bands"), one below the other.
struct RowBands {
  std::vector<PackedWeight> bands;
  std::vector<int32_t> places;  ///< row r of the matrix is row places[r] of the bands
};
/// Such a matrix as plain data.
struct BandedTensor {
  std::vector<QuantTensor> bands;
  std::vector<int32_t> places;
};
inline constexpr size_t kMostBands = 8;
/// Throws ModelError unless there are 1 to kMostBands bands of the same columns and places name each of their rows once.
void check(const BandedTensor& tensor, const std::string& name);
/// [rows, columns] in the order of the matrix; `tensor` has been checked.
std::vector<float> dequantize(const BandedTensor& tensor);

LinearSpec linear_spec(const QuantTensor& tensor);  ///< throws ModelError for kinds without a kernel
void pack(const QuantTensor& tensor, std::byte* out);
QuantTensor unpack(const PackedWeight& weight);  ///< bits <= 8 only

/// Writes a light model piece by piece, so that killed work can be resumed: every piece is one file
/// `<folder>/pieces/<name>.safetensors`, complete or absent. finish() joins the pieces into model.safetensors, writes
/// config.json (with "lighten": {format_version, layout_version, tensors: {...}, method: {...}}), the tokenizer's files and
/// chat template, and removes `pieces`.
class LightWriter {
 public:
  LightWriter(fs::path folder, ModelConfig config);
  bool has_piece(const std::string& piece) const;
  /// One piece (a block, the head, ...): its quantized weights by tensor name and its float tensors (norms, biases), kept as
  /// f32 or rounded to f16. A banded tensor NAME, embedding or head, is written as NAME.band0, NAME.band1, ... and NAME.places
  /// (I32).
  void add_piece(const std::string& piece, const std::map<std::string, QuantTensor>& quantized,
                 const std::map<std::string, std::vector<float>>& floats,
                 const std::map<std::string, BandedTensor>& banded = {});
  /// `method`: what was done, with all options, for people and for result files.
  void finish(const Json& method, const Tokenizer& tokenizer, const std::string& chat_template);

 private:
  fs::path folder_;
  ModelConfig config_;
};

/// A light model opened by mapping it. Nothing is copied. Every offset, size and spec is checked. Throws FormatError.
class LightModel {
 public:
  explicit LightModel(const fs::path& folder);
  ~LightModel();
  const fs::path& path() const;
  const ModelConfig& config() const;
  const Json& method() const;
  const std::map<std::string, PackedWeight>& packed() const;  ///< by canonical tensor name, without banded ones
  const std::map<std::string, RowBands>& banded() const;
  std::vector<float> read(const std::string& name) const;  ///< any tensor, dequantized to float
  bool has(const std::string& name) const;
  std::shared_ptr<const Tokenizer> tokenizer() const;
  std::string chat_template() const;
  uint64_t size_on_disk() const;  ///< all files
  uint64_t tensor_bytes() const;  ///< all tensors

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lighten
