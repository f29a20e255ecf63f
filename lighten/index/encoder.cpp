#include "lighten/index/encoder.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "lighten/base/error.h"
#include "lighten/formats/safetensors.h"

namespace lighten {
namespace {

constexpr int64_t kRowsAtOnce = 1024;
constexpr int64_t kLargestWidth = 1 << 16;

void normalise_rows(std::vector<float>& x, int64_t width) {
  for (size_t row = 0; row < x.size(); row += static_cast<size_t>(width)) {
    double square = 0;
    for (int64_t d = 0; d < width; ++d) square += static_cast<double>(x[row + d]) * x[row + d];
    const auto scale = square > 0 ? static_cast<float>(1 / std::sqrt(square)) : 0.0f;
    for (int64_t d = 0; d < width; ++d) x[row + d] *= scale;
  }
}

std::string layer_name(const char* net, size_t j, size_t k, const char* part) {
  return fmt::format("{}.{}.{}.{}", net, j, k, part);
}

DenseNet load_net(const SafetensorsFile& file, const char* name, size_t j, int64_t inputs, int64_t outputs) {
  DenseNet net;
  const std::string where = file.file().path().string();
  for (size_t k = 0; file.tensors().contains(layer_name(name, j, k, "weight")); ++k) {
    const TensorView& weight = file.at(layer_name(name, j, k, "weight"));
    const TensorView& bias = file.at(layer_name(name, j, k, "bias"));
    const int64_t width = k == 0 ? inputs : net.back().outputs;
    if (weight.shape.size() != 2 || weight.shape[1] != width || weight.shape[0] < 1 || weight.shape[0] > kLargestWidth ||
        bias.shape != std::vector<int64_t>{weight.shape[0]})
      throw_error<FormatError>("{}: {} and its bias do not fit {} inputs", where, layer_name(name, j, k, "weight"), width);
    net.push_back({width, weight.shape[0], to_float(weight, where + ": " + layer_name(name, j, k, "weight")),
                   to_float(bias, where + ": " + layer_name(name, j, k, "bias"))});
  }
  if ((net.empty() ? inputs : net.back().outputs) != outputs)
    throw_error<FormatError>("{}: {}.{} does not end in {} outputs", where, name, j, outputs);
  return net;
}

int64_t number(const std::map<std::string, std::string>& metadata, const std::string& key, int64_t low, int64_t high,
               const std::string& file) {
  const auto it = metadata.find(key);
  int64_t value = low - 1;
  if (it != metadata.end() && it->second.size() < 12 && it->second.find_first_not_of("0123456789") == std::string::npos &&
      !it->second.empty())
    value = std::stoll(it->second);
  if (value < low || value > high)
    throw_error<FormatError>("{}: metadata field {} must be a number from {} to {}; this is no encoder of an index", file, key,
                             low, high);
  return value;
}

}  // namespace

CodeEncoder sign_encoder(int64_t dimensions) { return {"sign", dimensions, {dimensions, 0}, false, {DenseNet{}}, {}}; }

void save_encoder(const fs::path& path, const CodeEncoder& encoder) {
  std::vector<TensorToWrite> tensors;
  const auto add = [&](const char* name, const std::vector<DenseNet>& nets) {
    for (size_t j = 0; j < nets.size(); ++j)
      for (size_t k = 0; k < nets[j].size(); ++k) {
        const DenseLayer& layer = nets[j][k];
        tensors.push_back({layer_name(name, j, k, "weight"),
                           DType::f32,
                           {layer.outputs, layer.inputs},
                           std::as_bytes(std::span(layer.weight))});
        tensors.push_back({layer_name(name, j, k, "bias"), DType::f32, {layer.outputs}, std::as_bytes(std::span(layer.bias))});
      }
  };
  add("binarizer", encoder.binarizers);
  add("reconstructor", encoder.reconstructors);
  write_safetensors(path, tensors,
                    {{"method", encoder.method},
                     {"inputs", std::to_string(encoder.inputs)},
                     {"dimensions", std::to_string(encoder.shape.dimensions)},
                     {"loops", std::to_string(encoder.shape.loops)},
                     {"normalise", encoder.normalise ? "1" : "0"}});
}

CodeEncoder load_encoder(const fs::path& path) {
  const SafetensorsFile file(path);
  const std::string name = path.string();
  const auto& metadata = file.metadata();
  CodeEncoder encoder;
  const auto method = metadata.find("method");
  encoder.method = method == metadata.end() ? "" : method->second;
  encoder.inputs = number(metadata, "inputs", 1, kLargestWidth, name);
  encoder.shape = {number(metadata, "dimensions", 1, kLargestWidth, name),
                   static_cast<int>(number(metadata, "loops", 0, 3, name))};
  encoder.normalise = number(metadata, "normalise", 0, 1, name) == 1;
  for (size_t j = 0; j <= static_cast<size_t>(encoder.shape.loops); ++j) {
    encoder.binarizers.push_back(load_net(file, "binarizer", j, encoder.inputs, encoder.shape.dimensions));
    if (j > 0)
      encoder.reconstructors.push_back(load_net(file, "reconstructor", j - 1, encoder.shape.dimensions, encoder.inputs));
  }
  return encoder;
}

CodeWriter::CodeWriter(const CodeEncoder& encoder)
    : format_(encoder.format()), inputs_(encoder.inputs), normalise_(encoder.normalise) {
  for (const DenseNet& net : encoder.binarizers) binarizers_.push_back(pack(net));
  for (const DenseNet& net : encoder.reconstructors) reconstructors_.push_back(pack(net));
}

CodeWriter::PackedNet CodeWriter::pack(const DenseNet& net) {
  PackedNet packed;
  for (const DenseLayer& layer : net) {
    Packed& one = packed.emplace_back();
    one.spec = {.bits = 32, .rows = layer.outputs, .columns = layer.inputs};
    one.bytes.resize(packed_bytes(one.spec) + 64);
    one.offset = (64 - reinterpret_cast<uintptr_t>(one.bytes.data()) % 64) % 64;
    pack_float(one.spec, layer.weight.data(), one.bytes.data() + one.offset);
    one.bias = layer.bias;
  }
  return packed;
}

std::vector<float> CodeWriter::apply(const PackedNet& net, const std::vector<float>& x, int64_t count, ThreadPool& pool) {
  std::vector<float> values = x;
  for (size_t k = 0; k < net.size(); ++k) {
    const LinearSpec& spec = net[k].spec;
    std::vector<float> next(static_cast<size_t>(count * spec.rows));
    linear(spec, net[k].bytes.data() + net[k].offset, values.data(), spec.columns, count, next.data(), spec.rows,
           net[k].bias.data(), Arithmetic::exact, pool);
    if (k + 1 < net.size())
      for (float& value : next) value = std::max(value, 0.0f);
    values = std::move(next);
  }
  return values;
}

void CodeWriter::encode(const float* x, int64_t count, uint8_t* rows, ThreadPool& pool) const {
  const int64_t m = format_.shape.dimensions;
  for (int64_t begin = 0; begin < count; begin += kRowsAtOnce) {
    const int64_t n = std::min(kRowsAtOnce, count - begin);
    std::vector<float> f(x + begin * inputs_, x + (begin + n) * inputs_);
    if (normalise_) normalise_rows(f, inputs_);
    std::vector<uint8_t> levels(static_cast<size_t>(n * m), 0);
    std::vector<float> b(static_cast<size_t>(n * m), 0.0f);
    for (size_t j = 0; j < binarizers_.size(); ++j) {
      std::vector<float> residual = f;
      if (j > 0) {
        std::vector<float> guess = apply(reconstructors_[j - 1], b, n, pool);
        normalise_rows(guess, inputs_);
        for (size_t i = 0; i < residual.size(); ++i) residual[i] -= guess[i];
      }
      const std::vector<float> sign = apply(binarizers_[j], residual, n, pool);
      const auto step = static_cast<float>(std::ldexp(1.0, -static_cast<int>(j)));
      for (size_t i = 0; i < sign.size(); ++i) {
        const bool positive = sign[i] >= 0;
        levels[i] = static_cast<uint8_t>(levels[i] << 1 | (positive ? 1 : 0));
        b[i] += positive ? step : -step;
      }
    }
    for (int64_t i = 0; i < n; ++i) row_of_levels(format_, levels.data() + i * m, rows + (begin + i) * format_.row_bytes());
  }
}

}  // namespace lighten
