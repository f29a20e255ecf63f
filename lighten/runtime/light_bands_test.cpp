// Embedding and head in bands of rows.
#include <gtest/gtest.h>

#include <cstring>

#include "lighten/base/error.h"
#include "lighten/formats/safetensors.h"
#include "lighten/runtime/light_model.h"
#include "lighten/runtime/light_parts_test.h"
#include "lighten/runtime/model.h"

namespace lighten {
namespace {

using namespace test;

const std::string kDown = "model.layers.1.mlp.down_proj.weight";

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

}  // namespace
}  // namespace lighten
