// The containers behind open_weights(), and what they share.
#pragma once
#include <memory>
#include <string>

#include "lighten/formats/gguf.h"
#include "lighten/formats/weights.h"

namespace lighten::formats {

std::unique_ptr<WeightSource> open_hugging_face(const fs::path& folder);
std::unique_ptr<WeightSource> open_gguf(const fs::path& file);

/// The decoder that a GGUF file's metadata (and, for biases, head and rope factors, its tensors) describe: llama, qwen2, qwen3,
/// gemma3.
ModelConfig gguf_model_config(const GgufFile& file);
/// "model.layers.3.mlp.down_proj.weight" -> "blk.3.ffn_down.weight".
std::string gguf_tensor_name(const std::string& canonical, Architecture architecture);

/// Throws FormatError "<where>: shape [2, 3], but the configuration needs [3, 2]".
void check_shape(const std::vector<int64_t>& found, const std::vector<int64_t>& expected, const std::string& where);

/// Row of the stored q or k weight that holds row `row` of Hugging Face's order. GGUF's llama pairs neighbouring rows of a head
/// for its rotary embedding: stored row h d + 2 i + j is row h d + j d/2 + i, for i < d/2, j < 2.
int64_t interleaved_row(int64_t row, int64_t head_dim);

}  // namespace lighten::formats
