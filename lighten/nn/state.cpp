#include "lighten/nn/state.h"

#include "lighten/base/error.h"
#include "lighten/formats/safetensors.h"

namespace lighten {

namespace {

const std::vector<std::pair<torch::Dtype, DType>>& types() {
  static const std::vector<std::pair<torch::Dtype, DType>> table = {
      {torch::kFloat32, DType::f32},   {torch::kFloat64, DType::f64}, {torch::kFloat16, DType::f16},
      {torch::kBFloat16, DType::bf16}, {torch::kInt64, DType::i64},   {torch::kInt32, DType::i32},
      {torch::kUInt8, DType::u8},      {torch::kBool, DType::boolean}};
  return table;
}

}  // namespace

NamedTensors state_of(const torch::nn::Module& module, const std::string& prefix) {
  NamedTensors tensors;
  for (const auto& item : module.named_parameters()) tensors.emplace_back(prefix + item.key(), item.value());
  for (const auto& item : module.named_buffers()) tensors.emplace_back(prefix + item.key(), item.value());
  return tensors;
}

NamedTensors cloned(const NamedTensors& tensors) {
  NamedTensors copies;
  copies.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) copies.emplace_back(name, tensor.detach().clone());
  return copies;
}

void copy_state(const NamedTensors& source, const NamedTensors& target, const std::string& where) {
  const torch::NoGradGuard no_grad;
  std::map<std::string, torch::Tensor> given(source.begin(), source.end());
  for (const auto& [name, tensor] : target) {
    const auto found = given.find(name);
    if (found == given.end()) throw_error<FormatError>("{}: the tensor {} is missing", where, name);
    if (found->second.sizes() != tensor.sizes() || found->second.dtype() != tensor.dtype())
      throw_error<FormatError>("{}: {} is {} {}, but the net needs {} {}", where, name,
                               c10::toString(found->second.scalar_type()), fmt::join(found->second.sizes(), " x "),
                               c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), " x "));
    torch::Tensor(tensor).copy_(found->second);
    given.erase(found);
  }
  if (!given.empty()) throw_error<FormatError>("{}: the net has no tensor {}", where, given.begin()->first);
}

void save_tensors(const fs::path& path, const NamedTensors& tensors, const std::map<std::string, std::string>& metadata) {
  std::vector<torch::Tensor> kept;  // contiguous; the written views point into them
  std::vector<TensorToWrite> to_write;
  for (const auto& [name, tensor] : tensors) {
    kept.push_back(tensor.detach().contiguous());
    const auto type =
        std::find_if(types().begin(), types().end(), [&](const auto& row) { return row.first == kept.back().scalar_type(); });
    if (type == types().end())
      throw_error<FormatError>("{}: tensor {} has the type {}, which is not written", path.string(), name,
                               c10::toString(kept.back().scalar_type()));
    to_write.push_back({name, type->second, kept.back().sizes().vec(),
                        std::span(static_cast<const std::byte*>(kept.back().const_data_ptr()), kept.back().nbytes())});
  }
  write_safetensors(path, to_write, metadata);
}

NamedTensors load_tensors(const fs::path& path) {
  const SafetensorsFile file(path);
  NamedTensors tensors;
  for (const auto& [name, view] : file.tensors()) {
    const auto type = std::find_if(types().begin(), types().end(), [&](const auto& row) { return row.second == view.dtype; });
    if (type == types().end()) throw_error<FormatError>("{}: tensor {} has a type that is not read here", path.string(), name);
    torch::Tensor tensor = torch::empty(view.shape, type->first);
    if (!view.bytes.empty()) std::memcpy(tensor.data_ptr(), view.bytes.data(), view.bytes.size());
    tensors.emplace_back(name, tensor);
  }
  return tensors;
}

int64_t parameter_count(const torch::nn::Module& module) {
  int64_t count = 0;
  for (const torch::Tensor& parameter : module.parameters()) count += parameter.numel();
  return count;
}

}  // namespace lighten
