// A Hugging Face folder: config.json, generation_config.json, *.safetensors, tokenizer.json.
#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <string_view>

#include "lighten/base/error.h"
#include "lighten/formats/chat_template.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/safetensors.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/formats/weight_sources.h"

namespace lighten::formats {
namespace {

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

bool is_float(DType type) {
  return type == DType::f64 || type == DType::f32 || type == DType::f16 || type == DType::bf16 || type == DType::f8_e4m3 ||
         type == DType::f8_e5m2;
}

Json read_json(const fs::path& path) { return parse_json(read_file(path), path.string()); }

ModelConfig read_config(const fs::path& folder) {
  const fs::path config = folder / "config.json", generation = folder / "generation_config.json";
  const Json json = read_json(config);
  if (!fs::exists(generation)) return parse_hf_config(json, config.string());
  const Json settings = read_json(generation);
  return parse_hf_config(json, config.string(), &settings);
}

/// Names that a tensor may have in the file: the plain one, and those inside models that can see as well.
std::vector<std::string> spellings(const std::string& name) {
  std::vector<std::string> names{name, "language_model." + name};
  if (name.starts_with("model.")) names.push_back("model.language_model." + name.substr(6));
  return names;
}

/// Whether a tensor belongs to the parts beside the decoder of a model that can see.
bool sees(std::string_view name) {
  if (name.starts_with("model.")) name.remove_prefix(6);
  return name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.");
}

class HuggingFaceSource final : public WeightSource {
 public:
  explicit HuggingFaceSource(const fs::path& folder) : folder_(folder), config_(read_config(folder)), model_(folder) {
    settle_head();
    for (const TensorShape& expected : expected_tensors(config_)) {
      const TensorView& view = locate(expected);
      stored_.push_back({expected.name, expected.shape, std::string(dtype_name(view.dtype)), view.bytes.size()});
      views_[expected.name] = &view;
    }
    refuse_strangers();
  }

  const fs::path& path() const override { return folder_; }
  const ModelConfig& config() const override { return config_; }
  const std::vector<StoredTensor>& tensors() const override { return stored_; }

  std::vector<float> read(const std::string& name) const override {
    const auto it = views_.find(name);
    if (it == views_.end()) throw_error<FormatError>("{}: tensor {} is missing", folder_.string(), printable(name));
    std::vector<float> values = to_float(*it->second, where(name));
    if (config_.norm_plus_one && it->second->shape.size() == 1 && name.ends_with("norm.weight"))
      for (float& value : values) value += 1.0f;
    return values;
  }

  std::optional<QuantTensor> read_quantized(const std::string&) const override { return std::nullopt; }

  std::shared_ptr<const Tokenizer> tokenizer() const override {
    std::call_once(tokenizer_once_, [&] { tokenizer_ = Tokenizer::from_file(folder_ / "tokenizer.json"); });
    return tokenizer_;
  }

  std::string chat_template() const override { return read_chat_template(folder_); }

  uint64_t size_on_disk() const override { return lighten::size_on_disk(folder_); }

  std::string container() const override {
    const size_t shards = model_.shards().size();
    return shards == 1 ? "safetensors" : fmt::format("safetensors ({} shards)", shards);
  }

 private:
  std::string where(const std::string& name) const { return fmt::format("{}: tensor {}", folder_.string(), printable(name)); }

  const TensorView* find_spelled(const std::string& canonical) const {
    for (const std::string& name : spellings(canonical))
      if (const TensorView* view = model_.find(name)) return view;
    return nullptr;
  }

  /// As transformers 5 does: a head that stands in the file beside the embedding with other values is not tied, whatever
  /// tie_word_embeddings says; one that equals it is, and one that stands there alone serves as the embedding too.
  void settle_head() {
    if (!config_.tied_head) return;
    const TensorView *head = find_spelled(kHead), *embedding = find_spelled(kEmbedding);
    if (head == nullptr || embedding == nullptr) return;
    const bool same = head->dtype == embedding->dtype
                          ? std::ranges::equal(head->bytes, embedding->bytes)
                          : to_float(*head, where(kHead), false) == to_float(*embedding, where(kEmbedding), false);
    config_.tied_head = same;
    if (same) used_.insert(head);
  }

  const TensorView& locate(const TensorShape& expected) {
    std::vector<std::string> names = spellings(expected.name);
    if (config_.tied_head && expected.name == kEmbedding) std::ranges::copy(spellings(kHead), std::back_inserter(names));
    for (const std::string& name : names) {
      const TensorView* view = model_.find(name);
      if (view == nullptr) continue;
      used_.insert(view);
      check_shape(view->shape, expected.shape, where(name));
      if (!is_float(view->dtype))
        throw_error<FormatError>("{}: has the dtype {}, but weights must be floating point; give the float model", where(name),
                                 dtype_name(view->dtype));
      return *view;
    }
    throw_error<FormatError>("{}: tensor {} is missing; the checkpoint does not fit its config.json", folder_.string(),
                             expected.name);
  }

  /// A weight that the configuration does not know would be left out silently. Those of the parts that see are no concern of
  /// the decoder, nor are buffers (rotary_emb.inv_freq).
  void refuse_strangers() const {
    for (const auto& [name, view] : model_.tensors())
      if ((name.ends_with(".weight") || name.ends_with(".bias")) && !used_.contains(view) && !sees(name))
        throw_error<FormatError>("{}: does not belong to the model that config.json describes", where(name));
  }

  fs::path folder_;
  ModelConfig config_;
  SafetensorsModel model_;
  std::vector<StoredTensor> stored_;
  std::map<std::string, const TensorView*> views_;
  std::set<const TensorView*> used_;
  mutable std::once_flag tokenizer_once_;
  mutable std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace

std::unique_ptr<WeightSource> open_hugging_face(const fs::path& folder) { return std::make_unique<HuggingFaceSource>(folder); }

}  // namespace lighten::formats
