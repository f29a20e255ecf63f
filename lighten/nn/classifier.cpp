// The file format of trained picture classifiers.
#include "lighten/base/error.h"
#include "lighten/nn/state.h"
#include "lighten/nn/vision.h"

namespace lighten {

namespace {

constexpr int kFormat = 1;

template <typename T>
T field(const Json& json, const char* name, const std::string& where) {
  const auto found = json.find(name);
  if (found == json.end()) throw_error<FormatError>("{}: the field '{}' is missing", where, name);
  try {
    return found->template get<T>();
  } catch (const Json::exception&) {
    throw_error<FormatError>("{}: the field '{}' is {}, which has the wrong type", where, name, json_text(*found));
  }
}

}  // namespace

Json to_json(const VisionConfig& c) {
  return {{"architecture", c.architecture},
          {"channels", c.channels},
          {"height", c.height},
          {"width", c.width},
          {"classes", c.classes},
          {"base_width", c.base_width},
          {"feature_size", c.feature_size},
          {"depth", c.depth},
          {"patch", c.patch},
          {"dropout", c.dropout},
          {"head_bias", c.head_bias},
          {"norm", c.norm}};
}

VisionConfig vision_config_from(const Json& json, const std::string& where) {
  VisionConfig c;
  c.architecture = field<std::string>(json, "architecture", where);
  c.channels = field<int64_t>(json, "channels", where);
  c.height = field<int64_t>(json, "height", where);
  c.width = field<int64_t>(json, "width", where);
  c.classes = field<int64_t>(json, "classes", where);
  c.base_width = field<int64_t>(json, "base_width", where);
  c.feature_size = field<int64_t>(json, "feature_size", where);
  c.depth = field<int64_t>(json, "depth", where);
  c.patch = field<int64_t>(json, "patch", where);
  c.dropout = field<double>(json, "dropout", where);
  c.head_bias = field<bool>(json, "head_bias", where);
  if (json.contains("norm")) c.norm = field<std::string>(json, "norm", where);
  for (const int64_t size : {c.channels, c.height, c.width, c.classes, c.base_width, c.feature_size, c.depth})
    if (size < 0 || size > 100000) throw_error<FormatError>("{}: a size of {} cannot be", where, size);
  return c;
}

void save_classifier(const Classifier& classifier, const fs::path& folder, bool force) {
  AtomicFolder output(folder, force);
  Json config = {{"format", "lighten-classifier"}, {"format_version", kFormat}, {"lighten", LIGHTEN_VERSION}};
  config["net"] = to_json(classifier.net->config);
  config["mean"] = classifier.mean;
  config["deviation"] = classifier.deviation;
  config["class_names"] = classifier.class_names;
  config["training"] = classifier.training;
  write_file(output.path() / "config.json", json_text(config, 1) + "\n");
  save_tensors(output.path() / "model.safetensors", state_of(*classifier.net));
  output.commit();
}

Classifier load_classifier(const fs::path& folder) {
  const fs::path file = folder / "config.json";
  if (!fs::exists(file))
    throw_error<FileError>(
        "{}: no classifier (a folder with config.json and model.safetensors, as `lighten train classify` writes)",
        folder.string());
  Json json;
  try {
    json = Json::parse(read_file(file));
  } catch (const Json::exception& error) {
    throw_error<FormatError>("{}: not JSON: {}", file.string(), error.what());
  }
  const std::string where = file.string();
  if (json.value("format", "") != "lighten-classifier")
    throw_error<FormatError>("{}: its format is not 'lighten-classifier'; is this another kind of model?", where);
  if (const int version = field<int>(json, "format_version", where); version != kFormat)
    throw_error<FormatError>("{}: format_version {} is not known to this lighten ({})", where, version, kFormat);
  Classifier classifier;
  const VisionConfig config = vision_config_from(field<Json>(json, "net", where), where);
  classifier.mean = field<std::vector<float>>(json, "mean", where);
  classifier.deviation = field<std::vector<float>>(json, "deviation", where);
  classifier.class_names = field<std::vector<std::string>>(json, "class_names", where);
  classifier.training = json.value("training", Json());
  const auto channels = static_cast<size_t>(config.channels);
  if (classifier.mean.size() != channels || classifier.deviation.size() != channels)
    throw_error<FormatError>("{}: mean and deviation must have one value for each of the {} channels", where, channels);
  for (const float deviation : classifier.deviation)
    if (!(deviation > 0)) throw_error<FormatError>("{}: a deviation of {} cannot be", where, deviation);
  if (classifier.class_names.size() != static_cast<size_t>(config.classes))
    throw_error<FormatError>("{}: {} class_names for {} classes", where, classifier.class_names.size(), config.classes);
  classifier.net = make_vision_net(config, 0);
  const fs::path weights = folder / "model.safetensors";
  copy_state(load_tensors(weights), state_of(*classifier.net), weights.string());
  classifier.net->eval();
  return classifier;
}

}  // namespace lighten
