#include "lighten/formats/model_config.h"

#include <cmath>

#include "lighten/formats/json_fields.h"
#include "lighten/formats/test_files.h"

namespace lighten {
namespace {

using formats::contains;
using formats::message_of;

Json smollm2() {
  return Json::parse(R"({"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_act": "silu", "rms_norm_eps": 1e-05,
    "rope_theta": 100000, "max_position_embeddings": 8192, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2})");
}

Json gemma3_270m() {
  return Json::parse(R"({"model_type": "gemma3_text", "vocab_size": 262144, "hidden_size": 640, "intermediate_size": 2048,
    "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "sliding_window": 512,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "query_pre_attn_scalar": 256,
    "eos_token_id": 1, "bos_token_id": 2})");
}

TEST(ModelConfig, TheLicenceIsCarriedOver) {
  ModelConfig config = parse_hf_config(smollm2(), "config.json");
  EXPECT_EQ(config.licence, "");
  config.licence = "apache-2.0";
  EXPECT_EQ(parse_hf_config(to_hf_config(config), "config.json").licence, "apache-2.0");
}

TEST(ModelConfig, ReadsSmolLm2) {
  const ModelConfig c = parse_hf_config(smollm2(), "config.json");
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.rope.base, 100000);
  EXPECT_EQ(c.norm_epsilon, 1e-5);
  EXPECT_EQ(c.context_length, 8192);
  EXPECT_EQ(c.end_tokens, std::vector<int64_t>{2});
  EXPECT_EQ(c.bos_token, 1);
  EXPECT_TRUE(c.tied_head);
  EXPECT_FALSE(c.slides(0));
  EXPECT_DOUBLE_EQ(c.score_scale(), 0.125);
  EXPECT_EQ(expected_tensors(c).size(), 272u);
  EXPECT_EQ(parameter_count(c), 134515008u);  // as the model's own card counts
}

TEST(ModelConfig, ReadsGemma3) {
  const ModelConfig c = parse_hf_config(gemma3_270m(), "config.json");
  EXPECT_TRUE(c.norm_plus_one && c.sandwich_norms && c.qk_norm && c.tied_head);
  EXPECT_EQ(c.activation, Activation::gelu_tanh);
  EXPECT_EQ(c.rope.base, 1e6);
  EXPECT_EQ(c.local_rope.base, 1e4);
  EXPECT_EQ(c.embedding_scale, static_cast<double>(std::sqrt(640.0f)));
  EXPECT_DOUBLE_EQ(c.score_scale(), 1.0 / 16);
  for (int64_t layer = 0; layer < 18; ++layer) EXPECT_EQ(c.slides(layer), layer != 5 && layer != 11 && layer != 17);
  EXPECT_EQ(expected_tensors(c).size(), 236u);
  EXPECT_EQ(parameter_count(c), 268098176u);
}

TEST(ModelConfig, WritingAndReadingAgainGivesTheSame) {
  Json gemma = gemma3_270m();
  gemma["layer_types"] = Json::array();
  for (int i = 0; i < 18; ++i) gemma["layer_types"].push_back(i % 2 == 0 ? "full_attention" : "sliding_attention");
  gemma["final_logit_softcapping"] = 30.0;
  gemma["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  Json llama = smollm2();
  llama["rope_scaling"] = Json::parse(R"({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                          "original_max_position_embeddings": 8192})");
  llama["attention_bias"] = llama["mlp_bias"] = true;
  llama["eos_token_id"] = {2, 5};
  for (const Json& json : {smollm2(), gemma3_270m(), gemma, llama}) {
    const Json once = to_hf_config(parse_hf_config(json, "a"));
    EXPECT_EQ(once.dump(), to_hf_config(parse_hf_config(once, "b")).dump());
  }
  const ModelConfig c = parse_hf_config(gemma, "a");
  EXPECT_EQ(c.rope.scaling, RopeConfig::Scaling::linear);
  EXPECT_EQ(c.rope.factor, 8);
  EXPECT_EQ(c.rope.base, 1e6);
  EXPECT_EQ(c.local_rope.scaling, RopeConfig::Scaling::none);
  EXPECT_EQ(c.logit_softcap, 30);
}

TEST(ModelConfig, Qwen2HasBiasesOnQueriesKeysAndValuesOnly) {
  Json json = smollm2();
  json["model_type"] = "qwen2";
  const ModelConfig c = parse_hf_config(json, "a");
  const std::vector<LinearShape> linears = block_linears(c, 3);
  ASSERT_EQ(linears.size(), 7u);
  for (size_t i = 0; i < 7; ++i) EXPECT_EQ(linears[i].bias, i < 3);
  EXPECT_EQ(linears[1].name, "model.layers.3.self_attn.k_proj");
  EXPECT_EQ(linears[1].rows, 192);
  EXPECT_EQ(linears[6].name, "model.layers.3.mlp.down_proj");
  EXPECT_EQ(linears[6].columns, 1536);
}

TEST(ModelConfig, GenerationSettingsGiveTheEndTokens) {
  const Json generation = Json::parse(R"({"eos_token_id": [2, 7]})");
  EXPECT_EQ(parse_hf_config(smollm2(), "a", &generation).end_tokens, (std::vector<int64_t>{2, 7}));
}

std::string refusal(const std::string& field, const Json& value) {
  Json json = smollm2();
  json[field] = value;
  return message_of<FormatError>([&] { parse_hf_config(json, "x/config.json"); });
}

TEST(ModelConfig, NamesFileAndFieldOfWhatIsWrong) {
  EXPECT_TRUE(contains(refusal("hidden_size", nullptr), "x/config.json: field \"hidden_size\" is missing"));
  EXPECT_TRUE(contains(refusal("hidden_size", "big"), "field \"hidden_size\" must be a whole number"));
  EXPECT_TRUE(contains(refusal("hidden_size", -576), "hidden_size is -576"));
  EXPECT_TRUE(contains(refusal("num_hidden_layers", int64_t{1} << 40), "num_hidden_layers is"));
  EXPECT_TRUE(contains(refusal("num_key_value_heads", 4), "4 key/value heads do not divide 9"));
  EXPECT_TRUE(contains(refusal("head_dim", 63), "head_dim is 63"));
  EXPECT_TRUE(contains(refusal("rms_norm_eps", 0), "rms_norm_eps"));
  EXPECT_TRUE(contains(refusal("hidden_act", "relu"), "relu"));
  EXPECT_TRUE(contains(refusal("tie_word_embeddings", 1), "tie_word_embeddings"));
  EXPECT_TRUE(contains(refusal("model_type", "mamba"), "supported are llama"));
  EXPECT_TRUE(contains(refusal("eos_token_id", 49152), "end token 49152"));
  EXPECT_TRUE(contains(refusal("rope_scaling", {{"type", "yarn"}, {"factor", 2}}), "rope scaling \"yarn\" is not supported"));
  EXPECT_TRUE(contains(refusal("rope_scaling", {{"type", "linear"}}), "rope_scaling: field \"factor\" is missing"));
  EXPECT_TRUE(contains(refusal("quantization_config", {{"bits", 4}}), "already quantized"));
  EXPECT_TRUE(contains(message_of<FormatError>([] { parse_hf_config(Json::array(), "c"); }), "expected a JSON object"));
}

TEST(JsonFields, ListsOfTexts) {
  const Json json = {{"names", {"a", "b"}}, {"mixed", {"a", 1}}, {"one", "a"}};
  const formats::Fields fields(json, "f.json");
  EXPECT_EQ(fields.texts("names"), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(fields.texts("none").empty());
  EXPECT_THROW(fields.texts("mixed"), FormatError);
  EXPECT_THROW(fields.texts("one"), FormatError);
}

TEST(JsonFields, RefusesRepeatedKeysDeepNestingAndBrokenText) {
  using formats::parse_json;
  EXPECT_TRUE(
      contains(message_of<FormatError>([] { parse_json(R"({"a": {"b": 1, "b": 2}})", "f"); }), "key \"b\" stands twice"));
  EXPECT_NO_THROW(parse_json(R"({"a": {"b": 1}, "c": {"b": 2}})", "f"));
  EXPECT_TRUE(contains(message_of<FormatError>([] { parse_json(std::string(100000, '['), "f"); }), "nested deeper"));
  EXPECT_TRUE(contains(message_of<FormatError>([] { parse_json("{\"a\": 1", "f"); }), "f: not valid JSON"));
  EXPECT_TRUE(contains(message_of<FormatError>([] { parse_json("{\"\xff\": 1}", "f"); }), "f: not valid JSON"));
  EXPECT_EQ(formats::printable("a\x1b[2J\xffz\xc3\xb6"), "a\\x1b[2J\\xffz\xc3\xb6");
}

}  // namespace
}  // namespace lighten
