// From a path to a model that can be evaluated.
#include "lighten/eval/scorers.h"
#include "lighten/runtime/light_model.h"

namespace lighten {

namespace {

double bits_per_weight(uint64_t tensor_bytes, const ModelConfig& config) {
  return static_cast<double>(tensor_bytes) * 8 / static_cast<double>(parameter_count(config));
}

EvaluatedModel open_light(const fs::path& path, Engine engine) {
  const LightModel light(path);
  EvaluatedModel model;
  model.config = light.config();
  model.tokenizer = light.tokenizer();
  model.size_bytes = light.size_on_disk();
  model.bits_per_weight = bits_per_weight(light.tensor_bytes(), light.config());
  if (engine == Engine::torch) {
    model.scorer = torch_scorer(load_decoder(light.config(), [&](const std::string& name) { return light.read(name); }));
  }
  return model;
}

EvaluatedModel open_float(const fs::path& path, Engine engine) {
  const auto source = open_weights(path);
  EvaluatedModel model;
  model.config = source->config();
  model.tokenizer = source->tokenizer();
  model.size_bytes = source->size_on_disk();
  uint64_t bytes = 0;
  for (const StoredTensor& tensor : source->tensors()) bytes += tensor.bytes;
  model.bits_per_weight = bits_per_weight(bytes, source->config());
  if (engine == Engine::torch) model.scorer = torch_scorer(load_decoder(*source));
  return model;
}

}  // namespace

EvaluatedModel open_for_evaluation(const fs::path& path, Engine engine, int threads, bool exact, KvFormat kv_cache,
                                   Activations activations, Device device) {
  if (engine == Engine::torch && threads > 0) torch::set_num_threads(threads);
  EvaluatedModel model = model_kind(path) == ModelKind::light ? open_light(path, engine) : open_float(path, engine);
  if (engine == Engine::runtime) {
    const FloatStorage storage = exact ? FloatStorage::f32 : FloatStorage::native;
    model.scorer = runtime_scorer(RuntimeModel::load(path, {.threads = threads,
                                                            .exact = exact,
                                                            .storage = storage,
                                                            .kv_cache = kv_cache,
                                                            .activations = activations,
                                                            .device = device}));
  }
  model.threads = threads;
  return model;
}

}  // namespace lighten
