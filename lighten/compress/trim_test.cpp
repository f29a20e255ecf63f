#include "lighten/compress/trim.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/compress/gptq.h"
#include "lighten/compress/rtn.h"
#include "lighten/compress/test_model.h"
#include "lighten/runtime/light_model.h"

namespace lighten {
namespace {

using test::contains;
using test::contents;
using test::message_of;

constexpr int64_t kRows = 160;  // 96 characters, 60 pairs of letters, an end, three rows without a token

/// The byte tokenizer with pairs of letters ("aa", "ab", ...) and an added end.
Json pair_tokenizer() {
  Json json = test::byte_tokenizer();
  Json &vocabulary = json["model"]["vocab"], &merges = json["model"]["merges"];
  for (int i = 0; i < 60; ++i) {
    const std::string left(1, static_cast<char>('a' + i / 8)), right(1, static_cast<char>('a' + i % 8));
    merges.push_back(left + " " + right);
    vocabulary[left + right] = vocabulary.size();
  }
  json["added_tokens"].push_back({{"id", 156}, {"content", "<|end|>"}, {"special", true}, {"normalized", false}});
  return json;
}

fs::path new_model(const std::string& name, ModelConfig config = test::tiny_llama_linear()) {
  set_quiet(true);
  const fs::path folder = test::scratch("trim-" + name);
  config.vocab_size = kRows;
  config.end_tokens = {156};
  config.bos_token = -1;
  test::write_test_model(folder, config);
  write_file(folder / "model" / "tokenizer.json", pair_tokenizer().dump());
  write_file(folder / "corpus.txt", "aab cabbage\n");
  return folder;
}

QuantizeRequest request_in(const fs::path& folder, const std::string& output, const MethodEntry& method = rtn_method()) {
  QuantizeRequest request;
  request.model = folder / "model";
  request.output = folder / output;
  request.methods = {method};
  request.method_name = method.name;
  request.group_size = 32;
  request.calibration_tokens = 640;
  request.calibration_row = 64;
  request.threads = 2;
  request.checkpoint_seconds = 0;
  if (method.name != "rtn") request.calibration = {folder / "text.txt"};
  request.trim_corpus = {folder / "corpus.txt"};
  return request;
}

/// The trimmed model's ids in the whole vocabulary, by the tokens' texts.
std::vector<int64_t> old_ids(const Tokenizer& trimmed, const Tokenizer& whole) {
  std::vector<int64_t> ids;
  for (int32_t id = 0; id < trimmed.size(); ++id) ids.push_back(whole.id(trimmed.token(id)));
  return ids;
}

TEST(Trim, RowsOfEmbeddingAndHeadFollowTheirTokens) {
  for (const ModelConfig& config : {test::tiny_llama_linear(), test::tiny_llama3(), test::tiny_gemma3()}) {
    const fs::path folder = new_model("rows", config);
    QuantizeRequest whole = request_in(folder, "whole"), trimmed = request_in(folder, "trimmed");
    whole.trim_corpus.clear();
    quantize(whole);
    const QuantizeReport report = quantize(trimmed);
    const LightModel before(folder / "whole"), after(folder / "trimmed");
    const auto tokenizer = after.tokenizer();
    const std::vector<int64_t> ids = old_ids(*tokenizer, *before.tokenizer());

    // 96 characters, the end, and "aa", "ab", "ag": "aab cabbage" merges to aa b, c ab b ag e.
    EXPECT_EQ(ids.size(), 96u + 1 + 3);
    for (const char* pair : {"aa", "ab", "ag"}) EXPECT_GE(tokenizer->id(pair), 96) << pair;
    EXPECT_EQ(after.config().vocab_size, tokenizer->size());
    EXPECT_EQ(after.config().end_tokens, std::vector<int64_t>{tokenizer->id("<|end|>")});
    EXPECT_EQ(report.tokens_before, kRows);
    EXPECT_EQ(report.tokens_after, tokenizer->size());
    const uint64_t ends = config.tied_head ? 1 : 2;
    EXPECT_EQ(report.rows_saved, ends * static_cast<uint64_t>((kRows - tokenizer->size()) * config.hidden_size) * 2);

    for (const TensorShape& tensor : expected_tensors(after.config())) {
      const std::vector<float> old_values = before.read(tensor.name), values = after.read(tensor.name);
      if (tensor.shape[0] != after.config().vocab_size) {
        EXPECT_EQ(values, old_values) << tensor.name;
        continue;
      }
      for (size_t row = 0; row < ids.size(); ++row)
        for (int64_t k = 0; k < config.hidden_size; ++k)
          ASSERT_EQ(values[row * static_cast<size_t>(config.hidden_size) + static_cast<size_t>(k)],
                    old_values[static_cast<size_t>(ids[row] * config.hidden_size + k)])
              << tensor.name << " row " << row;
    }
  }
}

TEST(Trim, ThePlanForetellsItAndTheLightModelTellsIt) {
  const fs::path folder = new_model("plan");
  QuantizeRequest request = request_in(folder, "out", gptq_method());
  request.head_bits = 4;
  request.head_group_size = 32;
  const QuantizePlan plan = plan_quantize(request);
  EXPECT_TRUE(contains(plan.text, "tokens  160 -> 100 (")) << plan.text;
  EXPECT_FALSE(fs::exists(folder / "out"));
  const QuantizeReport report = quantize(request);
  const LightModel light(folder / "out");
  EXPECT_EQ(plan.json["size_after"].get<uint64_t>(), light.tensor_bytes());
  EXPECT_EQ(plan.json["rows_saved"], report.rows_saved);
  const Json& record = light.method()["vocabulary"];
  EXPECT_EQ(record["tokens"], 100);
  EXPECT_EQ(record["tokens_before"], kRows);
  EXPECT_EQ(record["min_count"], 1);
  EXPECT_EQ(record["corpus"][0]["file"], "corpus.txt");
  EXPECT_EQ(record["corpus"][0]["sha256"].get<std::string>().size(), 64u);
  // aa b, space c ab b ag e, line end
  EXPECT_EQ(record["corpus_tokens"], 9);
}

TEST(Trim, MoreTokensOfTheCorpussCharactersFillUp) {
  const fs::path folder = new_model("fill");
  QuantizeRequest request = request_in(folder, "out");
  request.trim_tokens = 104;
  EXPECT_EQ(quantize(request).tokens_after, 104);
  // Of the pairs in order (aa, ab, ac, ad, ...) the corpus uses aa, ab, ag, and it has no d, f or h.
  const LightModel light(folder / "out");
  for (const char* pair : {"aa", "ab", "ac", "ae", "ag", "ba", "bb"}) EXPECT_GE(light.tokenizer()->id(pair), 0) << pair;
  for (const char* pair : {"ad", "bc"}) EXPECT_EQ(light.tokenizer()->id(pair), -1) << pair;
  EXPECT_EQ(light.method()["vocabulary"]["fill"], 104);
}

TEST(Trim, InterruptedAndResumedEqualsUninterruptedAndAnotherCorpusIsRefused) {
  const fs::path folder = new_model("resume");
  QuantizeRequest whole = request_in(folder, "whole", gptq_method()), part = request_in(folder, "part", gptq_method());
  whole.head_bits = part.head_bits = 4;
  whole.head_group_size = part.head_group_size = 32;
  quantize(whole);
  part.on_block = [](int64_t layer) {
    if (layer == 2) throw Interrupted();
  };
  EXPECT_THROW(quantize(part), Interrupted);
  part.on_block = {};
  QuantizeRequest other = part;
  other.trim_min_count = 2;
  EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(other); }), "vocabulary was"));
  other = part;
  other.trim_corpus = {folder / "text.txt"};
  EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(other); }), "vocabulary was"));
  quantize(part);
  EXPECT_EQ(contents(folder / "whole"), contents(folder / "part"));
}

TEST(Trim, BadInputIsSaidBeforeAnyWork) {
  const fs::path folder = new_model("bad");
  QuantizeRequest request = request_in(folder, "out");
  const auto refused = [&](const std::string& text) {
    write_file(folder / "corpus.txt", text);
    return message_of<FormatError>([&] { plan_quantize(request); });
  };
  EXPECT_TRUE(contains(refused(" \n"), "--trim-vocab text " + (folder / "corpus.txt").string() + " is empty"));
  EXPECT_TRUE(contains(refused(std::string("a\0b", 3)), "is binary (it holds NUL bytes)"));
  EXPECT_TRUE(contains(refused("\xff\xfe\xfd\xff\xfe"), "is not UTF-8 text"));
  request.trim_corpus = {folder / "nowhere.txt"};
  EXPECT_TRUE(contains(message_of<FileError>([&] { plan_quantize(request); }), "nowhere.txt"));
  request.trim_corpus.clear();
  request.trim_min_count = 2;
  EXPECT_TRUE(contains(message_of<OptionError>([&] { plan_quantize(request); }), "are for --trim-vocab"));
  request = request_in(folder, "texts");
  fs::create_directories(folder / "texts");
  write_file(folder / "texts" / "corpus.txt", "words");
  request.trim_corpus = {folder / "texts" / "corpus.txt"};
  request.force = true;
  EXPECT_TRUE(contains(message_of<OptionError>([&] { quantize(request); }), "take the place of the --trim-vocab text"));
  EXPECT_FALSE(fs::exists(folder / "out.partial"));
}

}  // namespace
}  // namespace lighten
