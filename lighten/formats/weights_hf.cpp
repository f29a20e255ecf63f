// A Hugging Face folder: config.json, generation_config.json, *.safetensors, tokenizer.json.
#include <map>
#include <mutex>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/safetensors.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/formats/weight_sources.h"

namespace lighten::formats {
namespace {

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

class HuggingFaceSource final : public WeightSource {
 public:
  explicit HuggingFaceSource(const fs::path& folder) : folder_(folder), config_(read_config(folder)), model_(folder) {
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

  std::string chat_template() const override {
    const fs::path own = folder_ / "chat_template.jinja", settings = folder_ / "tokenizer_config.json";
    if (fs::exists(own)) return read_file(own);
    if (!fs::exists(settings)) return "";
    const Json json = read_json(settings);
    const Json* found = Fields(json, settings.string()).find("chat_template");
    if (found == nullptr) return "";
    if (found->is_string()) return found->get<std::string>();
    if (found->is_array())  // several templates by name
      for (const Json& item : *found)
        if (item.is_object() && item.value("name", "") == "default") return Fields(item, settings.string()).text("template");
    throw_error<FormatError>("{}: chat_template must be a text, or a list with one that is named \"default\"",
                             settings.string());
  }

  uint64_t size_on_disk() const override { return lighten::size_on_disk(folder_); }

  std::string container() const override {
    const size_t shards = model_.shards().size();
    return shards == 1 ? "safetensors" : fmt::format("safetensors ({} shards)", shards);
  }

 private:
  std::string where(const std::string& name) const { return fmt::format("{}: tensor {}", folder_.string(), printable(name)); }

  const TensorView& locate(const TensorShape& expected) {
    for (const std::string& name : spellings(expected.name)) {
      const TensorView* view = model_.find(name);
      if (view == nullptr) continue;
      check_shape(view->shape, expected.shape, where(name));
      if (!is_float(view->dtype))
        throw_error<FormatError>("{}: has the dtype {}, but weights must be floating point; give the float model", where(name),
                                 dtype_name(view->dtype));
      return *view;
    }
    throw_error<FormatError>("{}: tensor {} is missing; the checkpoint does not fit its config.json", folder_.string(),
                             expected.name);
  }

  /// A weight inside a block that the configuration does not know would be left out silently.
  void refuse_strangers() const {
    for (const auto& [name, view] : model_.tensors())
      if (name.starts_with("model.layers.") && (name.ends_with(".weight") || name.ends_with(".bias")) && !views_.contains(name))
        throw_error<FormatError>("{}: does not belong to the model that config.json describes", where(name));
  }

  fs::path folder_;
  ModelConfig config_;
  SafetensorsModel model_;
  std::vector<StoredTensor> stored_;
  std::map<std::string, const TensorView*> views_;
  mutable std::once_flag tokenizer_once_;
  mutable std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace

std::unique_ptr<WeightSource> open_hugging_face(const fs::path& folder) { return std::make_unique<HuggingFaceSource>(folder); }

}  // namespace lighten::formats
