#include "lighten/formats/trim_vocabulary.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/formats/pretokenizer.h"
#include "lighten/formats/unicode.h"

namespace lighten {
namespace {

using Ids = std::vector<int32_t>;

/// Byte-level BPE whose `merges` join random tokens that there are already, and three added tokens behind them.
Json random_byte_level(size_t merges, Random& random) {
  std::vector<std::string> tokens;
  for (const char16_t c : formats::byte_characters()) formats::append_utf8(tokens.emplace_back(), c);
  std::vector<std::string> letters = {"\u0120"};
  for (char c = 'a'; c <= 'h'; ++c) letters.emplace_back(1, c);
  std::set<std::string> known(tokens.begin(), tokens.end());
  Json list = Json::array();
  while (list.size() < merges) {
    const std::string left = letters[random.below(letters.size())], right = letters[random.below(letters.size())];
    if (right.starts_with("\u0120") || left.size() + right.size() > 10 || !known.insert(left + right).second) continue;
    list.push_back(left + " " + right);
    tokens.push_back(left + right);
    letters.push_back(left + right);
  }
  Json vocabulary = Json::object(), added = Json::array();
  for (const std::string& token : tokens) vocabulary[token] = vocabulary.size();
  for (const char* content : {"<|end|>", "<|reserved_7|>", "<|start|>"})
    added.push_back({{"id", vocabulary.size() + added.size()}, {"content", content}, {"special", true}, {"normalized", false}});
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", list}}}};
}

/// SentencePiece-style: specials, 256 bytes, placeholders, `pieces` with falling scores.
Json sentence_piece(const std::vector<std::string>& pieces, bool bytes = true) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "<unused0>", "<unused1>"};
  std::vector<int> types = {2, 3, 3, 3, 3};
  std::vector<double> scores(5);
  const auto add = [&](const std::string& token, int type, double score) {
    tokens.push_back(token);
    types.push_back(type);
    scores.push_back(score);
  };
  for (int b = 0; bytes && b < 256; ++b) add(fmt::format("<0x{:02X}>", b), 6, 0);
  for (const std::string& piece : pieces) add(piece, 1, -static_cast<double>(tokens.size()));
  return {{"tokenizer.ggml.model", "llama"},      {"tokenizer.ggml.tokens", tokens},         {"tokenizer.ggml.scores", scores},
          {"tokenizer.ggml.token_type", types},   {"tokenizer.ggml.bos_token_id", 1},        {"tokenizer.ggml.eos_token_id", 2},
          {"tokenizer.ggml.unknown_token_id", 0}, {"tokenizer.ggml.add_space_prefix", false}};
}

std::vector<std::string> random_pieces(size_t count, Random& random) {
  std::vector<std::string> pieces = {"\u2581", "a", "b", "c", "d", "e", "\u00e9", "\u4e2d", "\u6587"};
  std::set<std::string> known(pieces.begin(), pieces.end());
  while (pieces.size() < count) {
    const std::string whole = pieces[random.below(pieces.size())] + pieces[random.below(pieces.size())];
    if (whole.size() <= 12 && whole.find("\u2581", 1) == std::string::npos && known.insert(whole).second)
      pieces.push_back(whole);
  }
  std::reverse(pieces.begin(), pieces.end());  // long ones are joined first, so that paths branch
  return pieces;
}

std::string random_words(std::vector<std::string> letters, size_t count, Random& random) {
  letters.emplace_back(" ");
  std::string text;
  while (count-- > 0) text += letters[random.below(letters.size())];
  return text;
}

std::vector<int64_t> counts_of(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int64_t> counts(static_cast<size_t>(tokenizer.size()));
  for (const int32_t id : tokenizer.encode(text, false)) ++counts[static_cast<size_t>(id)];
  return counts;
}

TrimmedVocabulary trim(const Tokenizer& tokenizer, const std::string& corpus, TrimVocabularyOptions options = {}) {
  if (options.rows == 0) options.rows = tokenizer.size();
  return trim_vocabulary(tokenizer, counts_of(tokenizer, corpus), options, "t.json");
}

std::vector<std::string> tokens_of(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::string> tokens;
  for (const int32_t id : tokenizer.encode(text)) tokens.push_back(tokenizer.token(id));
  return tokens;
}

/// Ids of the trimmed tokenizer are the old ones at `kept`, none twice, and its JSON reads back as the same tokenizer.
void expect_consistent(const Tokenizer& whole, const TrimmedVocabulary& trimmed) {
  ASSERT_EQ(static_cast<size_t>(trimmed.tokenizer->size()), trimmed.kept.size());
  EXPECT_TRUE(std::is_sorted(trimmed.kept.begin(), trimmed.kept.end()));
  const auto again = Tokenizer::from_json(trimmed.tokenizer->to_json(), "again.json");
  for (int32_t id = 0; id < trimmed.tokenizer->size(); ++id) {
    const int32_t old_id = trimmed.kept[static_cast<size_t>(id)];
    EXPECT_EQ(trimmed.tokenizer->token(id), whole.token(old_id));
    EXPECT_EQ(trimmed.tokenizer->is_special(id), whole.is_special(old_id));
    EXPECT_EQ(trimmed.new_id(old_id), id);
    EXPECT_EQ(again->token(id), whole.token(old_id));
  }
}

TEST(TrimVocabulary, ACorpusEncodesToTheSameTokensAndEveryTextDecodesAsBefore) {
  Random random(3);
  for (int round = 0; round < 20; ++round) {
    const bool byte_level = round % 2 == 0;
    const auto whole = byte_level ? Tokenizer::from_json(random_byte_level(400, random), "t.json")
                                  : Tokenizer::from_gguf(sentence_piece(random_pieces(400, random)), "t.gguf");
    const std::vector<std::string> letters = {"a", "b", "c", "d", "e"};
    const std::string corpus = random_words(letters, 400, random);
    const TrimmedVocabulary trimmed = trim(*whole, corpus);
    expect_consistent(*whole, trimmed);
    EXPECT_LT(trimmed.kept.size(), static_cast<size_t>(whole->size()) - 50);
    EXPECT_EQ(tokens_of(*trimmed.tokenizer, corpus), tokens_of(*whole, corpus));
    for (int i = 0; i < 40; ++i) {
      const std::string unseen =
          random_words({"a", "b", "g", "h", "e", "\u00e9", "\u4e2d", "\u6587\u5b57", "\U0001F600", "\n", "\u2581"}, 60, random);
      EXPECT_EQ(trimmed.tokenizer->decode(trimmed.tokenizer->encode(unseen)), whole->decode(whole->encode(unseen))) << unseen;
      std::string bytes;
      for (uint64_t k = random.below(60); k > 0; --k) bytes.push_back(static_cast<char>(random.below(256)));
      EXPECT_EQ(trimmed.tokenizer->decode(trimmed.tokenizer->encode(bytes)), whole->decode(whole->encode(bytes)));
    }
  }
}

TEST(TrimVocabulary, WhatMergesPassThroughStays) {
  // "hello" is built from "he", "ll", "hell"; "yo" is not needed.
  Json json = random_byte_level(0, *std::make_unique<Random>(1));
  Json& vocabulary = json["model"]["vocab"];
  for (const char* token : {"he", "ll", "hell", "hello", "yo", "lo"}) vocabulary[token] = vocabulary.size();
  json["model"]["merges"] = {"h e", "l l", "he ll", "hell o", "y o", "l o"};
  json["added_tokens"] = Json::array();
  const auto whole = Tokenizer::from_json(json, "t.json");
  const TrimmedVocabulary trimmed = trim(*whole, "hello");
  for (const char* token : {"he", "ll", "hell", "hello"}) EXPECT_GE(trimmed.tokenizer->id(token), 0) << token;
  for (const char* token : {"yo", "lo"}) EXPECT_EQ(trimmed.tokenizer->id(token), -1) << token;
  EXPECT_EQ(trimmed.kept.size(), 256u + 4);
  EXPECT_EQ(trimmed.tokenizer->to_json()["model"]["merges"], Json({"h e", "l l", "he ll", "hell o"}));
  EXPECT_EQ(tokens_of(*trimmed.tokenizer, "yolo"), (std::vector<std::string>{"y", "o", "l", "o"}));
}

TEST(TrimVocabulary, ATokenMustBeAsFrequentAsAsked) {
  const auto whole = Tokenizer::from_gguf(sentence_piece({"ab", "cd", "a", "b", "c", "d", "\u2581"}), "t.gguf");
  const TrimmedVocabulary trimmed = trim(*whole, "abcdab", {.min_count = 2});
  EXPECT_GE(trimmed.tokenizer->id("ab"), 0);
  EXPECT_EQ(trimmed.tokenizer->id("cd"), -1);
  EXPECT_EQ(tokens_of(*trimmed.tokenizer, "abcd"), (std::vector<std::string>{"ab", "c", "d"}));
}

TEST(TrimVocabulary, EarlyMergesOfTheCorpussCharactersFillUp) {
  const auto whole =
      Tokenizer::from_gguf(sentence_piece({"xy", "ba", "abab", "ab", "aa", "a", "b", "x", "y", "\u2581"}), "t.gguf");
  const int64_t least = static_cast<int64_t>(trim(*whole, "a b").kept.size());
  const auto with = [&](int64_t more) { return trim(*whole, "a b", {.tokens = least + more}).tokenizer; };
  EXPECT_GE(with(1)->id("ba"), 0);
  EXPECT_EQ(with(1)->size(), least + 1);
  EXPECT_EQ(with(2)->id("abab"), -1);  // its path, by "ba", ends elsewhere: "abab" merges to a, ba, b
  EXPECT_GE(with(2)->id("ab"), 0);
  EXPECT_EQ(with(100)->size(), least + 3);  // ba, ab, aa; x and y do not occur
  EXPECT_EQ(with(0)->size(), least);
}

TEST(TrimVocabulary, CharactersGoOnlyWhereBytesCanSpellThem) {
  const std::vector<std::string> pieces = {"ab", "a", "b", "\u2581", "\u00e9", "\u4e2d"};
  const auto whole = Tokenizer::from_gguf(sentence_piece(pieces), "t.gguf");
  const TrimmedVocabulary trimmed = trim(*whole, "a");
  EXPECT_EQ(tokens_of(*trimmed.tokenizer, "\u00e9"), (std::vector<std::string>{"<0xC3>", "<0xA9>"}));
  for (const char* token : {"b", "\u2581", "<0x00>", "<0xFF>"}) EXPECT_GE(trimmed.tokenizer->id(token), 0) << token;
  EXPECT_EQ(trimmed.tokenizer->decode(trimmed.tokenizer->encode("b \u4e2d\u00e9 \u2581")),
            whole->decode(whole->encode("b \u4e2d\u00e9 \u2581")));

  const auto without_bytes = Tokenizer::from_gguf(sentence_piece(pieces, false), "t.gguf");
  const TrimmedVocabulary spelled = trim(*without_bytes, "a");
  EXPECT_EQ(tokens_of(*spelled.tokenizer, "\u00e9\u4e2d"), (std::vector<std::string>{"\u00e9", "\u4e2d"}));
  EXPECT_EQ(spelled.tokenizer->id("ab"), -1);
}

TEST(TrimVocabulary, SpecialTokensStayAndPlaceholdersGo) {
  const auto whole = Tokenizer::from_gguf(sentence_piece({"a", "\u2581"}), "t.gguf");
  const TrimmedVocabulary trimmed = trim(*whole, "a");
  expect_consistent(*whole, trimmed);
  EXPECT_EQ(trimmed.tokenizer->token(trimmed.tokenizer->bos()), "<s>");
  EXPECT_EQ(trimmed.tokenizer->token(trimmed.tokenizer->eos()), "</s>");
  EXPECT_TRUE(trimmed.tokenizer->adds_bos());
  EXPECT_GE(trimmed.tokenizer->id("<unk>"), 0);
  EXPECT_EQ(trimmed.tokenizer->id("<unused0>"), -1);
  EXPECT_EQ(trimmed.tokenizer->decode(trimmed.tokenizer->encode("a<unused0>")), "a<unused0>");  // text now
  const TrimmedVocabulary named = trim(*whole, "a", {.chat_template = "{{ '<unused1>' }}"});
  EXPECT_GE(named.tokenizer->id("<unused1>"), 0);
  EXPECT_EQ(named.tokenizer->id("<unused0>"), -1);
  const TrimmedVocabulary required = trim(*whole, "a", {.required = {-1, 3, 1 << 30}});
  EXPECT_GE(required.tokenizer->id("<unused0>"), 0);
}

TEST(TrimVocabulary, WhatAChatIsWrittenInStays) {
  std::vector<std::string> pieces = {"user", "use", "us", "assistant"};
  for (const char* letter : {"u", "s", "e", "r", "a", "i", "t", "n", "\n", "."}) pieces.emplace_back(letter);
  for (const char* part : {"er", "ass", "as", "ist", "is", "assist", "an", "ant"}) pieces.emplace_back(part);
  const auto whole = Tokenizer::from_gguf(sentence_piece(pieces), "t.gguf");
  EXPECT_EQ(trim(*whole, "a").tokenizer->id("user"), -1);
  const TrimmedVocabulary trimmed = trim(*whole, "a", {.chat_template = "<|im_start|>"});
  EXPECT_EQ(tokens_of(*trimmed.tokenizer, "user"), tokens_of(*whole, "user"));
  EXPECT_EQ(tokens_of(*trimmed.tokenizer, "assistant"), tokens_of(*whole, "assistant"));
}

TEST(TrimVocabulary, EveryIdInTheFileIsRenumbered) {
  Random random(7);
  Json json = random_byte_level(50, random);
  const int32_t end = 256 + 50, start = end + 2;
  json["padding"] = {{"strategy", "BatchLongest"}, {"pad_id", end}, {"pad_token", "<|end|>"}};
  json["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}},
        {{"type", "TemplateProcessing"},
         {"single", {{{"SpecialToken", {{"id", "<|start|>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
         {"pair", Json::array()},
         {"special_tokens",
          {{"<|start|>", {{"id", "<|start|>"}, {"ids", Json::array({start})}, {"tokens", Json::array({"<|start|>"})}}}}}}}}};
  const auto whole = Tokenizer::from_json(json, "t.json");
  ASSERT_EQ(whole->bos(), start);
  const TrimmedVocabulary trimmed = trim(*whole, "a");
  expect_consistent(*whole, trimmed);
  const Tokenizer& tokenizer = *trimmed.tokenizer;
  EXPECT_EQ(trimmed.kept.size(), 256u + 2);
  EXPECT_EQ(tokenizer.id("<|reserved_7|>"), -1);
  EXPECT_EQ(tokenizer.bos(), tokenizer.id("<|start|>"));
  EXPECT_TRUE(tokenizer.adds_bos());
  const Json written = tokenizer.to_json();
  EXPECT_EQ(written["padding"]["pad_id"], tokenizer.id("<|end|>"));
  EXPECT_EQ(written["post_processor"]["processors"][1]["special_tokens"]["<|start|>"]["ids"][0], tokenizer.id("<|start|>"));
  EXPECT_EQ(Tokenizer::from_json(written, "again.json")->bos(), tokenizer.bos());
}

TEST(TrimVocabulary, ATokenWithoutARowGoes) {
  Random random(9);
  const auto whole = Tokenizer::from_json(random_byte_level(10, random), "t.json");
  const TrimmedVocabulary trimmed = trim(*whole, "a", {.rows = 256 + 10 + 1});
  EXPECT_GE(trimmed.tokenizer->id("<|end|>"), 0);
  EXPECT_EQ(trimmed.tokenizer->id("<|start|>"), -1);
  const TrimmedVocabulary padded = trim(*whole, "a", {.rows = 1000});  // rows without a token
  EXPECT_EQ(padded.kept.size(), 256u + 2);
}

std::string refusal(const Json& json) {
  try {
    trim(*Tokenizer::from_json(json, "t.json"), "a");
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no error";
}

TEST(TrimVocabulary, OtherTokenizersAreRefusedByName) {
  const Json word_piece = {{"model", {{"type", "WordPiece"}, {"unk_token", "[UNK]"}, {"vocab", {{"[UNK]", 0}, {"a", 1}}}}}};
  EXPECT_EQ(
      refusal(word_piece),
      "t.json: the vocabulary cannot be trimmed: model.type is WordPiece, and only BPE (byte-level or with byte fallback) "
      "can be; leave out --trim-vocab");
  Json suffixed = {{"model", {{"type", "BPE"}, {"vocab", {{"a</w>", 0}}}, {"merges", Json::array()}}}};
  suffixed["model"]["end_of_word_suffix"] = "</w>";
  EXPECT_NE(refusal(suffixed).find("model.end_of_word_suffix is </w>"), std::string::npos) << refusal(suffixed);
}

}  // namespace
}  // namespace lighten
