#include "lighten/formats/weights.h"

#include <cmath>
#include <cstring>

#include "lighten/base/random.h"
#include "lighten/formats/gguf.h"
#include "lighten/formats/safetensors.h"
#include "lighten/formats/test_files.h"
#include "lighten/formats/weight_sources.h"

namespace lighten {
namespace {

using formats::contains;
using formats::message_of;
using formats::put;
using formats::TemporaryFolder;

Json tiny_config(const std::string& type) {
  Json json = Json::parse(R"({"vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": true, "query_pre_attn_scalar": 16,
    "max_position_embeddings": 128, "eos_token_id": 2, "bos_token_id": 1})");
  json["model_type"] = type;
  return json;
}

using Tensors = std::map<std::string, std::vector<float>>;

Tensors random_tensors(const ModelConfig& config) {
  Random random(11);
  Tensors tensors;
  for (const TensorShape& tensor : expected_tensors(config)) {
    int64_t count = 1;
    for (const int64_t size : tensor.shape) count *= size;
    for (int64_t i = 0; i < count; ++i) tensors[tensor.name].push_back(static_cast<float>(random.normal()));
  }
  return tensors;
}

/// Writes a Hugging Face folder; `change` may spoil what is written.
template <typename Change>
void write_folder(const fs::path& folder, const Json& config, Change change) {
  const ModelConfig parsed = parse_hf_config(config, "test");
  const Tensors values = random_tensors(parsed);
  std::vector<TensorToWrite> tensors;
  for (const TensorShape& tensor : expected_tensors(parsed))
    tensors.push_back({tensor.name, DType::f32, tensor.shape, std::as_bytes(std::span(values.at(tensor.name)))});
  change(tensors);
  put(folder / "config.json", config.dump());
  write_safetensors(folder / "model.safetensors", tensors);
}
void write_folder(const fs::path& folder, const Json& config) {
  write_folder(folder, config, [](auto&) {});
}

TEST(Weights, ReadsAFolderByCanonicalName) {
  for (const char* type : {"llama", "qwen2", "qwen3", "gemma3_text"}) {
    const TemporaryFolder folder;
    write_folder(folder.path(), tiny_config(type));
    const auto source = open_weights(folder.path());
    const Tensors values = random_tensors(source->config());
    EXPECT_EQ(source->tensors().size(), values.size());
    EXPECT_EQ(source->container(), "safetensors");
    for (const StoredTensor& tensor : source->tensors()) {
      std::vector<float> expected = values.at(tensor.name);
      if (source->config().norm_plus_one && tensor.shape.size() == 1)  // Gemma stores w and multiplies by 1 + w
        for (float& value : expected) value += 1.0f;
      EXPECT_EQ(source->read(tensor.name), expected) << tensor.name;
      EXPECT_FALSE(source->read_quantized(tensor.name));
    }
    EXPECT_EQ(source->find("model.norm.weight")->bytes, 128u);
    EXPECT_EQ(source->find("nothing"), nullptr);
    EXPECT_EQ(source->size_on_disk(), fs::file_size(folder / "config.json") + fs::file_size(folder / "model.safetensors"));
    EXPECT_EQ(source->chat_template(), "");
  }
}

TEST(Weights, FindsTheTextPartOfAModelThatSees) {
  const TemporaryFolder folder;
  Json nested{{"model_type", "gemma3"}};
  nested["text_config"] = tiny_config("gemma3_text");
  std::vector<std::string> names;
  write_folder(folder.path(), nested, [&](std::vector<TensorToWrite>& tensors) {
    for (TensorToWrite& tensor : tensors) tensor.name = "language_model." + tensor.name;
  });
  const auto source = open_weights(folder.path());
  EXPECT_EQ(source->read("model.embed_tokens.weight"), random_tensors(source->config()).at("model.embed_tokens.weight"));
}

TEST(Weights, ReadsTheChatTemplateWhereverItStands) {
  const TemporaryFolder folder;
  write_folder(folder.path(), tiny_config("llama"));
  const auto source = open_weights(folder.path());
  put(folder / "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": "y"}]})");
  EXPECT_EQ(source->chat_template(), "y");
  put(folder / "tokenizer_config.json", R"({"chat_template": "z"})");
  EXPECT_EQ(source->chat_template(), "z");
  put(folder / "chat_template.jinja", "own");
  EXPECT_EQ(source->chat_template(), "own");
}

template <typename Change>
std::string refusal(Change change) {
  const TemporaryFolder folder;
  write_folder(folder.path(), tiny_config("llama"), change);
  return message_of<FormatError>([&] {
    const auto source = open_weights(folder.path());
    for (const StoredTensor& tensor : source->tensors()) source->read(tensor.name);
  });
}

TEST(Weights, RefusesCheckpointsThatDoNotFit) {
  static std::vector<float> nans(32 * 64, 1.0f);
  nans[77] = NAN;
  static const std::vector<float> numbers(32 * 64, 1.0f);
  const std::string down = "model.layers.1.mlp.down_proj.weight";
  const auto at_down = [&](std::vector<TensorToWrite>& tensors) {
    return std::find_if(tensors.begin(), tensors.end(), [&](const TensorToWrite& t) { return t.name == down; });
  };
  EXPECT_TRUE(contains(refusal([&](auto& t) { t.erase(at_down(t)); }), down + " is missing"));
  EXPECT_TRUE(contains(refusal([&](auto& t) {
                         at_down(t)->shape = {64, 32};
                       }),
                       "has the shape [64, 32], but the configuration needs [32, 64]"));
  EXPECT_TRUE(contains(refusal([&](auto& t) { at_down(t)->dtype = DType::i32; }), "has the dtype I32"));
  EXPECT_TRUE(
      contains(refusal([&](auto& t) { at_down(t)->bytes = std::as_bytes(std::span(nans)); }), down + ": value 77 is nan"));
  EXPECT_TRUE(contains(
      refusal([&](auto& t) {
        t.push_back({"model.layers.0.self_attn.q_proj.bias", DType::f32, {32}, std::as_bytes(std::span(numbers)).first(128)});
      }),
      "q_proj.bias: does not belong"));
  for (const char* name : {"model.extra.weight", "lm_head.bias", "adapter.weight", "language_model.model.layers.0.x.weight"})
    EXPECT_TRUE(contains(refusal([&](auto& t) {
                           t.push_back({name, DType::f32, {32}, std::as_bytes(std::span(numbers)).first(128)});
                         }),
                         "does not belong"))
        << name;
}

/// A folder whose config.json ties the head although lm_head.weight stands in the file too.
std::unique_ptr<WeightSource> tied_with_head(const fs::path& folder, const std::vector<float>& head, DType type = DType::f32) {
  std::vector<BFloat16> narrow;
  for (const float value : head) narrow.push_back(float_to_bfloat16(value));
  const auto bytes = type == DType::f32 ? std::as_bytes(std::span(head)) : std::as_bytes(std::span(narrow));
  write_folder(folder, tiny_config("llama"), [&](auto& tensors) {
    tensors.push_back({"lm_head.weight", type, {40, 32}, bytes});
  });
  return open_weights(folder);
}

TEST(Weights, AHeadWithOtherValuesIsNotTiedWhateverTheConfigurationSays) {  // as transformers 5 does
  const TemporaryFolder folder;
  std::vector<float> head = random_tensors(parse_hf_config(tiny_config("llama"), "test")).at("model.embed_tokens.weight");
  auto source = tied_with_head(folder / "same", head);
  EXPECT_TRUE(source->config().tied_head);
  EXPECT_EQ(source->find("lm_head.weight"), nullptr);
  EXPECT_FALSE(tied_with_head(folder / "rounded", head, DType::bf16)->config().tied_head);
  head[70] += 1;
  source = tied_with_head(folder / "other", head);
  EXPECT_FALSE(source->config().tied_head);
  EXPECT_EQ(source->read("lm_head.weight"), head);
  EXPECT_NE(source->read("model.embed_tokens.weight"), head);
}

TEST(Weights, AHeadThatStandsAloneServesAsTheTiedEmbedding) {
  const TemporaryFolder folder;
  write_folder(folder.path(), tiny_config("llama"), [](auto& tensors) {
    for (TensorToWrite& tensor : tensors)
      if (tensor.name == "model.embed_tokens.weight") tensor.name = "lm_head.weight";
  });
  const auto source = open_weights(folder.path());
  EXPECT_TRUE(source->config().tied_head);
  EXPECT_EQ(source->read("model.embed_tokens.weight"), random_tensors(source->config()).at("model.embed_tokens.weight"));
}

TEST(Weights, TellsKindsOfModelsApart) {
  const TemporaryFolder folder;
  EXPECT_TRUE(contains(message_of<FileError>([&] { model_kind(folder / "no"); }), "no such file"));
  EXPECT_TRUE(contains(message_of<FileError>([&] { model_kind(folder.path()); }), "no config.json"));
  EXPECT_TRUE(contains(message_of<FileError>([&] { model_kind(put(folder / "x.bin", "hello")); }), "no GGUF file"));
  EXPECT_EQ(model_kind(put(folder / "x", "GGUF")), ModelKind::gguf);
  write_folder(folder / "m", tiny_config("llama"));
  EXPECT_EQ(model_kind(folder / "m"), ModelKind::hugging_face);
  Json light = tiny_config("llama");
  light["lighten"] = {{"format_version", 1}};
  put(folder / "light/config.json", light.dump());
  EXPECT_EQ(model_kind(folder / "light"), ModelKind::light);
  EXPECT_TRUE(contains(message_of<FormatError>([&] { open_weights(folder / "light"); }), "light model"));
  for (const char* nothing : {"null", "3", "[]"}) {
    put(folder / "light/config.json", std::string("{\"lighten\": ") + nothing + "}");
    EXPECT_TRUE(contains(message_of<FormatError>([&] { model_kind(folder / "light"); }), "\"lighten\" must be an object"));
  }
  put(folder / "broken/config.json", "{");
  EXPECT_TRUE(contains(message_of<FormatError>([&] { model_kind(folder / "broken"); }), "config.json: not valid JSON"));
}

/// A GGUF of the tiny model whose tensors are those of random_tensors(), in the types that `type_of` chooses.
template <typename TypeOf>
void write_tiny_gguf(const fs::path& path, const std::string& arch, TypeOf type_of) {
  const ModelConfig config = parse_hf_config(tiny_config(arch == "gemma3" ? "gemma3_text" : arch), "test");
  GgufMetadata metadata;
  metadata.set("general.architecture", arch);
  const std::pair<const char*, uint32_t> sizes[] = {
      {".block_count", 2},          {".embedding_length", 32},       {".feed_forward_length", 64},
      {".attention.head_count", 2}, {".attention.head_count_kv", 1}, {".attention.key_length", 16},
      {".context_length", 128}};
  for (const auto& [key, value] : sizes) metadata.set(arch + key, value);
  metadata.set(arch + ".attention.layer_norm_rms_epsilon", 1e-6f);
  metadata.set("tokenizer.ggml.eos_token_id", uint32_t{2});
  const Tensors values = random_tensors(config);
  std::vector<std::vector<std::byte>> bytes;
  std::vector<GgufTensorToWrite> tensors;
  for (const TensorShape& tensor : expected_tensors(config)) {
    const GgufType type = tensor.shape.size() == 1 ? GgufType::f32 : type_of(tensor.name);
    // Blocks of IQ4_NL look like those of Q4_0; their codes mean other numbers.
    bytes.push_back(gguf_quantize(type == GgufType::iq4_nl ? GgufType::q4_0 : type, values.at(tensor.name)));
    tensors.push_back({formats::gguf_tensor_name(tensor.name, config.architecture), tensor.shape, type, bytes.back()});
  }
  write_gguf(path, metadata, tensors);
}

TEST(Weights, GgufOfEveryArchitectureIsReadByCanonicalName) {
  for (const char* arch : {"llama", "qwen2", "qwen3", "gemma3"}) {
    const TemporaryFolder folder;
    write_tiny_gguf(folder / "m.gguf", arch, [](const std::string&) { return GgufType::f32; });
    const auto source = open_weights(folder / "m.gguf");
    const Tensors values = random_tensors(source->config());
    EXPECT_EQ(source->tensors().size(), values.size());
    for (const StoredTensor& tensor : source->tensors()) {
      const bool interleaved =
          std::string(arch) == "llama" && (tensor.name.ends_with("q_proj.weight") || tensor.name.ends_with("k_proj.weight"));
      if (!interleaved) {
        EXPECT_EQ(source->read(tensor.name), values.at(tensor.name)) << tensor.name;
        continue;
      }
      // Stored [heads, d/2, 2, in]; Hugging Face's order is [heads, 2, d/2, in].
      const std::vector<float>& stored = values.at(tensor.name);
      const std::vector<float> read = source->read(tensor.name);
      const size_t heads = static_cast<size_t>(tensor.shape[0]) / 16;
      for (size_t h = 0; h < heads; ++h)
        for (size_t i = 0; i < 8; ++i)
          for (size_t j = 0; j < 2; ++j)
            for (size_t c = 0; c < 32; ++c)
              ASSERT_EQ(read[((h * 2 + j) * 8 + i) * 32 + c], stored[((h * 8 + i) * 2 + j) * 32 + c]) << tensor.name;
    }
  }
}

TEST(Weights, LowBitBlocksComeAsTheSameNumbers) {
  for (const GgufType type :
       {GgufType::q4_0, GgufType::q4_1, GgufType::q5_0, GgufType::q5_1, GgufType::q8_0, GgufType::iq4_nl}) {
    const TemporaryFolder folder;
    write_tiny_gguf(folder / "m.gguf", "llama", [&](const std::string&) { return type; });
    const auto source = open_weights(folder / "m.gguf");
    int matrices = 0;
    for (const StoredTensor& tensor : source->tensors()) {
      const auto quantized = source->read_quantized(tensor.name);
      EXPECT_EQ(quantized.has_value(), tensor.shape.size() == 2);
      if (!quantized) continue;
      ++matrices;
      EXPECT_EQ(quantized->group_size, 32);
      const std::vector<float> expected = source->read(tensor.name), found = dequantize(*quantized);
      EXPECT_EQ(0, std::memcmp(expected.data(), found.data(), expected.size() * sizeof(float))) << tensor.name;
    }
    EXPECT_EQ(matrices, 15);
  }
}

TEST(Weights, GgufMetadataThatDoesNotFitIsNamed) {
  const TemporaryFolder folder;
  const fs::path path = folder / "m.gguf";
  const auto refused = [&](const std::string& from, const std::string& to) {
    write_tiny_gguf(path, "llama", [](const std::string&) { return GgufType::q8_0; });
    std::string bytes = read_file(path);
    for (size_t at = bytes.find(from); at != std::string::npos; at = bytes.find(from, at + to.size()))
      bytes.replace(at, from.size(), to);
    put(path, bytes);
    return message_of<FormatError>([&] { open_weights(path); });
  };
  EXPECT_TRUE(contains(refused("llama", "mamba"), "architecture \"mamba\" is not supported"));
  EXPECT_TRUE(contains(refused("llama.block_count", "llama.block_cOunt"), "field \"llama.block_count\" is missing"));
  EXPECT_TRUE(
      contains(refused("blk.1.ffn_up", "blk.1.ffn_uq"), "blk.1.ffn_up.weight (model.layers.1.mlp.up_proj.weight) is missing"));
  EXPECT_TRUE(contains(refused("token_embd", "token_embx"), "token_embd.weight is missing"));
  EXPECT_TRUE(contains(refused("llama.attention.head_count_kv", "llama.attention.head_count_kw"), "has the shape [16, 32]"));
}

TEST(Weights, GgufCutOrChangedNeverDoesMoreThanThrow) {
  const TemporaryFolder folder;
  const fs::path path = folder / "m.gguf";
  write_tiny_gguf(path, "gemma3", [](const std::string&) { return GgufType::q4_0; });
  const std::string good = read_file(path);
  const auto survives = [&](const std::string& bytes) {
    put(path, bytes);
    try {
      const auto source = open_weights(path);
      for (const StoredTensor& tensor : source->tensors()) source->read(tensor.name), source->read_quantized(tensor.name);
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  EXPECT_TRUE(survives(good));
  const size_t last = good.find_last_not_of('\0');
  for (size_t length = 0; length < last; length += length < 2500 ? 1 : 97)
    ASSERT_FALSE(survives(good.substr(0, length))) << length;
  Random random(6);
  for (int round = 0; round < 3000; ++round) {
    std::string changed = good;
    for (uint64_t i = 0; i <= random.below(3); ++i) changed[random.below(2500)] = static_cast<char>(random.below(256));
    survives(changed);
  }
}

TEST(Weights, ConfigurationCutOrChangedNeverDoesMoreThanThrow) {
  const std::string good = tiny_config("gemma3_text").dump();
  Random random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string text = good;
    for (uint64_t i = 0; i <= random.below(3); ++i) text[random.below(good.size())] = static_cast<char>(32 + random.below(95));
    if (random.below(8) == 0) text.resize(random.below(good.size()));
    try {
      const Json json = Json::parse(text, nullptr, false);
      if (!json.is_discarded()) to_hf_config(parse_hf_config(json, "f"));
    } catch (const Error&) {
    }
  }
}

TEST(Weights, LlamaThreesRopeFactorsAreRecognised) {
  const TemporaryFolder folder;
  const auto write = [&](float spoil) {
    GgufMetadata metadata;
    metadata.set("general.architecture", "llama");
    const std::pair<const char*, uint32_t> sizes[] = {{"llama.block_count", 1},
                                                      {"llama.embedding_length", 64},
                                                      {"llama.feed_forward_length", 64},
                                                      {"llama.attention.head_count", 1},
                                                      {"llama.context_length", 131072}};
    for (const auto& [key, value] : sizes) metadata.set(key, value);
    metadata.set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    metadata.set("llama.rope.freq_base", 500000.0f);
    // The published rule: wavelengths below 8192 / 4 keep, above 8192 / 1 are divided by 8, between them interpolate.
    std::vector<float> factors(32);
    for (int i = 0; i < 32; ++i) {
      const double wavelength = 2 * M_PI * std::pow(500000.0, 2.0 * i / 64);
      const double smooth = (8192 / wavelength - 1) / 3;
      factors[static_cast<size_t>(i)] = static_cast<float>(wavelength < 2048   ? 1
                                                           : wavelength > 8192 ? 8
                                                                               : 1 / ((1 - smooth) / 8 + smooth));
    }
    factors[10] *= spoil;
    const std::vector<float> table(40 * 64);
    write_gguf(folder / "m.gguf", metadata,
               {{"token_embd.weight", {40, 64}, GgufType::f32, std::as_bytes(std::span(table))},
                {"rope_freqs.weight", {32}, GgufType::f32, std::as_bytes(std::span(factors))}});
  };
  write(1);
  const ModelConfig config = formats::gguf_model_config(GgufFile(folder / "m.gguf"));
  EXPECT_EQ(config.rope.scaling, RopeConfig::Scaling::llama3);
  EXPECT_EQ(config.rope.factor, 8);
  EXPECT_EQ(config.rope.base, 500000);
  write(1.5f);
  EXPECT_TRUE(contains(message_of<FormatError>([&] { formats::gguf_model_config(GgufFile(folder / "m.gguf")); }),
                       "rope_freqs.weight: entry 10"));
}

fs::path fetched(const std::string& name) { return cache_folder() / "models" / name; }

TEST(Weights, SmolLm2IsWhatItsPublishersSay) {
  const fs::path path = fetched("smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!fs::exists(path)) GTEST_SKIP() << "not fetched";
  const auto source = open_weights(path);
  const ModelConfig& c = source->config();
  EXPECT_EQ(c.architecture, Architecture::llama);
  EXPECT_EQ((std::vector<int64_t>{c.layers, c.hidden_size, c.heads, c.kv_heads, c.head_dim, c.intermediate_size, c.vocab_size,
                                  c.context_length}),
            (std::vector<int64_t>{30, 576, 9, 3, 64, 1536, 49152, 8192}));
  EXPECT_EQ(c.norm_epsilon, 1e-5);
  EXPECT_EQ(c.rope.base, 100000);
  EXPECT_TRUE(c.tied_head);
  EXPECT_EQ(c.end_tokens, std::vector<int64_t>{2});
  EXPECT_EQ(source->tensors().size(), 272u);
  EXPECT_EQ(source->find("model.embed_tokens.weight")->type, "Q8_0");
  EXPECT_EQ(source->find("model.layers.29.mlp.down_proj.weight")->type, "Q4_1");
  EXPECT_EQ(source->container(), "GGUF v3");
  EXPECT_TRUE(contains(source->chat_template(), "<|im_start|>"));
}

TEST(Weights, Gemma3IsWhatItsPublishersSay) {
  const fs::path path = fetched("gemma3-270m/gemma-3-270m-q4_k_m.gguf");
  if (!fs::exists(path)) GTEST_SKIP() << "not fetched";
  const auto source = open_weights(path);
  const ModelConfig& c = source->config();
  EXPECT_EQ(c.architecture, Architecture::gemma3);
  EXPECT_EQ((std::vector<int64_t>{c.layers, c.hidden_size, c.heads, c.kv_heads, c.head_dim, c.intermediate_size, c.vocab_size,
                                  c.sliding_window}),
            (std::vector<int64_t>{18, 640, 4, 1, 256, 2048, 262144, 512}));
  EXPECT_EQ(c.rope.base, 1e6);
  EXPECT_EQ(c.local_rope.base, 1e4);
  EXPECT_DOUBLE_EQ(c.score_scale(), 1.0 / 16);
  for (int64_t layer = 0; layer < 18; ++layer) EXPECT_EQ(c.slides(layer), layer % 6 != 5);
  EXPECT_EQ(parameter_count(c), 268098176u);
  EXPECT_EQ(source->find("model.layers.0.self_attn.o_proj.weight")->type, "Q4_K");
  // Norms come as the multiplier 1 + w: with w alone the mean would be far lower.
  const std::vector<float> norm = source->read("model.layers.0.self_attn.q_norm.weight");
  EXPECT_EQ(norm.size(), 256u);
}

}  // namespace
}  // namespace lighten
