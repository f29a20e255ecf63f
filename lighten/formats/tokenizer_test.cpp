#include "lighten/formats/tokenizer.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/formats/gguf.h"
#include "lighten/formats/unicode.h"

namespace lighten {
namespace {

using Ids = std::vector<int32_t>;

/// Byte-level BPE: 256 byte tokens in order of their characters, four merges, two added tokens.
Json byte_level_json() {
  Json vocab = Json::object();
  int next = 0;
  for (int c = 0; c < 0x144; ++c) {
    if (c < 0x21 || (c > 0x7E && c < 0xA1) || c == 0xAD) continue;
    std::string text;
    formats::append_utf8(text, c);
    vocab[text] = next++;
  }
  for (const char* token : {"he", "ll", "hell", "hello", "\u0120hello"}) vocab[token] = next++;
  Json added = Json::array();
  added.push_back({{"id", next++}, {"content", "<|end|>"}, {"special", true}, {"normalized", false}});
  added.push_back({{"id", next++}, {"content", "  "}, {"special", false}, {"normalized", false}});
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e", "l l", "he ll", "hell o", "\u0120 hello"}}}}};
}

/// SentencePiece-style: <unk>, <s>, </s>, 256 bytes, then a few characters and pieces with scores.
Json sentence_piece_metadata(bool space_prefix) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int> types = {2, 3, 3};
  std::vector<double> scores = {0, 0, 0};
  for (int b = 0; b < 256; ++b) {
    tokens.push_back(fmt::format("<0x{:02X}>", b));
    types.push_back(6);
    scores.push_back(0);
  }
  double score = -1;
  for (const char* piece : {"ab", "\u2581a", "\u2581ab", "\u2581", "a", "b", "c", "\u00e9"}) {
    tokens.push_back(piece);
    types.push_back(1);
    scores.push_back(score--);
  }
  if (!space_prefix) {
    for (const char* run : {"  ", "   "}) {
      tokens.push_back(run);
      types.push_back(4);
      scores.push_back(-1000);
    }
  }
  return {{"tokenizer.ggml.model", "llama"},      {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.scores", scores},      {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.bos_token_id", 1},     {"tokenizer.ggml.eos_token_id", 2},
          {"tokenizer.ggml.unknown_token_id", 0}, {"tokenizer.ggml.add_space_prefix", space_prefix}};
}

std::shared_ptr<const Tokenizer> from_json(const Json& json) { return Tokenizer::from_json(json, "t.json"); }

template <typename Make>
std::string message(Make&& make) {
  try {
    make();
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no error";
}

void expect_refused(Json json, const std::string& words) {
  EXPECT_NE(message([&] { from_json(json); }).find(words), std::string::npos)
      << message([&] { from_json(json); }) << "\nexpected: " << words;
}

TEST(Tokenizer, ByteLevelWordsMergeAndAddedTokensStayWhole) {
  const auto tokenizer = from_json(byte_level_json());
  const int32_t hello = tokenizer->id("hello"), space_hello = tokenizer->id("\u0120hello"), end = tokenizer->id("<|end|>");
  const int32_t spaces = tokenizer->id("  "), bang = tokenizer->id("!");
  EXPECT_EQ(tokenizer->encode("hello hello<|end|>  !"), (Ids{hello, space_hello, end, spaces, bang}));
  EXPECT_EQ(tokenizer->size(), 256 + 5 + 2);
  EXPECT_TRUE(tokenizer->is_special(end));
  EXPECT_FALSE(tokenizer->is_special(spaces));
  EXPECT_EQ(tokenizer->decode({hello, end, space_hello}), "hello<|end|> hello");
  EXPECT_EQ(tokenizer->decode({hello, end, space_hello}, true), "hello hello");
  EXPECT_EQ(tokenizer->piece(end, true), "");
  EXPECT_EQ(tokenizer->id("nothing"), -1);
  EXPECT_EQ(tokenizer->token(-5), "");
}

TEST(Tokenizer, SpecialTokensInTheTextAreTextWhenAsked) {
  const auto tokenizer = from_json(byte_level_json());
  EXPECT_EQ(tokenizer->encode("<|end|>", false).size(), 7u);
  EXPECT_EQ(tokenizer->encode("  ", false).size(), 1u);  // added, but not special
}

TEST(Tokenizer, AnyBytesSurviveByteLevelUpToReplacement) {
  const auto tokenizer = from_json(byte_level_json());
  Random random(9);
  for (int i = 0; i < 500; ++i) {
    std::string bytes, expected;
    for (uint64_t k = random.below(60); k > 0; --k) bytes.push_back(static_cast<char>(random.below(256)));
    formats::append_valid_utf8(expected, bytes);
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(bytes)), expected);
  }
}

TEST(Tokenizer, AMegabyteWithoutASpaceKeepsItsText) {
  for (const auto& tokenizer : {from_json(byte_level_json()), Tokenizer::from_gguf(sentence_piece_metadata(false), "t.gguf")}) {
    for (const std::string& unit :
         {std::string("a"), std::string("hellob"), std::string(1, '\0'), std::string("\u00e9"), std::string(" ")}) {
      std::string text;
      while (text.size() < 1'000'000) text += unit;
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
    }
  }
}

TEST(Tokenizer, SentencePieceFromGgufMergesByScore) {
  const auto tokenizer = Tokenizer::from_gguf(sentence_piece_metadata(true), "t.gguf");
  const auto id = [&](const char* token) { return tokenizer->id(token); };
  // "ab" has the best score, so it is joined before the mark is.
  EXPECT_EQ(tokenizer->encode("ab a"), (Ids{id("\u2581ab"), id("\u2581a")}));
  EXPECT_EQ(tokenizer->encode("\u4e2d"), (Ids{id("\u2581"), id("<0xE4>"), id("<0xB8>"), id("<0xAD>")}));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(" ab\u4e2d c")), " ab\u4e2d c");
  EXPECT_EQ(tokenizer->bos(), 1);
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_TRUE(tokenizer->adds_bos());
  EXPECT_TRUE(tokenizer->is_special(1));
}

TEST(Tokenizer, RunsOfSpacesMatchBeforeMerging) {
  const auto tokenizer = Tokenizer::from_gguf(sentence_piece_metadata(false), "t.gguf");
  const auto id = [&](const char* token) { return tokenizer->id(token); };
  EXPECT_EQ(tokenizer->encode("a  b    a"),
            (Ids{id("a"), id("\u2581\u2581"), id("b"), id("\u2581\u2581\u2581"), id("\u2581a")}));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a  b    a")), "a  b    a");
}

TEST(Tokenizer, WrittenJsonEncodesTheSame) {
  Random random(2);
  for (const auto& tokenizer : {from_json(byte_level_json()), Tokenizer::from_gguf(sentence_piece_metadata(false), "t.gguf"),
                                Tokenizer::from_gguf(sentence_piece_metadata(true), "t.gguf")}) {
    const auto again = from_json(tokenizer->to_json());
    EXPECT_EQ(again->size(), tokenizer->size());
    EXPECT_EQ(again->bos(), tokenizer->bos());
    EXPECT_EQ(again->eos(), tokenizer->eos());
    EXPECT_EQ(again->adds_bos(), tokenizer->adds_bos());
    EXPECT_EQ(again->to_json(), tokenizer->to_json());
    for (int i = 0; i < 300; ++i) {
      std::string text;
      for (uint64_t k = random.below(30); k > 0; --k)
        text += std::vector<std::string>{"a", "b", " ", "hello", "\u00e9", "<s>"}[random.below(6)];
      ASSERT_EQ(again->encode(text), tokenizer->encode(text)) << text;
    }
  }
}

TEST(Tokenizer, ReadingAFileIsReadingItsJson) {
  const fs::path folder = fs::temp_directory_path() / fmt::format("lighten_tokenizer_test_{}", ::getpid());
  fs::create_directories(folder);
  write_file(folder / "tokenizer.json", byte_level_json().dump());
  EXPECT_EQ(Tokenizer::from_file(folder / "tokenizer.json")->to_json(), from_json(byte_level_json())->to_json());
  EXPECT_EQ(Tokenizer::from_file(folder / "tokenizer.json")->eos(), -1);
  write_file(folder / "tokenizer_config.json", R"({"eos_token": {"content": "<|end|>"}, "bos_token": null})");
  EXPECT_EQ(Tokenizer::from_file(folder / "tokenizer.json")->eos(), 261);
  fs::remove_all(folder);
}

TEST(Tokenizer, StreamNeverHandsOutHalfACharacter) {
  for (const auto& tokenizer : {from_json(byte_level_json()), Tokenizer::from_gguf(sentence_piece_metadata(true), "t.gguf")}) {
    const std::string text = "hello \u00e9\u4e2d\U0001F600 ab";
    StreamDecoder stream(tokenizer);
    std::string whole;
    for (const int32_t id : tokenizer->encode(text)) {
      const std::string part = stream.add(id);
      EXPECT_TRUE(formats::is_valid_utf8(part));
      EXPECT_EQ(part.find("\uFFFD"), std::string::npos);
      whole += part;
    }
    EXPECT_EQ(whole + stream.finish(), text);
    Ids cut = tokenizer->encode("b\U0001F600");
    cut.pop_back();
    std::string broken;
    for (const int32_t id : cut) broken += stream.add(id);
    EXPECT_EQ(broken, "b");
    EXPECT_EQ(stream.finish(), "\uFFFD");
    EXPECT_EQ(stream.finish(), "");
  }
}

TEST(Tokenizer, BrokenJsonNamesTheFieldAndTheRemedy) {
  const Json good = byte_level_json();
  const auto changed = [&](auto&& change) {
    Json json = good;
    change(json);
    return json;
  };
  expect_refused(Json::array(), "t.json: must hold a JSON object");
  expect_refused(changed([](Json& j) { j.erase("model"); }), "\"model\"");
  expect_refused(changed([](Json& j) { j["model"]["type"] = "Unigram"; }), "model.type \"Unigram\" is not supported");
  expect_refused(changed([](Json& j) { j["model"].erase("vocab"); }), "model.vocab is missing");
  expect_refused(changed([](Json& j) { j["model"].erase("merges"); }), "model.merges is missing");
  expect_refused(changed([](Json& j) { j["model"]["vocab"]["x!"] = "7"; }), "id of token x!");
  expect_refused(changed([](Json& j) { j["model"]["vocab"]["x!"] = -1; }), "has id -1");
  expect_refused(changed([](Json& j) { j["model"]["vocab"]["x!"] = 1e300; }), "id of token x!");
  expect_refused(changed([](Json& j) { j["model"]["vocab"]["x!"] = 99999999999; }), "ids lie between 0 and");
  expect_refused(changed([](Json& j) { j["model"]["vocab"]["x!"] = 5; }), "share the id 5");
  expect_refused(changed([](Json& j) { j["model"]["merges"].push_back("q"); }), "model.merges[5] must be two tokens");
  expect_refused(changed([](Json& j) { j["model"]["merges"].push_back("zz z"); }), "model.merges[5] needs token zz");
  expect_refused(changed([](Json& j) { j["model"]["merges"].push_back(Json::array({"a"})); }), "model.merges[5] must be");
  expect_refused(changed([](Json& j) { j["model"]["unk_token"] = "[UNK]"; }), "model.unk_token [UNK] is not in model.vocab");
  expect_refused(changed([](Json& j) { j["added_tokens"] = 5; }), "added_tokens: must be a list");
  expect_refused(changed([](Json& j) { j["added_tokens"][0].erase("content"); }), "added_tokens[0]");
  expect_refused(changed([](Json& j) { j["added_tokens"][0]["id"] = 3; }), "which model.vocab gives to");
  expect_refused(changed([](Json& j) { j["added_tokens"][0]["content"] = "hello"; }), "but model.vocab gives it");
  expect_refused(changed([](Json& j) { j["added_tokens"][1]["id"] = 261; }), "share the id 261");
  expect_refused(changed([](Json& j) { j["added_tokens"][1]["id"] = 270; }), "is the next free one");  // `tokenizers` renumbers
  expect_refused(changed([](Json& j) {
                   j["normalizer"] = {{"type", "Precompiled"}};
                 }),
                 "normalizer \"Precompiled\" is not supported");
  expect_refused(changed([](Json& j) { j["normalizer"] = {{"type", "Prepend"}, {"prepend", "\xf0"}}; }), "is not UTF-8");
  expect_refused(changed([](Json& j) { j["decoder"] = {{"type", "CTC"}}; }), "decoder \"CTC\" is not supported");
  expect_refused(changed([](Json& j) {
                   Json nest = {{"type", "NFC"}};
                   for (int i = 0; i < 40; ++i) nest = {{"type", "Sequence"}, {"normalizers", Json::array({nest})}};
                   j["normalizer"] = nest;
                 }),
                 "nested deeper");
}

TEST(Tokenizer, BrokenGgufMetadataNamesTheFieldAndTheRemedy) {
  const auto refused = [](auto&& change, const std::string& words) {
    Json json = sentence_piece_metadata(true);
    change(json);
    const std::string text = message([&] { Tokenizer::from_gguf(json, "t.gguf"); });
    EXPECT_NE(text.find(words), std::string::npos) << text << "\nexpected: " << words;
  };
  refused([](Json& j) { j.erase("tokenizer.ggml.model"); }, "tokenizer.ggml.model");
  refused([](Json& j) { j["tokenizer.ggml.model"] = "t5"; }, "tokenizer model \"t5\"");
  refused([](Json& j) { j.erase("tokenizer.ggml.tokens"); }, "tokenizer.ggml.tokens is missing");
  refused([](Json& j) { j["tokenizer.ggml.tokens"] = Json::array(); }, "tokenizer.ggml.tokens is empty");
  refused([](Json& j) { j["tokenizer.ggml.tokens"][5] = 7; }, "tokenizer.ggml.tokens[5]");
  refused([](Json& j) { j["tokenizer.ggml.tokens"][5] = "a"; }, "occurs twice");
  refused([](Json& j) { j["tokenizer.ggml.tokens"][5] = "\xff"; }, "is not UTF-8");
  refused([](Json& j) { j["tokenizer.ggml.scores"].erase(0); }, "tokenizer.ggml.scores has");
  refused([](Json& j) { j["tokenizer.ggml.scores"][3] = "x"; }, "tokenizer.ggml.scores[3]");
  refused([](Json& j) { j["tokenizer.ggml.scores"][3] = std::numeric_limits<double>::quiet_NaN(); },
          "tokenizer.ggml.scores[3]");
  refused([](Json& j) { j["tokenizer.ggml.token_type"][3] = 99; }, "tokenizer.ggml.token_type[3]");
  refused([](Json& j) { j["tokenizer.ggml.bos_token_id"] = 100000; }, "tokenizer.ggml.bos_token_id is 100000");
  refused([](Json& j) { j["tokenizer.ggml.model"] = "gpt2"; }, "tokenizer.ggml.merges is missing");
  refused([](Json& j) { j["tokenizer.ggml.model"] = "gpt2", j["tokenizer.ggml.pre"] = "nope"; }, "pre-tokenizer \"nope\"");
  refused([](Json& j) { j["tokenizer.ggml.merges"] = Json::array({"a  b"}); }, "tokenizer.ggml.merges[0]");
}

TEST(Tokenizer, DamagedFilesNeverCrash) {
  const fs::path file = fs::temp_directory_path() / fmt::format("lighten_damaged_{}.json", ::getpid());
  const std::string good = byte_level_json().dump();
  Random random(4);
  int read = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string bad = good;
    if (i % 10 == 0) {
      bad.resize(random.below(bad.size()));
    } else {
      for (uint64_t k = 1 + random.below(3); k > 0; --k) bad[random.below(bad.size())] = "\"{}[]:,0x9\\\xff-"[random.below(13)];
    }
    write_file(file, bad);
    try {
      read += !Tokenizer::from_file(file)->encode("hello <|end|> \xff").empty();
    } catch (const FormatError& error) {
      EXPECT_NE(std::string(error.what()).find(file.string()), std::string::npos) << error.what();
    }
  }
  fs::remove(file);
  EXPECT_GT(read, 0);
}

class RealModels : public testing::Test {
 protected:
  static fs::path fetched(const std::string& path) {
    const fs::path file = cache_folder() / "models" / path;
    return fs::exists(file) ? file : fs::path();
  }
  static std::shared_ptr<const Tokenizer> gguf(const fs::path& path) {
    return Tokenizer::from_gguf(GgufFile(path).metadata(), path.string());
  }
};

TEST_F(RealModels, SmolLm2) {
  const fs::path path = fetched("smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf");
  if (path.empty()) GTEST_SKIP() << "smollm2-135m is not fetched: lighten data get smollm2-135m";
  const auto tokenizer = gguf(path);
  EXPECT_EQ(tokenizer->size(), 49152);
  EXPECT_EQ(tokenizer->encode("The capital of France is"), (Ids{504, 3575, 282, 4649, 314}));
  EXPECT_EQ(tokenizer->encode("a  2"), (Ids{81, 256, 34}));
  EXPECT_EQ(tokenizer->encode("<|im_start|>user\n"), (Ids{1, 4093, 198}));
  EXPECT_EQ(tokenizer->eos(), 2);
  EXPECT_FALSE(tokenizer->adds_bos());
  EXPECT_EQ(tokenizer->decode(Ids{1, 504, 3575}, true), "The capital");
  EXPECT_EQ(from_json(tokenizer->to_json())->eos(), 2);
}

TEST_F(RealModels, Gemma3) {
  const fs::path path = fetched("gemma3-270m/gemma-3-270m-q4_k_m.gguf");
  if (path.empty()) GTEST_SKIP() << "gemma3-270m is not fetched: lighten data get gemma3-270m";
  const auto tokenizer = gguf(path);
  EXPECT_EQ(tokenizer->size(), 262144);
  EXPECT_EQ(tokenizer->encode("The capital of France is"), (Ids{818, 5279, 529, 7001, 563}));
  EXPECT_EQ(tokenizer->encode("a  2    x"), (Ids{236746, 138, 236778, 140, 236781}));
  EXPECT_EQ(tokenizer->encode("a" + std::string(40, ' ') + "b").size(), 4u);  // 31 + 9 spaces, as SentencePiece cuts them
  EXPECT_EQ(tokenizer->bos(), 2);
  EXPECT_EQ(tokenizer->eos(), 1);
  EXPECT_TRUE(tokenizer->adds_bos());
}

TEST_F(RealModels, MiniLm) {
  const fs::path path = fetched("minilm-l6/tokenizer.json");
  if (path.empty()) GTEST_SKIP() << "minilm-l6 is not fetched: lighten data get minilm-l6";
  const auto tokenizer = Tokenizer::from_file(path);
  EXPECT_EQ(tokenizer->size(), 30522);
  EXPECT_EQ(tokenizer->encode("Hello, W\u00f6rld! unaffable"), (Ids{7592, 1010, 2088, 999, 14477, 20961, 3468}));
  EXPECT_EQ(tokenizer->encode("[CLS]a[SEP]"), (Ids{101, 1037, 102}));
}

}  // namespace
}  // namespace lighten
