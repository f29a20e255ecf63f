#include "lighten/formats/unicode.h"

#include <gtest/gtest.h>

#include "lighten/base/random.h"

namespace lighten::formats {
namespace {

std::string repaired(std::string_view bytes) {
  std::string out;
  append_valid_utf8(out, bytes);
  return out;
}

// Expected values: bytes.decode("utf-8", "replace") of Python 3.
TEST(Unicode, InvalidBytesAreReplacedByMaximalPartsAsInPython) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(repaired("plain \u00e9\u4e2d\U0001F600"), "plain \u00e9\u4e2d\U0001F600");
  EXPECT_EQ(repaired("\xff"), r);
  EXPECT_EQ(repaired("a\xe2\x82z"), "a" + r + "z");
  EXPECT_EQ(repaired("\xe2\x82"), r);
  EXPECT_EQ(repaired("\xf0\x9f\x98z"), r + "z");
  EXPECT_EQ(repaired("\xed\xa0\x80"), r + r + r);
  EXPECT_EQ(repaired("\xc0\xaf"), r + r);
  EXPECT_EQ(repaired("\xe0\x80\xaf"), r + r + r);
  EXPECT_EQ(repaired("\xf4\x90\x80\x80"), r + r + r + r);
  EXPECT_EQ(repaired("\xf0\x9f\xff\x80"), r + r + r);
  EXPECT_EQ(repaired(std::string_view("\0a\0", 3)), std::string("\0a\0", 3));
}

TEST(Unicode, TheCutCharacterAtTheEndWaitsWhenAsked) {
  std::string out;
  EXPECT_EQ(append_valid_utf8(out, "ab\xf0\x9f\x98", true), 2u);
  EXPECT_EQ(out, "ab");
  EXPECT_EQ(append_valid_utf8(out, "\xf0\x9f\x98\x80\xff", true), 5u);
  EXPECT_EQ(out, "ab\U0001F600\uFFFD");
}

TEST(Unicode, EveryCodePointSurvivesEncodingAndDecoding) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    ASSERT_TRUE(is_valid_utf8(text)) << static_cast<uint32_t>(c);
    size_t at = 0;
    ASSERT_EQ(next_character(text, at), c);
    ASSERT_EQ(at, text.size());
    ASSERT_EQ(character_bytes(text[0]), text.size());
  }
}

// Examples of Unicode Standard Annex 15, tables 1 to 7.
TEST(Unicode, NormalFormsFollowTheStandardsExamples) {
  EXPECT_EQ(normalize("\u212B", NormalForm::nfc), "\u00C5");
  EXPECT_EQ(normalize("\u212B", NormalForm::nfd), "A\u030A");
  EXPECT_EQ(normalize("\u2126", NormalForm::nfd), "\u03A9");
  EXPECT_EQ(normalize("\u1E69", NormalForm::nfd), "s\u0323\u0307");
  EXPECT_EQ(normalize("\u1E0B\u0323", NormalForm::nfd), "d\u0323\u0307");
  EXPECT_EQ(normalize("\u1E0B\u0323", NormalForm::nfc), "\u1E0D\u0307");
  EXPECT_EQ(normalize("q\u0307\u0323", NormalForm::nfc), "q\u0323\u0307");
  EXPECT_EQ(normalize("\uFB01", NormalForm::nfc), "\uFB01");
  EXPECT_EQ(normalize("\uFB01", NormalForm::nfkc), "fi");
  EXPECT_EQ(normalize("2\u2075", NormalForm::nfkd), "25");
  EXPECT_EQ(normalize("\u1E9B\u0323", NormalForm::nfkc), "\u1E69");
  EXPECT_EQ(normalize("\u1E9B\u0323", NormalForm::nfkd), "s\u0323\u0307");
  EXPECT_EQ(normalize("\u1E9B\u0323", NormalForm::nfc), "\u1E9B\u0323");
}

TEST(Unicode, HangulComposesAndDecomposesByItsFormula) {
  EXPECT_EQ(normalize("\uAC01", NormalForm::nfd), "\u1100\u1161\u11A8");
  EXPECT_EQ(normalize("\u1100\u1161\u11A8", NormalForm::nfc), "\uAC01");
  EXPECT_EQ(normalize("\uAC00\u11A8", NormalForm::nfc), "\uAC01");
  EXPECT_EQ(normalize("\uAC00\u11A7", NormalForm::nfc), "\uAC00\u11A7");  // one before the first final consonant
  EXPECT_EQ(normalize("\uD7A3", NormalForm::nfd), "\u1112\u1175\u11C2");
}

TEST(Unicode, CompositionUndoesDecompositionOnRandomText) {
  Random random(5);
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (int k = 0; k < 12; ++k) append_utf8(text, static_cast<char32_t>(0x20 + random.below(k % 3 ? 0x2200 : 0x60) % 0xD000));
    const std::string composed = normalize(text, NormalForm::nfc), decomposed = normalize(text, NormalForm::nfd);
    ASSERT_EQ(normalize(decomposed, NormalForm::nfc), composed);
    ASSERT_EQ(normalize(composed, NormalForm::nfd), decomposed);
    ASSERT_EQ(normalize(composed, NormalForm::nfc), composed);
    ASSERT_EQ(normalize(normalize(text, NormalForm::nfkd), NormalForm::nfkc), normalize(text, NormalForm::nfkc));
  }
}

TEST(Unicode, LowerCaseIsTheFullMappingWithoutContext) {
  EXPECT_EQ(lowercase("ABC xyz \u00C9\u0416\u10A0"), "abc xyz \u00E9\u0436\u2D00");
  EXPECT_EQ(lowercase("\u0130"), "i\u0307");
  EXPECT_EQ(lowercase("\u03A3\u03A3"), "\u03C3\u03C3");  // no final sigma
}

TEST(Unicode, ClassesHoldTheTwentyFiveSpaces) {
  int spaces = 0;
  for (char32_t c = 0; c < 0x110000; ++c) spaces += is_class(c, kSpace);
  EXPECT_EQ(spaces, 25);
  EXPECT_TRUE(is_class(0x85, kSpace) && is_class(0x3000, kSpace) && is_class('\v', kSpace));
  EXPECT_FALSE(is_class(0x180E, kSpace) || is_class(0x200B, kSpace) || is_class(0x1F, kSpace));
  EXPECT_TRUE(is_class(0x4E2D, kLetter) && is_class(0xBD, kNumber) && is_class('$', kPunctuation) && is_class('_', kWord));
  EXPECT_FALSE(is_class(0x301, kLetter) || is_class(0x110000, kLetter));
}

}  // namespace
}  // namespace lighten::formats
