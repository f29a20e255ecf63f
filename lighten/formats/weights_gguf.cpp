// A GGUF file as a source of weights: canonical names, Hugging Face's row order, low-bit blocks as QuantTensor.
#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "lighten/base/error.h"
#include "lighten/formats/gguf.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/formats/weight_sources.h"

namespace lighten::formats {
namespace {

constexpr int64_t kBlock = 32;

/// Where the fields of a 32-number block lie, and what its codes mean.
struct BlockLayout {
  int bits;
  ZeroKind zero;
  int64_t bytes, high, codes;  ///< high: offset of the fifth bits, 0: none
  bool levels = false;         ///< codes of IQ4_NL's levels
};

std::optional<BlockLayout> block_layout(GgufType type) {
  switch (type) {
    case GgufType::q4_0:
      return BlockLayout{4, ZeroKind::symmetric, 18, 0, 2};
    case GgufType::q4_1:
      return BlockLayout{4, ZeroKind::minimum, 20, 0, 4};
    case GgufType::q5_0:
      return BlockLayout{5, ZeroKind::symmetric, 22, 2, 6};
    case GgufType::q5_1:
      return BlockLayout{5, ZeroKind::minimum, 24, 4, 8};
    case GgufType::q8_0:
      return BlockLayout{8, ZeroKind::symmetric, 34, 0, 2};
    case GgufType::iq4_nl:
      return BlockLayout{4, ZeroKind::symmetric, 18, 0, 2, true};
    default:
      return std::nullopt;
  }
}

/// The block's 32 codes, unsigned: signed bytes are moved up by 128.
void unpack_codes(const BlockLayout& layout, const uint8_t* block, uint8_t* out) {
  const uint8_t* codes = block + layout.codes;
  if (layout.bits == 8) {
    for (int64_t j = 0; j < kBlock; ++j) out[j] = static_cast<uint8_t>(codes[j] ^ 0x80);
    return;
  }
  uint32_t high = 0;
  if (layout.high != 0) std::memcpy(&high, block + layout.high, 4);
  for (int64_t j = 0; j < kBlock; ++j) {
    const int low = j < 16 ? codes[j] & 15 : codes[j - 16] >> 4;
    out[j] = static_cast<uint8_t>(low | (high >> j & 1) << 4);
  }
}

void unpack_row(const BlockLayout& layout, const uint8_t* blocks, int64_t row, QuantTensor& tensor) {
  const int64_t groups = tensor.columns / kBlock;
  for (int64_t g = 0; g < groups; ++g, blocks += layout.bytes) {
    const auto group = static_cast<size_t>(row * groups + g);
    std::memcpy(&tensor.scales[group], blocks, 2);
    if (layout.zero == ZeroKind::minimum) std::memcpy(&tensor.minimums[group], blocks + 2, 2);
    unpack_codes(layout, blocks, tensor.codes.data() + row * tensor.columns + g * kBlock);
  }
}

class GgufSource final : public WeightSource {
 public:
  explicit GgufSource(const fs::path& path) : path_(path), file_(path), config_(gguf_model_config(file_)) {
    std::set<std::string> known{"rope_freqs.weight"};
    for (const TensorShape& expected : expected_tensors(config_)) {
      const std::string name = gguf_tensor_name(expected.name, config_.architecture);
      const GgufTensor* tensor = file_.find(name);
      if (tensor == nullptr) throw_error<FormatError>("{}: tensor {} ({}) is missing", path.string(), name, expected.name);
      check_shape(tensor->shape, expected.shape, where(*tensor));
      stored_.push_back({expected.name, expected.shape, std::string(gguf_type_info(tensor->type)->name), tensor->bytes.size()});
      tensors_[expected.name] = tensor;
      known.insert(name);
    }
    for (const GgufTensor& tensor : file_.tensors())
      if (!known.contains(tensor.name))
        throw_error<FormatError>("{}: does not belong to the architecture {}", where(tensor),
                                 file_.metadata()["general.architecture"].get<std::string>());
  }

  const fs::path& path() const override { return path_; }
  const ModelConfig& config() const override { return config_; }
  const std::vector<StoredTensor>& tensors() const override { return stored_; }

  std::vector<float> read(const std::string& name) const override {
    const GgufTensor& tensor = at(name);
    std::vector<float> values = to_float(tensor, where(tensor));
    if (!interleaved(name)) return values;
    const int64_t rows = tensor.shape.front(), columns = tensor.elements() / rows;
    std::vector<float> ordered(values.size());
    for (int64_t row = 0; row < rows; ++row)
      std::copy_n(values.data() + source_row(name, row) * columns, columns, ordered.data() + row * columns);
    return ordered;
  }

  std::optional<QuantTensor> read_quantized(const std::string& name) const override {
    const GgufTensor& tensor = at(name);
    const auto layout = block_layout(tensor.type);
    if (!layout || tensor.shape.size() != 2) return std::nullopt;
    QuantTensor quant;
    quant.zero = layout->zero;
    if (layout->levels) {
      quant.kind = CodeKind::levels;
      quant.codebook.assign(kIq4Levels.begin(), kIq4Levels.end());
    }
    quant.bits = layout->bits;
    quant.rows = tensor.shape[0];
    quant.columns = tensor.shape[1];
    quant.group_size = kBlock;
    const auto groups = static_cast<size_t>(quant.rows * quant.columns / kBlock);
    quant.codes.resize(groups * kBlock);
    quant.scales.resize(groups);
    if (layout->zero == ZeroKind::minimum) quant.minimums.resize(groups);
    const auto* blocks = reinterpret_cast<const uint8_t*>(tensor.bytes.data());
    const int64_t row_bytes = quant.columns / kBlock * layout->bytes;
    for (int64_t row = 0; row < quant.rows; ++row) unpack_row(*layout, blocks + source_row(name, row) * row_bytes, row, quant);
    lighten::check(quant, where(tensor));
    return quant;
  }

  std::shared_ptr<const Tokenizer> tokenizer() const override {
    std::call_once(tokenizer_once_, [&] { tokenizer_ = Tokenizer::from_gguf(file_.metadata(), path_.string()); });
    return tokenizer_;
  }

  std::string chat_template() const override {
    return Fields(file_.metadata(), path_.string()).text("tokenizer.chat_template", "");
  }
  uint64_t size_on_disk() const override { return file_.file().size(); }
  std::string container() const override { return fmt::format("GGUF v{}", file_.version()); }

 private:
  std::string where(const GgufTensor& tensor) const {
    return fmt::format("{}: tensor {}", path_.string(), printable(tensor.name));
  }

  const GgufTensor& at(const std::string& name) const {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) throw_error<FormatError>("{}: tensor {} is missing", path_.string(), printable(name));
    return *it->second;
  }

  /// Weights and biases of q and k, in the llama architecture only.
  bool interleaved(const std::string& name) const {
    return config_.architecture == Architecture::llama &&
           (name.find(".self_attn.q_proj.") != std::string::npos || name.find(".self_attn.k_proj.") != std::string::npos);
  }
  int64_t source_row(const std::string& name, int64_t row) const {
    return interleaved(name) ? interleaved_row(row, config_.head_dim) : row;
  }

  fs::path path_;
  GgufFile file_;
  ModelConfig config_;
  std::vector<StoredTensor> stored_;
  std::map<std::string, const GgufTensor*> tensors_;
  mutable std::once_flag tokenizer_once_;
  mutable std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace

std::unique_ptr<WeightSource> open_gguf(const fs::path& file) { return std::make_unique<GgufSource>(file); }

}  // namespace lighten::formats
