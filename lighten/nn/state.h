// The state of modules as named tensors, and files of it.
#pragma once
#include <torch/torch.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

/// Parameters and buffers of a module by their dotted names ("layer1.0.conv.weight"), in order of registration. They share
/// memory with the module.
NamedTensors state_of(const torch::nn::Module& module, const std::string& prefix = "");
/// Copies of such tensors.
NamedTensors cloned(const NamedTensors& tensors);
/// Writes the values of `source` into the tensors of `target`, name by name. Throws FormatError, naming `where` and the tensor,
/// if one is missing, has another shape or type, or is left over.
void copy_state(const NamedTensors& source, const NamedTensors& target, const std::string& where);

/// Writes a safetensors file atomically (float32, float64, float16, bfloat16, int64, int32, uint8, bool).
void save_tensors(const fs::path& path, const NamedTensors& tensors, const std::map<std::string, std::string>& metadata = {});
/// All tensors of a file, as copies, in order of name.
NamedTensors load_tensors(const fs::path& path);

/// Number of values in the parameters of a module.
int64_t parameter_count(const torch::nn::Module& module);

}  // namespace lighten
