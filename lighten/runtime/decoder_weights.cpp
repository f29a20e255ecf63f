#include "lighten/runtime/decoder_weights.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <mutex>
#include <optional>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/runtime/light_format.h"

namespace lighten::runtime {
namespace {

using VectorReader = std::function<std::vector<float>(const std::string&)>;

/// Sorts tensors by canonical name into their places.
DecoderWeights assemble(const ModelConfig& config, const std::map<std::string, PackedWeight>& packed,
                        const std::map<std::string, RowBands>& banded, const VectorReader& read) {
  DecoderWeights weights;
  weights.config = config;
  for (const auto& [name, weight] : packed) weights.bytes += packed_bytes(weight.spec);
  for (const auto& [name, rows] : banded) {
    weights.bytes += rows.places.size() * sizeof(int32_t);
    for (const PackedWeight& band : rows.bands) weights.bytes += packed_bytes(band.spec);
  }
  const auto vector = [&](const std::string& name) {
    std::vector<float> values = read(name);
    weights.bytes += values.size() * sizeof(float);
    return values;
  };
  const auto matrix = [&](const LinearShape& shape) {
    return Matrix{packed.at(shape.name + ".weight"), shape.bias ? vector(shape.name + ".bias") : std::vector<float>(), nullptr};
  };
  for (int64_t i = 0; i < config.layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const std::vector<LinearShape> linears = block_linears(config, i);
    LayerWeights layer{matrix(linears[0]),
                       matrix(linears[1]),
                       matrix(linears[2]),
                       matrix(linears[3]),
                       matrix(linears[4]),
                       matrix(linears[5]),
                       matrix(linears[6]),
                       {},
                       {},
                       {},
                       {},
                       {},
                       {}};
    layer.attention_norm = vector(prefix + "input_layernorm.weight");
    if (config.sandwich_norms) {
      layer.attention_out_norm = vector(prefix + "post_attention_layernorm.weight");
      layer.mlp_norm = vector(prefix + "pre_feedforward_layernorm.weight");
      layer.mlp_out_norm = vector(prefix + "post_feedforward_layernorm.weight");
    } else {
      layer.mlp_norm = vector(prefix + "post_attention_layernorm.weight");
    }
    if (config.qk_norm) {
      layer.q_norm = vector(prefix + "self_attn.q_norm.weight");
      layer.k_norm = vector(prefix + "self_attn.k_norm.weight");
    }
    weights.layers.push_back(std::move(layer));
  }
  weights.final_norm = vector("model.norm.weight");
  const auto tokens = [&](const std::string& name) {
    const auto found = banded.find(name);
    if (found == banded.end()) return TokenMatrix{{Matrix{packed.at(name), {}, nullptr}}, {}};
    TokenMatrix matrix{{}, found->second.places};
    for (const PackedWeight& band : found->second.bands) matrix.bands.push_back({band, {}, nullptr});
    return matrix;
  };
  weights.embedding = tokens("model.embed_tokens.weight");
  weights.head = config.tied_head ? weights.embedding : tokens("lm_head.weight");
  return weights;
}

std::vector<TensorShape> matrices(const ModelConfig& config) {
  std::vector<TensorShape> tensors = expected_tensors(config);
  std::erase_if(tensors, [](const TensorShape& tensor) { return tensor.shape.size() != 2; });
  return tensors;
}

struct PackedTensor {
  LinearSpec spec;
  AlignedBytes bytes;
};

bool has_kernel(const QuantTensor& tensor) {
  const bool scalar_or_levels = tensor.kind == CodeKind::scalar || tensor.kind == CodeKind::levels;  // what GGUF files hold
  return scalar_or_levels && (tensor.bits == 2 || tensor.bits == 3 || tensor.bits == 4 || tensor.bits == 8) &&
         tensor.group_size > 0 && tensor.columns % tensor.group_size == 0;
}

PackedTensor pack_tensor(const WeightSource& source, const TensorShape& tensor, FloatStorage storage) {
  if (storage == FloatStorage::native) {
    const std::optional<QuantTensor> codes = source.read_quantized(tensor.name);
    if (codes && has_kernel(*codes)) {
      const LinearSpec spec = linear_spec(*codes);
      PackedTensor packed{spec, AlignedBytes(packed_bytes(spec))};
      pack(*codes, packed.bytes.data());
      return packed;
    }
  }
  const std::vector<float> values = source.read(tensor.name);
  LinearSpec spec = half_spec(values, tensor.shape);
  if (storage == FloatStorage::bf16) spec.bfloat = true;
  if (storage == FloatStorage::f32) {
    spec.bits = 32;
    spec.bfloat = false;
  }
  check(spec);
  PackedTensor packed{spec, AlignedBytes(packed_bytes(spec))};
  pack_float(spec, values.data(), packed.bytes.data());
  return packed;
}

/// Makes every matrix in parallel, one task a tensor.
DecoderWeights pack_all(const ModelConfig& config, const std::function<PackedTensor(const TensorShape&)>& make,
                        const VectorReader& read, ThreadPool& pool) {
  const std::vector<TensorShape> tensors = matrices(config);
  std::vector<PackedTensor> made(tensors.size());
  pool.parallel_for(static_cast<int64_t>(tensors.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) made[static_cast<size_t>(i)] = make(tensors[static_cast<size_t>(i)]);
  });
  std::map<std::string, PackedWeight> packed;
  for (size_t i = 0; i < tensors.size(); ++i) packed.emplace(tensors[i].name, PackedWeight{made[i].spec, made[i].bytes.data()});
  DecoderWeights weights = assemble(config, packed, {}, read);
  for (PackedTensor& tensor : made) weights.storage.push_back(std::move(tensor.bytes));
  return weights;
}

ModelConfig shape_named(const std::string& shape) {
  ModelConfig config;
  config.name = shape;
  config.head_dim = 64;
  config.context_length = 8192;
  if (shape == "llama-1b") {
    config.layers = 16, config.hidden_size = 2048, config.heads = 32, config.kv_heads = 8;
    config.intermediate_size = 8192, config.vocab_size = 128256, config.rope.base = 500000;
  } else if (shape == "smollm2-135m") {
    config.layers = 30, config.hidden_size = 576, config.heads = 9, config.kv_heads = 3;
    config.intermediate_size = 1536, config.vocab_size = 49152, config.rope.base = 100000;
  } else {
    throw OptionError(unknown_name_message("shape", shape, {"llama-1b", "smollm2-135m"}));
  }
  return config;
}

/// Uniform codes around zero whose standard deviation is 0.02, as trained weights have it about.
PackedTensor random_codes(LinearSpec spec, uint64_t seed) {
  Random random(seed);
  const auto elements = static_cast<size_t>(spec.rows * spec.columns);
  std::vector<uint8_t> codes((elements + 7) / 8 * 8);
  for (size_t i = 0; i < codes.size(); i += 8) {
    const uint64_t bits = random.next() & (0x0101010101010101ull * ((1u << spec.bits) - 1u));
    for (size_t j = 0; j < 8; ++j) codes[i + j] = static_cast<uint8_t>(bits >> (8 * j));
  }
  const auto groups = static_cast<size_t>(spec.group_size == 0 ? spec.rows : spec.rows * (spec.columns / spec.group_size));
  const double levels = std::exp2(spec.bits);
  const std::vector<Half> scales(groups, float_to_half(static_cast<float>(0.02 * std::sqrt(12.0) / levels)));
  const std::vector<uint8_t> zero_points(groups, static_cast<uint8_t>(levels / 2));
  PackedTensor packed{spec, AlignedBytes(packed_bytes(spec))};
  pack_linear(spec, codes.data(), scales.data(), zero_points.data(), nullptr, packed.bytes.data());
  return packed;
}

PackedTensor random_floats(LinearSpec spec, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(static_cast<size_t>(spec.rows * spec.columns));
  for (float& value : values) value = static_cast<float>((random.uniform() - 0.5) * 0.02 * std::sqrt(12.0));
  PackedTensor packed{spec, AlignedBytes(packed_bytes(spec))};
  pack_float(spec, values.data(), packed.bytes.data());
  return packed;
}

}  // namespace

DecoderWeights map_weights(std::shared_ptr<const LightModel> light) {
  DecoderWeights weights =
      assemble(light->config(), light->packed(), light->banded(), [&](const std::string& name) { return light->read(name); });
  weights.light = std::move(light);
  return weights;
}

DecoderWeights pack_weights(const WeightSource& source, FloatStorage storage, ThreadPool& pool) {
  return pack_all(
      source.config(), [&](const TensorShape& tensor) { return pack_tensor(source, tensor, storage); },
      [&](const std::string& name) { return source.read(name); }, pool);
}

void copy_to_device(DecoderWeights& weights, ThreadPool& pool) {
  const auto copy = [&](Matrix& matrix) { matrix.device = to_device(matrix.weight.spec, matrix.weight.data, pool); };
  for (LayerWeights& layer : weights.layers)
    for (Matrix* matrix : {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) copy(*matrix);
  for (Matrix& band : weights.head.bands) copy(band);
}

DecoderWeights random_weights(const std::string& shape, int bits, int64_t group_size, ThreadPool& pool) {
  const ModelConfig config = shape_named(shape);
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8 && bits != 16)
    throw_error<OptionError>("bits {}: must be 2, 3, 4, 8 or 16", bits);
  const auto make = [&](const TensorShape& tensor) {
    const LinearSpec spec{.bits = bits,
                          .zero = bits == 16 ? PackedZero::symmetric : PackedZero::integer,
                          .bfloat = false,
                          .rows = tensor.shape[0],
                          .columns = tensor.shape[1],
                          .group_size = bits == 16 ? 0 : group_size};
    try {
      check(spec);
    } catch (const ModelError& error) {
      throw_error<OptionError>("{}: {}", tensor.name, error.what());
    }
    const uint64_t seed = std::hash<std::string>()(tensor.name);
    return bits == 16 ? random_floats(spec, seed) : random_codes(spec, seed);
  };
  std::map<std::string, size_t> widths;
  for (const TensorShape& tensor : expected_tensors(config)) widths.emplace(tensor.name, static_cast<size_t>(tensor.shape[0]));
  return pack_all(
      config, make, [&](const std::string& name) { return std::vector<float>(widths.at(name), 1.0f); }, pool);
}

}  // namespace lighten::runtime
