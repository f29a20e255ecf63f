#include "lighten/formats/pretokenizer.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/formats/unicode.h"

namespace lighten::formats {
namespace {

using Words = std::vector<std::string>;

struct Collect : WordSink {
  Words words;
  void word(std::string_view text) override { words.emplace_back(text); }
};

Words split(const std::string& json, std::string_view text) {
  Collect sink;
  PreTokenizer(Json::parse(json), "test").split(text, true, sink);
  return sink.words;
}

std::string message(const std::string& json) {
  try {
    PreTokenizer(Json::parse(json), "t.json: pre_tokenizer");
  } catch (const FormatError& error) {
    return error.what();
  }
  return "";
}

Words known_words(KnownPattern pattern, std::string_view text) {
  Words words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = word_end(pattern, text, at);
    words.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

Words regex_words(const Regex& regex, std::string_view text) {
  Words words;
  regex.for_each_match(text, [&](size_t start, size_t end) { words.emplace_back(text.substr(start, end - start)); });
  return words;
}

TEST(PreTokenizer, WordsOfGpt2) {
  EXPECT_EQ(known_words(KnownPattern::gpt2, "Hello  world's 123 \u00e9t\u00e9!! \n x  "),
            (Words{"Hello", " ", " world", "'s", " 123", " \u00e9t\u00e9", "!!", " \n", " x", "  "}));
}

TEST(PreTokenizer, WordsOfLlama3AndQwen2) {
  EXPECT_EQ(known_words(KnownPattern::llama3, "I'LL pay $12345 now.\n\n  ok"),
            (Words{"I", "'LL", " pay", " $", "123", "45", " now", ".\n\n", " ", " ok"}));
  EXPECT_EQ(known_words(KnownPattern::qwen2, "a 12 \r\n b"), (Words{"a", " ", "1", "2", " \r\n", " b"}));
}

TEST(PreTokenizer, HandWrittenWordsEqualTheRegularExpression) {
  Random random(11);
  const std::vector<std::string> alphabet = {"a",      "Z",      "\u00e9", "\u4e2d", "1",  "\u00bd",    " ",      " ", "\n",
                                             "\r",     "\t",     "'",      "s",      "S",  "re",        "L",      "l", "!",
                                             "\u0301", "\u00a0", "\u017f", "\u3000", "D",  "m",         "\u180e", "v", "E",
                                             "\x1c",   "\v",     "\u200d", "0",      "''", "\U0001F600"};
  for (const KnownPattern pattern : {KnownPattern::gpt2, KnownPattern::llama3, KnownPattern::qwen2}) {
    const Regex regex(std::string(pattern_text(pattern)), "test");
    for (int i = 0; i < 20000; ++i) {
      std::string text;
      for (uint64_t k = 1 + random.below(12); k > 0; --k) text += alphabet[random.below(alphabet.size())];
      ASSERT_EQ(known_words(pattern, text), regex_words(regex, text)) << text;
    }
  }
}

TEST(PreTokenizer, LettersNewerThanPcre2AreLetters) {
  const Regex letters("\\p{L}+", "test"), others("[^\\s\\p{L}]+", "test");
  const std::string garay = "\U00010D50\U00010D51";  // assigned in Unicode 16
  EXPECT_EQ(regex_words(letters, garay + "!"), (Words{garay}));
  EXPECT_EQ(regex_words(others, garay + "!"), (Words{"!"}));
}

TEST(PreTokenizer, BehavioursOfSplit) {
  const auto words = [](const std::string& behaviour, bool invert) {
    return split(R"({"type":"Split","pattern":{"String":"-"},"behavior":")" + behaviour + R"(","invert":)" +
                     (invert ? "true" : "false") + "}",
                 "the-final--countdown");
  };
  // The example in the reference's documentation.
  EXPECT_EQ(words("Removed", false), (Words{"the", "final", "countdown"}));
  EXPECT_EQ(words("Isolated", false), (Words{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(words("MergedWithPrevious", false), (Words{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(words("MergedWithNext", false), (Words{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(words("Contiguous", false), (Words{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(words("Removed", true), (Words{"-", "-", "-"}));
}

TEST(PreTokenizer, SmolLm2SplitsDigitsBeforeItSplitsWords) {
  const std::string json = R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},
      {"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}]})";
  EXPECT_EQ(split(json, "a  23"), (Words{"a", "\u0120\u0120", "2", "3"}));
}

TEST(PreTokenizer, MetaspaceMarksSpacesAndTheStart) {
  EXPECT_EQ(split(R"({"type":"Metaspace","replacement":"\u2581","prepend_scheme":"always"})", "Hey  you"),
            (Words{"\u2581Hey", "\u2581", "\u2581you"}));
  EXPECT_EQ(split(R"({"type":"Metaspace","replacement":"\u2581","prepend_scheme":"never","split":false})", "Hey you"),
            (Words{"Hey\u2581you"}));
}

TEST(PreTokenizer, BertAndWhitespaceAndPunctuation) {
  EXPECT_EQ(split(R"({"type":"BertPreTokenizer"})", "Hey, it's\u3000me"), (Words{"Hey", ",", "it", "'", "s", "me"}));
  EXPECT_EQ(split(R"({"type":"Whitespace"})", "Hey, you_2!? "), (Words{"Hey", ",", "you_2", "!?"}));
  EXPECT_EQ(split(R"({"type":"Punctuation","behavior":"Contiguous"})", "a!?b"), (Words{"a", "!?", "b"}));
}

TEST(PreTokenizer, ByteCharactersAreABijection) {
  std::string bytes, characters;
  for (int b = 0; b < 256; ++b) bytes.push_back(static_cast<char>(b));
  append_byte_characters(characters, bytes);
  EXPECT_TRUE(is_valid_utf8(characters));
  EXPECT_EQ(bytes_of_characters(characters), bytes);
  EXPECT_EQ(bytes_of_characters("a\u4e2d"), std::nullopt);
}

TEST(PreTokenizer, UnknownPartsAreNamed) {
  EXPECT_NE(
      message(R"({"type":"UnicodeScripts"})").find("t.json: pre_tokenizer: pre-tokenizer \"UnicodeScripts\" is not supported"),
      std::string::npos);
  EXPECT_NE(message(R"({"type":"Sequence","pretokenizers":[{"type":"Nope"}]})").find("pretokenizers[0]"), std::string::npos);
  EXPECT_NE(
      message(R"({"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"})").find("not a valid regular expression"),
      std::string::npos);
  EXPECT_NE(message(R"({"type":"Split","pattern":{"Regex":"[\\p{L}&&[^a]]"},"behavior":"Isolated"})").find("&&"),
            std::string::npos);
  EXPECT_NE(message(R"({"type":"Split","pattern":{"String":"a"},"behavior":"Sideways"})").find("\"behavior\""),
            std::string::npos);
  EXPECT_NE(message(R"({"type":"Split","pattern":{"String":""},"behavior":"Isolated"})").find("\"String\" is empty"),
            std::string::npos);
  EXPECT_NE(message(R"({"type":5})").find("type"), std::string::npos);
  EXPECT_NE(message(R"([1])").find("pre_tokenizer"), std::string::npos);
}

TEST(PreTokenizer, APatternThatExplodesIsAnErrorNotAHang) {
  const Regex regex("(a+)+$", "t.json");
  EXPECT_THROW(regex_words(regex, std::string(60, 'a') + "b"), FormatError);
}

}  // namespace
}  // namespace lighten::formats
