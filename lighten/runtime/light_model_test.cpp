#include "lighten/runtime/light_model.h"
#include "lighten/runtime/aligned_bytes.h"
#include "lighten/runtime/light_format.h"

#include <gtest/gtest.h>

#include <cstring>

#include "lighten/base/error.h"
#include "lighten/formats/safetensors.h"
#include "lighten/runtime/model.h"
#include "lighten/runtime/random_codes_test.h"
#include "lighten/runtime/scripted_model_test.h"
#include "lighten/runtime/tiny_model_test.h"

namespace lighten {
namespace {

using namespace test;

const std::string kDown = "model.layers.1.mlp.down_proj.weight";

/// A light model in pieces: every bit width and kind of zero point among its linears, embedding in 4 bits (or float).
struct LightParts {
  ModelConfig config;
  std::map<std::string, QuantTensor> quantized;
  Tensors floats;
};

LightParts random_parts(const ModelConfig& config, uint64_t seed, bool float_embedding = false) {
  constexpr std::pair<int, ZeroKind> kinds[] = {{2, ZeroKind::integer},   {3, ZeroKind::integer}, {4, ZeroKind::minimum},
                                                {8, ZeroKind::symmetric}, {3, ZeroKind::minimum}, {4, ZeroKind::symmetric},
                                                {8, ZeroKind::integer}};
  Random random(seed);
  LightParts parts{config, {}, {}};
  size_t next = 0;
  for (auto& [name, values] : random_tensors(config, seed)) {
    const bool embedding = name == "model.embed_tokens.weight" || name == "lm_head.weight";
    const bool norm_or_bias = name.find("norm") != std::string::npos || name.ends_with(".bias");
    if (norm_or_bias || (embedding && float_embedding)) {
      parts.floats[name] = values;
      continue;
    }
    const auto& [bits, zero] = embedding ? std::pair{4, ZeroKind::integer} : kinds[next++ % std::size(kinds)];
    const int64_t group = next % 3 == 0 ? 0 : next % 3 == 1 ? 32 : 64;
    for (const TensorShape& tensor : expected_tensors(config))
      if (tensor.name == name)
        parts.quantized[name] = random_codes(tensor.shape[0], tensor.shape[1], bits, group, zero, random);
  }
  return parts;
}

const std::vector<std::string> kTokens{"a", "b"};

void write_pieces(LightWriter& writer, const LightParts& parts, const std::vector<std::string>& order) {
  for (const std::string& piece : order) {
    std::map<std::string, QuantTensor> quantized;
    Tensors floats;
    const auto belongs = [&](const std::string& name) {
      return piece == "ends" ? name.find(".layers.") == std::string::npos
                             : name.find(".layers." + piece.substr(6) + ".") != std::string::npos;
    };
    for (const auto& [name, tensor] : parts.quantized)
      if (belongs(name)) quantized[name] = tensor;
    for (const auto& [name, tensor] : parts.floats)
      if (belongs(name)) floats[name] = tensor;
    writer.add_piece(piece, quantized, floats);
  }
}

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

/// Embedding and head of random_parts() anew: the rows in random order, in bands of 3, 8 and 4 bits.
std::map<std::string, BandedTensor> random_bands(LightParts& parts, uint64_t seed) {
  Random random(seed);
  std::map<std::string, BandedTensor> banded;
  for (const TensorShape& tensor : expected_tensors(parts.config)) {
    if (tensor.name != "model.embed_tokens.weight" && tensor.name != "lm_head.weight") continue;
    parts.quantized.erase(tensor.name);
    const int64_t rows = tensor.shape[0], columns = tensor.shape[1];
    BandedTensor& bands = banded[tensor.name];
    bands.bands = {random_codes(5, columns, 3, 32, ZeroKind::integer, random),
                   random_codes(rows - 22, columns, 8, 32, ZeroKind::integer, random),
                   random_codes(17, columns, 4, 32, ZeroKind::integer, random)};
    for (int32_t r = 0; r < static_cast<int32_t>(rows); ++r) bands.places.push_back(r);
    random.shuffle(bands.places);
  }
  return banded;
}

void write_banded(const fs::path& folder, const LightParts& parts, const std::map<std::string, BandedTensor>& banded) {
  LightWriter writer(folder, parts.config);
  write_pieces(writer, parts, {"block-0", "block-1", "block-2"});
  Tensors floats;
  for (const auto& [name, values] : parts.floats)
    if (name.find(".layers.") == std::string::npos) floats[name] = values;
  writer.add_piece("ends", {}, floats, banded);
  writer.finish({{"name", "test"}}, PieceTokenizer(kTokens), "a template");
}

TEST(LightModel, BandsOfRowsRunLikeOneMatrixOfTheirValues) {
  for (const ModelConfig& config : tiny_configs()) {
    LightParts parts = random_parts(config, 12);
    const auto banded = random_bands(parts, 13);
    const fs::path light_folder = scratch("light-banded"), float_folder = scratch("light-banded-float");
    write_banded(light_folder, parts, banded);
    const LightModel light(light_folder);
    Tensors tensors = parts.floats;
    if (config.norm_plus_one)
      for (auto& [name, values] : tensors)
        if (name.find("norm") != std::string::npos)
          for (float& value : values) value -= 1;
    for (const auto& [name, tensor] : parts.quantized) tensors[name] = dequantize(tensor);
    for (const auto& [name, tensor] : banded) {
      ASSERT_TRUE(light.has(name));
      EXPECT_FALSE(light.packed().contains(name));
      EXPECT_EQ(light.banded().at(name).places, tensor.places);
      tensors[name] = light.read(name);
      EXPECT_EQ(tensors[name], dequantize(tensor));
      const std::vector<float> second = dequantize(tensor.bands[1]);
      const auto columns = static_cast<size_t>(tensor.bands[1].columns);
      for (size_t row = 0; row < tensor.places.size(); ++row) {  // by hand where a row of the second band lies
        const int64_t place = tensor.places[row] - tensor.bands[0].rows;
        if (place < 0 || place >= tensor.bands[1].rows) continue;
        for (size_t c = 0; c < columns; ++c)
          ASSERT_EQ(tensors[name][row * columns + c], second[static_cast<size_t>(place) * columns + c]);
      }
    }
    write_hf_folder(float_folder, config, tensors);
    const std::vector<int32_t> ids = random_ids(config, 20, 3);
    const auto vocab = static_cast<size_t>(config.vocab_size);
    // Rounded activations: two texts in one pass give the bits that each gives alone.
    const auto rounded = RuntimeModel::load(light_folder, {.threads = 2});
    const std::vector<int32_t> texts[2] = {ids, random_ids(config, 7, 4)};
    const std::unique_ptr<KvCache> caches[2] = {rounded->new_cache(), rounded->new_cache()};
    std::vector<float> together(5 * vocab), alone(3 * vocab);
    const BatchStep steps[2] = {{caches[0].get(), texts[0], 2}, {caches[1].get(), texts[1], 3}};
    rounded->forward_batch(steps, together.data());
    for (const size_t text : {0u, 1u}) {
      const auto cache = rounded->new_cache();
      rounded->forward(*cache, texts[text], alone.data(), steps[text].logits_for);
      const auto begin = together.begin() + static_cast<std::ptrdiff_t>(text == 0 ? 0 : 2 * vocab);
      EXPECT_TRUE(std::equal(alone.begin(), alone.begin() + static_cast<std::ptrdiff_t>((text + 2) * vocab), begin)) << text;
    }
    std::vector<float> logits[2];
    for (const bool is_light : {false, true}) {
      const auto model = RuntimeModel::load(is_light ? light_folder : float_folder,
                                            {.threads = 2, .exact = true, .storage = FloatStorage::f32});
      const auto cache = model->new_cache();
      logits[is_light].resize(ids.size() * static_cast<size_t>(config.vocab_size));
      model->forward(*cache, ids, logits[is_light].data(), 20);
    }
    for (size_t i = 0; i < logits[0].size(); ++i) ASSERT_NEAR(logits[1][i], logits[0][i], 2e-5 * 20) << "logit " << i;
  }
}

TEST(LightModel, DamagedBandsAreRefused) {
  LightParts parts = random_parts(tiny_llama_linear(), 14);
  const std::string name = "model.embed_tokens.weight";
  const auto whole = random_bands(parts, 15);
  const auto refused = [&](const BandedTensor& bands) {
    EXPECT_THROW(write_banded(scratch("light-bad-bands"), parts, {{name, bands}}), ModelError);
  };
  BandedTensor bands = whole.at(name);
  bands.places[3] = bands.places[4];
  refused(bands);
  bands = whole.at(name);
  bands.bands.pop_back();
  refused(bands);
  bands.bands.clear();
  refused(bands);
  LightWriter writer(scratch("light-banded-linear"), parts.config);
  EXPECT_THROW(writer.add_piece("x", {}, {}, {{kDown, whole.at(name)}}), ModelError);

  const fs::path folder = scratch("light-damaged-bands");
  write_banded(folder, parts, whole);
  const std::string weights = read_file(folder / "model.safetensors"), config = read_file(folder / "config.json");
  const auto expect_refused = [&](const std::string& word) {
    try {
      LightModel{folder};
      ADD_FAILURE() << "opened, but should name " << word;
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  };
  size_t places;
  {
    const SafetensorsFile file(folder / "model.safetensors");
    places = static_cast<size_t>(file.at(name + ".places").bytes.data() - file.file().data());
  }
  for (const int32_t wrong : {-1, 96, whole.at(name).places[1]}) {  // outside, outside, twice
    std::string changed = weights;
    std::memcpy(changed.data() + places, &wrong, sizeof(wrong));
    write_file(folder / "model.safetensors", changed);
    expect_refused(name + ".places");
  }
  write_file(folder / "model.safetensors", weights);
  EXPECT_EQ(Json::parse(config)["lighten"]["format_version"], 2);
  for (const auto& [rows, word] : {std::pair(4, "95 rows"), {6, "band2"}, {1000, "band0"}}) {
    Json json = Json::parse(config);
    json["lighten"]["tensors"][name + ".band0"]["rows"] = rows;
    write_file(folder / "config.json", json.dump());
    expect_refused(word);
  }
  Json json = Json::parse(config);
  json["lighten"]["tensors"].erase(name + ".band1");
  write_file(folder / "config.json", json.dump());
  expect_refused("band1");
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
