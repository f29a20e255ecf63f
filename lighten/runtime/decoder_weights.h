// Everything a decoder multiplies with, wherever it came from: a mapped light model, a float or GGUF model packed in memory,
// random numbers.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "lighten/formats/weights.h"
#include "lighten/kernels/accelerator.h"
#include "lighten/runtime/aligned_bytes.h"
#include "lighten/runtime/light_model.h"
#include "lighten/runtime/model.h"

namespace lighten::runtime {

/// y = x W^T + bias
struct Matrix {
  PackedWeight weight;
  std::vector<float> bias;                     ///< empty: none
  std::shared_ptr<const DeviceWeight> device;  ///< its copy on a graphics card; null: none
};

/// One block. Norms hold the multiplier itself.
struct LayerWeights {
  Matrix q, k, v, o, gate, up, down;
  std::vector<float> attention_norm, mlp_norm;          ///< before attention, before the MLP
  std::vector<float> attention_out_norm, mlp_out_norm;  ///< after them (Gemma); empty: none
  std::vector<float> q_norm, k_norm;                    ///< [head_dim]; empty: none
};

/// Embedding or head, a row per token: one matrix, or bands of rows in different widths (RowBands).
struct TokenMatrix {
  std::vector<Matrix> bands;
  std::vector<int32_t> places;  ///< empty: rows stand in the order of the tokens
};

struct DecoderWeights {
  ModelConfig config;
  TokenMatrix embedding, head;  ///< the same bytes when tied
  std::vector<LayerWeights> layers;
  std::vector<float> final_norm;
  uint64_t bytes = 0;                       ///< packed tensors and norms, a tied head once
  std::vector<AlignedBytes> storage;        ///< what `PackedWeight`s point into, unless a light model
  std::shared_ptr<const LightModel> light;  ///< keeps the mapping
};

DecoderWeights map_weights(std::shared_ptr<const LightModel> light);
DecoderWeights pack_weights(const WeightSource& source, FloatStorage storage, ThreadPool& pool);
/// Copies every matrix that has a kernel there to the graphics card. Throws OptionError where there is none.
void copy_to_device(DecoderWeights& weights, ThreadPool& pool);
/// Throws OptionError for an unknown shape, bits or group size.
DecoderWeights random_weights(const std::string& shape, int bits, int64_t group_size, ThreadPool& pool);

}  // namespace lighten::runtime
