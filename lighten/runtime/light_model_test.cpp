#include "lighten/runtime/light_model.h"
#include "lighten/runtime/aligned_bytes.h"
#include "lighten/runtime/light_format.h"

#include <gtest/gtest.h>

#include <cstring>

#include "lighten/base/error.h"
#include "lighten/formats/safetensors.h"
#include "lighten/runtime/light_parts_test.h"
#include "lighten/runtime/model.h"
#include "lighten/runtime/scripted_model_test.h"
#include "lighten/runtime/tiny_model_test.h"

namespace lighten {
namespace {

using namespace test;

const std::string kDown = "model.layers.1.mlp.down_proj.weight";

void write_light(const fs::path& folder, const LightParts& parts) {
  LightWriter writer(folder, parts.config);
  write_pieces(writer, parts, {"block-0", "block-1", "block-2", "ends"});
  writer.finish({{"name", "test"}}, PieceTokenizer(kTokens), "a template");
}

void expect_equal(const QuantTensor& got, const QuantTensor& want, const std::string& name) {
  EXPECT_EQ(got.bits, want.bits) << name;
  EXPECT_EQ(got.zero, want.zero) << name;
  EXPECT_EQ(got.group_size, want.group_size) << name;
  EXPECT_EQ(got.codes, want.codes) << name;
  EXPECT_EQ(got.scales, want.scales) << name;
  EXPECT_EQ(got.zero_points, want.zero_points) << name;
  EXPECT_EQ(got.minimums, want.minimums) << name;
}

TEST(LightModel, WrittenAndMappedItHoldsTheSameTensors) {
  for (const ModelConfig& config : tiny_configs()) {
    const LightParts parts = random_parts(config, 1);
    const fs::path folder = scratch("light-round-trip");
    write_light(folder, parts);
    const LightModel light(folder);
    EXPECT_EQ(to_hf_config(light.config()), to_hf_config(config));
    EXPECT_EQ(light.method(), (Json{{"name", "test"}}));
    EXPECT_EQ(light.chat_template(), "a template");
    EXPECT_FALSE(fs::exists(folder / "pieces"));
    EXPECT_EQ(light.packed().size(), parts.quantized.size());
    uint64_t bytes = 0;
    for (const auto& [name, tensor] : parts.quantized) {
      ASSERT_TRUE(light.has(name));
      expect_equal(unpack(light.packed().at(name)), tensor, name);
      EXPECT_EQ(light.read(name), dequantize(tensor)) << name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(light.packed().at(name).data) % 64, 0u);
      bytes += packed_bytes(light.packed().at(name).spec);
    }
    for (const auto& [name, values] : parts.floats) {
      EXPECT_EQ(light.read(name), values) << name;
      bytes += values.size() * sizeof(float);
    }
    EXPECT_EQ(light.tensor_bytes(), bytes);
    EXPECT_EQ(light.size_on_disk(), size_on_disk(folder));
    EXPECT_FALSE(light.has("lm_head.bias"));
  }
}

TEST(LightModel, RunsLikeTheFloatModelOfItsDequantizedWeights) {
  for (const ModelConfig& config : tiny_configs()) {
    const LightParts parts = random_parts(config, 2);
    const fs::path light_folder = scratch("light-run"), float_folder = scratch("light-run-float");
    write_light(light_folder, parts);
    Tensors tensors = parts.floats;
    if (config.norm_plus_one)  // the light model stores the multiplier, the Hugging Face folder that less one
      for (auto& [name, values] : tensors)
        if (name.find("norm") != std::string::npos)
          for (float& value : values) value -= 1;
    for (const auto& [name, tensor] : parts.quantized) tensors[name] = dequantize(tensor);
    write_hf_folder(float_folder, config, tensors);

    std::vector<float> logits[2];
    const std::vector<int32_t> ids = random_ids(config, 20, 3);
    for (const bool light : {false, true}) {
      const auto model =
          RuntimeModel::load(light ? light_folder : float_folder, {.threads = 2, .exact = true, .storage = FloatStorage::f32});
      const auto cache = model->new_cache();
      logits[light].resize(ids.size() * 96);
      model->forward(*cache, ids, logits[light].data(), 20);
    }
    for (size_t i = 0; i < logits[0].size(); ++i) ASSERT_NEAR(logits[1][i], logits[0][i], 2e-5 * 20) << "logit " << i;
  }
}

TEST(LightModel, AFloatEmbeddingIsKeptInSixteenBits) {
  LightParts parts = random_parts(tiny_qwen3(), 4, true);
  const std::string name = "model.embed_tokens.weight";
  const fs::path folder = scratch("light-float-embedding");
  write_light(folder, parts);
  EXPECT_EQ(LightModel(folder).packed().at(name).spec.bits, 16);
  const std::vector<float> got = LightModel(folder).read(name);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], round_to_half(parts.floats[name][i]));

  parts.floats[name][5] = 1e6f;  // beyond binary16: bfloat16 is used
  fs::remove_all(folder);
  write_light(folder, parts);
  EXPECT_TRUE(LightModel(folder).packed().at(name).spec.bfloat);
  EXPECT_NEAR(LightModel(folder).read(name)[5], 1e6f, 4e3f);
}

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) files[entry.path().filename()] = read_file(entry.path());
  return files;
}

TEST(LightWriter, SameInputsGiveEqualBytesWhateverTheOrderOfWork) {
  const LightParts parts = random_parts(tiny_gemma3(), 5);
  const fs::path straight = scratch("light-straight"), resumed = scratch("light-resumed");
  write_light(straight, parts);
  {
    LightWriter writer(resumed, parts.config);
    write_pieces(writer, parts, {"ends", "block-2"});
    EXPECT_TRUE(writer.has_piece("block-2"));
    EXPECT_FALSE(writer.has_piece("block-0"));
    write_file(resumed / "pieces/block-1.safetensors", "half a fil");
    EXPECT_FALSE(writer.has_piece("block-1"));
  }
  LightWriter writer(resumed, parts.config);
  EXPECT_TRUE(writer.has_piece("ends"));
  write_pieces(writer, parts, {"block-1", "block-0"});
  writer.finish({{"name", "test"}}, PieceTokenizer(kTokens), "a template");
  EXPECT_EQ(contents(resumed), contents(straight));
}

TEST(LightWriter, RefusesWhatDoesNotFitTheModel) {
  const LightParts parts = random_parts(tiny_llama_linear(), 6);
  const fs::path folder = scratch("light-refuse");
  LightWriter writer(folder, parts.config);
  Random random(1);
  EXPECT_THROW(writer.add_piece("x", {{kDown, random_codes(64, 64, 4, 32, ZeroKind::integer, random)}}, {}), ModelError);
  EXPECT_THROW(writer.add_piece("x", {{"model.unknown.weight", random_codes(64, 64, 4, 32, ZeroKind::integer, random)}}, {}),
               ModelError);
  EXPECT_THROW(writer.add_piece("x", {}, {{"model.norm.weight", std::vector<float>(63)}}), ModelError);
  EXPECT_THROW(writer.add_piece("x", {}, {{"model.norm.weight", std::vector<float>(64, NAN)}}), ModelError);
  EXPECT_THROW(writer.add_piece("../x", {}, {}), OptionError);
  EXPECT_FALSE(writer.has_piece("x"));
  write_pieces(writer, parts, {"block-0", "block-1", "ends"});
  try {
    writer.finish({}, PieceTokenizer(kTokens), "");
    FAIL() << "a block is missing";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("model.layers.2."), std::string::npos) << error.what();
  }
  EXPECT_TRUE(writer.has_piece("block-0")) << "the finished pieces are still there";
}

// ---- damaged folders

class DamagedLightModel : public testing::Test {
 protected:
  void SetUp() override {
    parts_ = random_parts(tiny_llama_linear(), 7);
    folder_ = scratch("light-damaged");
    write_light(folder_, parts_);
    config_ = Json::parse(read_file(folder_ / "config.json"));
    weights_ = read_file(folder_ / "model.safetensors");
  }
  void write_config(const Json& config) { write_file(folder_ / "config.json", config.dump()); }
  /// Opening must fail with an error of Lighten's that names every one of `words`.
  void expect_refused(const std::vector<std::string>& words) {
    try {
      LightModel light(folder_);
      ADD_FAILURE() << "opened, but should name " << words[0];
    } catch (const Error& error) {
      for (const std::string& word : words)
        EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what() << " names no " << word;
    }
  }
  LightParts parts_;
  fs::path folder_;
  Json config_;
  std::string weights_;
};

TEST_F(DamagedLightModel, CutFilesAreRefused) {
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, weights_.size() / 2, weights_.size() - 1}) {
    write_file(folder_ / "model.safetensors", weights_.substr(0, size));
    expect_refused({"model.safetensors"});
  }
  fs::remove(folder_ / "model.safetensors");
  expect_refused({"model.safetensors"});
  write_file(folder_ / "model.safetensors", weights_);
  const std::string text = config_.dump();
  for (const size_t size : {size_t{0}, text.size() / 2, text.size() - 1}) {
    write_file(folder_ / "config.json", text.substr(0, size));
    expect_refused({"config.json"});
  }
}

TEST_F(DamagedLightModel, OtherVersionsAreRefusedByName) {
  Json config = config_;
  config["lighten"]["format_version"] = 99;
  write_config(config);
  expect_refused({"config.json", "format_version", "99"});
  config = config_;
  config["lighten"]["layout_version"] = 0;
  write_config(config);
  expect_refused({"config.json", "layout_version", "quantize the model again"});
  config["lighten"].erase("layout_version");
  write_config(config);
  expect_refused({"layout_version"});
  config.erase("lighten");
  write_config(config);
  expect_refused({"config.json", "not a light model"});
}

TEST_F(DamagedLightModel, DescriptionsThatDoNotFitAreRefused) {
  const std::vector<std::pair<Json, std::string>> changes{
      {{{"bits", 5}}, "5 bits"},
      {{{"bits", "4"}}, "bits"},
      {{{"rows", 65}}, "shape"},
      {{{"rows", -1}}, kDown},
      {{{"columns", 1ll << 62}}, kDown},
      {{{"group_size", 48}}, "48"},
      {{{"group_size", -32}}, kDown},
      {{{"zero", "signed"}}, "zero"},
      {{{"type", "vectors"}}, "vectors"},
      {{{"type", "scalar"}, {"bits", 8}, {"zero", "minimum"}, {"group_size", 32}}, "bytes"}};
  for (const auto& [change, word] : changes) {
    Json config = config_;
    config["lighten"]["tensors"][kDown].update(change);
    write_config(config);
    expect_refused({kDown, word});
  }
  Json config = config_;
  config["lighten"]["tensors"].erase(kDown);
  write_config(config);
  expect_refused({"config.json", kDown});
  config["lighten"]["tensors"]["model.ghost.weight"] = config_["lighten"]["tensors"][kDown];
  config["lighten"]["tensors"][kDown] = config_["lighten"]["tensors"][kDown];
  write_config(config);
  expect_refused({"config.json", "model.ghost.weight", "does not belong"});
  config["lighten"]["tensors"] = 3;
  write_config(config);
  expect_refused({"lighten.tensors"});
}

TEST_F(DamagedLightModel, NormsOfAnotherKindAreRefused) {
  for (const Json& norms : {Json("offset"), Json(nullptr), Json(1)}) {
    Json config = config_;
    config["lighten"]["norms"] = norms;
    write_config(config);
    expect_refused({"config.json", "lighten.norms", "multiplier"});
  }
  Json config = config_;
  config["lighten"].erase("norms");
  write_config(config);
  expect_refused({"lighten.norms"});
}

TEST_F(DamagedLightModel, TheChatTemplateMayBeOneOfAList) {
  const Json list = Json::array({{{"name", "tool"}, {"template", "x"}}, {{"name", "default"}, {"template", "y"}}});
  write_file(folder_ / "tokenizer_config.json", Json{{"chat_template", list}}.dump());
  EXPECT_EQ(LightModel(folder_).chat_template(), "y");
  write_file(folder_ / "tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_THROW(LightModel(folder_).chat_template(), FormatError);
}

TEST_F(DamagedLightModel, ModelsOfAnotherShapeAreRefused) {
  Json config = config_;
  config["num_hidden_layers"] = 4;
  write_config(config);
  expect_refused({"model.safetensors", "model.layers.3.", "missing"});
  config["num_hidden_layers"] = 2;
  write_config(config);
  expect_refused({"model.safetensors", "model.layers.2.", "does not belong"});
  config = config_;
  config["hidden_size"] = 32;
  write_config(config);
  expect_refused({"model.embed_tokens.weight"});
}

TEST_F(DamagedLightModel, ScalesAndNormsThatAreNotFiniteAreRefused) {
  // The same codes packed with one infinite scale show where in the blob scales lie.
  const LinearSpec spec = linear_spec(parts_.quantized.at(kDown));
  QuantTensor broken = parts_.quantized.at(kDown);
  broken.scales[3] = 0x7c00;
  std::vector<std::byte> blob(packed_bytes(spec) + 64);
  std::byte* aligned = blob.data() + (64 - reinterpret_cast<uintptr_t>(blob.data()) % 64) % 64;
  pack_linear(spec, broken.codes.data(), broken.scales.data(), broken.zero_points.empty() ? nullptr : broken.zero_points.data(),
              broken.minimums.empty() ? nullptr : broken.minimums.data(), aligned);
  size_t offset;
  {
    const SafetensorsFile file(folder_ / "model.safetensors");
    offset = static_cast<size_t>(file.at(kDown).bytes.data() - file.file().data());
  }
  std::string weights = weights_;
  std::memcpy(weights.data() + offset, aligned, packed_bytes(spec));
  write_file(folder_ / "model.safetensors", weights);
  expect_refused({"model.safetensors", kDown, "scale"});

  weights = weights_;
  const float nan = NAN;
  std::memcpy(weights.data() + weights.size() - 4, &nan, 4);  // the last float tensor
  write_file(folder_ / "model.safetensors", weights);
  expect_refused({"model.safetensors", "norm"});
}

TEST_F(DamagedLightModel, FloatMatricesThatAreNotFiniteAreRefused) {
  const std::string name = "model.embed_tokens.weight";
  for (const bool wide : {false, true}) {  // binary16, bfloat16
    LightParts parts = random_parts(tiny_llama_linear(), 9, true);
    if (wide) parts.floats[name][0] = 1e6f;
    write_light(folder_, parts);
    const std::string whole = read_file(folder_ / "model.safetensors");
    size_t begin, size;
    {
      const SafetensorsFile file(folder_ / "model.safetensors");
      begin = static_cast<size_t>(file.at(name).bytes.data() - file.file().data());
      size = file.at(name).bytes.size();
    }
    for (const uint16_t bits : {uint16_t{0x7c00}, uint16_t{0xfe01}, uint16_t{0x7f80}, uint16_t{0xffff}})
      for (const size_t at : {size_t{0}, size / 2, size - 2}) {
        std::string weights = whole;
        std::memcpy(weights.data() + begin + at, &bits, 2);
        write_file(folder_ / "model.safetensors", weights);
        const uint16_t exponent = wide ? 0x7f80 : 0x7c00;
        if ((bits & exponent) == exponent)
          expect_refused({"model.safetensors", name, "not finite"});
        else
          EXPECT_NO_THROW(LightModel{folder_});
      }
    write_file(folder_ / "model.safetensors", whole);
    EXPECT_NO_THROW(LightModel{folder_});
    fs::remove_all(folder_);
  }
}

TEST_F(DamagedLightModel, RandomDamageToTheDescriptionNeverGetsPastTheChecks) {
  const std::string text = config_.dump();
  Random random(8);
  int opened = 0;
  for (int i = 0; i < 400; ++i) {
    std::string changed = text;
    for (uint64_t flips = 1 + random.below(3); flips > 0; --flips)
      changed[random.below(changed.size())] = static_cast<char>(random.below(96) + 32);
    write_file(folder_ / "config.json", changed);
    try {
      const LightModel light(folder_);
      ++opened;  // a changed name or epsilon is still a model
    } catch (const Error&) {
    }
  }
  EXPECT_LT(opened, 300);
}

}  // namespace
}  // namespace lighten
