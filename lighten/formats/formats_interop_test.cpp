// The C++ half of tests/interop/formats_interop.py, and npy_interop.py, which run these with LIGHTEN_INTEROP_DIR set. Without
// it they are skipped.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "lighten/base/error.h"
#include "lighten/formats/gguf.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/npy.h"
#include "lighten/formats/safetensors.h"
#include "lighten/formats/weights.h"

namespace lighten {
namespace {

class Interop : public testing::Test {
 protected:
  void SetUp() override {
    const char* folder = std::getenv("LIGHTEN_INTEROP_DIR");
    if (folder == nullptr || *folder == '\0') GTEST_SKIP() << "run by tests/interop/formats_interop.py";
    folder_ = folder;
  }

  std::vector<fs::path> files(const std::string& sub, const std::string& extension) const {
    std::vector<fs::path> found;
    if (fs::exists(folder_ / sub))
      for (const auto& entry : fs::directory_iterator(folder_ / sub))
        if (entry.path().extension() == extension) found.push_back(entry.path());
    return found;
  }

  fs::path folder_;
};

struct Dump {
  std::map<std::string, std::vector<float>> values;
  std::map<std::string, std::vector<int64_t>> shapes;

  void write(const fs::path& path) const {
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, numbers] : values)
      tensors.push_back({name, DType::f32, shapes.at(name), std::as_bytes(std::span(numbers))});
    write_safetensors(path, tensors);
  }
};

/// Two sums of the values' bits, modulo 2^64: plain, and weighted by position.
Json checksums(std::span<const float> values) {
  uint64_t plain = 0, weighted = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &values[i], 4);
    plain += bits;
    weighted += bits * static_cast<uint64_t>(i + 1);
  }
  return Json::array({plain, weighted});
}

TEST_F(Interop, GgufFromPython) {
  for (const fs::path& path : files("gguf", ".gguf")) {
    const GgufFile file(path);
    Dump dump;
    for (const GgufTensor& tensor : file.tensors()) {
      dump.values[tensor.name] = to_float(tensor, path.string());
      dump.shapes[tensor.name] = tensor.shape;
    }
    dump.write(path.string() + ".safetensors");
    write_file(path.string() + ".json", file.metadata().dump());
  }
}

TEST_F(Interop, SafetensorsFromPython) {
  for (const fs::path& path : files("safetensors", ".safetensors")) {
    const SafetensorsFile file(path);
    Dump dump;
    for (const auto& [name, tensor] : file.tensors()) {
      dump.values[name] = to_float(tensor, name, false);
      dump.shapes[name] = tensor.shape;
    }
    dump.write(path.string() + ".dump");
    write_file(path.string() + ".json", Json(file.metadata()).dump());
  }
}

TEST_F(Interop, SafetensorsForPython) {
  std::vector<std::byte> bytes(64);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i % 2);
  std::vector<TensorToWrite> tensors;
  for (const char* name :
       {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}) {
    const DType type = dtype_from_name(name, "test");
    tensors.push_back({name, type, {static_cast<int64_t>(bytes.size() / dtype_size(type))}, bytes});
  }
  tensors.push_back({"scalar", DType::f32, {}, std::span(bytes).first(4)});
  tensors.push_back({"empty", DType::f32, {0, 3}, {}});
  write_safetensors(folder_ / "from_cpp.safetensors", tensors, {{"format", "pt"}, {"note", "zwölf \"quoted\"\n"}});
}

TEST_F(Interop, GgufForPython) {
  const SafetensorsFile source(folder_ / "values.safetensors");
  const TensorView& view = source.at("values");
  const std::vector<float> values = to_float(view, "values");
  GgufMetadata metadata;
  metadata.set("general.architecture", "llama");
  metadata.set("test.bool", true);
  metadata.set("test.u32", uint32_t{4000000000});
  metadata.set("test.i32", int32_t{-5});
  metadata.set("test.u64", uint64_t{1} << 40);
  metadata.set("test.f32", 0.1f);
  metadata.set("test.texts", std::vector<std::string>{"a", "", "zwölf"});
  metadata.set("test.i32s", std::vector<int32_t>{1, -2, 3});
  metadata.set("test.f32s", std::vector<float>{0.5f, -1.5f});
  std::vector<std::vector<std::byte>> bytes;
  std::vector<GgufTensorToWrite> tensors;
  for (const GgufType type : {GgufType::f32, GgufType::f16, GgufType::bf16, GgufType::q4_0, GgufType::q4_1, GgufType::q5_0,
                              GgufType::q5_1, GgufType::q8_0})
    bytes.push_back(gguf_quantize(type, values));
  size_t i = 0;
  for (const GgufType type : {GgufType::f32, GgufType::f16, GgufType::bf16, GgufType::q4_0, GgufType::q4_1, GgufType::q5_0,
                              GgufType::q5_1, GgufType::q8_0})
    tensors.push_back({std::string(gguf_type_info(type)->name), view.shape, type, bytes[i++]});
  for (const uint32_t alignment : {32u, 64u})
    write_gguf(folder_ / fmt::format("from_cpp_{}.gguf", alignment), metadata, tensors, alignment);
}

/// models.txt names one model a line; model_N.json gets its configuration and, by canonical name, shape and checksums.
TEST_F(Interop, WeightsOfModels) {
  if (!fs::exists(folder_ / "models.txt")) GTEST_SKIP() << "no models";
  std::istringstream lines(read_file(folder_ / "models.txt"));
  std::string line;
  for (int number = 0; std::getline(lines, line); ++number) {
    const auto source = open_weights(line);
    Json tensors = Json::object();
    int low_bit = 0;
    for (const StoredTensor& tensor : source->tensors()) {
      const std::vector<float> values = source->read(tensor.name);
      tensors[tensor.name] = {{"shape", tensor.shape}, {"sums", checksums(values)}};
      const auto quantized = source->read_quantized(tensor.name);
      if (!quantized) continue;
      ++low_bit;
      const std::vector<float> again = dequantize(*quantized);
      ASSERT_EQ(0, std::memcmp(values.data(), again.data(), values.size() * sizeof(float))) << line << " " << tensor.name;
    }
    const Json result{{"config", to_hf_config(source->config())},
                      {"low_bit", low_bit},
                      {"parameters", parameter_count(source->config())},
                      {"container", source->container()},
                      {"tensors", tensors}};
    write_file(folder_ / fmt::format("model_{}.json", number), result.dump());
  }
}

/// Every array again, as it was and in float32.
TEST_F(Interop, Npy) {
  for (const fs::path& path : files("npy", ".npy")) {
    const NpyFile file(path);
    write_npy(path.string() + ".same", file.dtype(), file.shape(), file.tensor().bytes);
    write_npy<float>(path.string() + ".float", file.shape(), file.to_float(false));
  }
}

TEST_F(Interop, Configurations) {
  for (const fs::path& path : files("configs", ".json")) {
    const ModelConfig config = parse_hf_config(formats::parse_json(read_file(path), path.string()), path.string());
    Json expected = Json::object();
    for (const TensorShape& tensor : expected_tensors(config)) expected[tensor.name] = tensor.shape;
    write_file(path.string() + ".out", Json{{"config", to_hf_config(config)}, {"tensors", expected}}.dump());
  }
}

}  // namespace
}  // namespace lighten
