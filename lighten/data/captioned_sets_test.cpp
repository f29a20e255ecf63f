#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/data/captions.h"
#include "lighten/data/image_builders.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/packages.h"
#include "lighten/formats/colour_font.h"
#include "lighten/formats/test_font.h"

namespace lighten {
namespace {

class SetFolder : public testing::Test {
 protected:
  void SetUp() override {
    set_quiet(true);
    folder_ = fs::temp_directory_path() / fmt::format("lighten-captioned-test-{}", ::getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override {
    set_quiet(false);
    fs::remove_all(folder_);
  }
  /// A font that draws each character as a box of its own.
  fs::path font(const std::string& name, const std::vector<uint32_t>& characters, int height) {
    std::vector<TestGlyph> glyphs;
    for (size_t i = 0; i < characters.size(); ++i)
      glyphs.push_back(
          {characters[i], 0, 0, static_cast<int16_t>(200 + 100 * static_cast<int>(i)), static_cast<int16_t>(height)});
    write_test_font(folder_ / name, name, glyphs);
    return folder_ / name;
  }
  fs::path folder_;
};

CaptionedSet made() {
  CaptionedSet set;
  set.pictures.channels = 1;
  set.pictures.height = set.pictures.width = 1;
  set.pictures.pixels = {1, 2, 3};
  set.pictures.labels = {0, 0, 0};
  set.pictures.class_names = {"c"};
  set.pictures.ids = {"x", "y", "z"};
  set.pictures.keys = {"x", "y", "z"};
  set.pictures.splits = {Split::train, Split::train, Split::test};
  set.captions = {"a \"cat\"", "", "dogs, two"};
  set_keywords(set, {{"cat", "animal", "cat"}, {}, {"animal", "dog"}});
  return set;
}

TEST_F(SetFolder, CaptionsComeBack) {
  const CaptionedSet set = made();
  EXPECT_EQ(set.keyword_names, (std::vector<std::string>{"animal", "cat", "dog"}));
  EXPECT_EQ(set.keywords, (std::vector<std::vector<int32_t>>{{0, 1}, {}, {0, 2}}));
  save_captioned_set(set, folder_);
  const CaptionedSet back = load_captioned_set(folder_);
  EXPECT_EQ(back.captions, set.captions);
  EXPECT_EQ(back.keywords, set.keywords);
  EXPECT_TRUE(back.pictures.pixels.mapped());
  EXPECT_EQ(back.pictures.pixels, set.pictures.pixels);
  write_file(folder_ / "captions.tsv", "id\tcaption\tkeywords\nx\ta\tb\nz\ta\tb\ny\ta\tb\n");
  try {
    load_captioned_set(folder_);
    FAIL() << "accepted";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("line 3: 'z' where samples.tsv has 'y'"), std::string::npos) << error.what();
  }
}

TEST(Captions, RareKeywordsAreCountedOnTrainingPictures) {
  CaptionedSet set = made();
  keep_frequent_keywords(set, 1);
  EXPECT_EQ(set.keyword_names, (std::vector<std::string>{"animal", "cat"}));
  EXPECT_EQ(set.keywords, (std::vector<std::vector<int32_t>>{{0, 1}, {}, {0}}));
}

TEST(Pixels, MappedBytesAreCopiedBeforeTheyChange) {
  const auto bytes = std::make_shared<std::vector<uint8_t>>(std::vector<uint8_t>{1, 2});
  Pixels pixels(std::span<const uint8_t>(*bytes), bytes);
  const Pixels copy = pixels;
  EXPECT_EQ(copy.data(), bytes->data());
  pixels.push_back(3);
  EXPECT_FALSE(pixels.mapped());
  EXPECT_EQ(pixels, Pixels({1, 2, 3}));
  EXPECT_EQ(copy.size(), 2u);
}

TEST_F(SetFolder, CharactersOfManyDesignsAreDrawnOnceEachAndCopiesShareAKey) {
  const std::vector<uint32_t> wanted = {0x4E00, 0x4E01, 0x4E02, 0x4E03};
  const std::vector<GlyphDesign> designs = {
      {"wide", {font("a.ttf", {0x4E00, 0x4E01, 0x4E02}, 300)}},
      {"tall", {font("b.ttf", {0x4E00}, 900), font("b2.ttf", {0x4E01}, 700)}},
      {"copy", {font("c.ttf", {0x4E00, 0x4E01, 0x4E02}, 300)}},
  };
  const ImageSet set = draw_designs(designs, wanted, 2, 28);
  EXPECT_EQ(set.class_names, (std::vector<std::string>{"U+4E00", "U+4E01"}));
  EXPECT_EQ(set.ids, (std::vector<std::string>{"wide/4e00", "wide/4e01", "tall/4e00", "tall/4e01"}));
  EXPECT_EQ(set.keys, (std::vector<std::string>{"wide", "wide", "tall", "tall"}));
  EXPECT_EQ(set.labels, (std::vector<int32_t>{0, 1, 0, 1}));
  EXPECT_EQ(draw_designs(designs, wanted, 2, 28).pixels, set.pixels);
}

TEST(Emoji, LinesAndKeysAreRead) {
  const std::string text =
      "# comment\n# group: People & Body\n# subgroup: person-role\n"
      "1F468 1F3FB 200D 1F33E ; fully-qualified     # x E4.0 man farmer: light skin tone\n"
      "1F468 200D 2695        ; minimally-qualified # x E4.0 man health worker\n"
      "1F9D1 200D 1F33E       ; fully-qualified     # x E12.1 farmer\n"
      "# group: Flags\n# subgroup: country-flag\n"
      "1F1E6 1F1F9 ; fully-qualified # x E2.0 flag: Austria\n";
  const std::vector<EmojiLine> lines = parse_emoji_test(text, "f");
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].characters, (std::vector<uint32_t>{0x1F468, 0x1F3FB, 0x200D, 0x1F33E}));
  EXPECT_EQ(lines[0].name, "man farmer: light skin tone");
  EXPECT_EQ(emoji_key(lines[0]), "farmer");
  EXPECT_EQ(emoji_key(lines[1]), "farmer");
  EXPECT_EQ(emoji_key(lines[2]), "flag: Austria");
  EXPECT_EQ(emoji_key({{}, "People & Body", "person", "woman"}), emoji_key({{}, "People & Body", "person", "man"}));
  EXPECT_THROW(parse_emoji_test("1F600 grinning\n", "f"), FormatError);
}

TEST(Emoji, AnnotationsHaveNamesAndKeywords) {
  const auto found = parse_annotations(
      "<annotation cp=\"&amp;\">and | Sign</annotation>\n<annotation cp=\"&amp;\" type=\"tts\">ampersand</annotation>");
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found.at("&").name, "ampersand");
  EXPECT_EQ(found.at("&").keywords, (std::vector<std::string>{"and", "sign"}));
}

TEST(Emoji, LigaturesOfAFontAreRead) {
  // Header (lookup list at 10), one lookup of type 4 with one subtable: coverage {5}, ligature 5 7 9 -> 42.
  const std::vector<uint8_t> table = {0, 1,  0, 0, 0, 0, 0, 0,  0, 10,  // version, script and feature lists, lookups
                                      0, 1,  0, 4,                      // one lookup, 4 bytes on
                                      0, 4,  0, 0, 0, 1, 0, 8,          // type 4, flags, one subtable, 8 bytes on
                                      0, 1,  0, 8, 0, 1, 0, 14,         // format 1, coverage at 8, one set at 14
                                      0, 1,  0, 1, 0, 5,                // coverage: glyph 5
                                      0, 1,  0, 4,                      // one ligature, 4 bytes on
                                      0, 42, 0, 3, 0, 7, 0, 9};
  const auto ligatures = read_ligatures(std::as_bytes(std::span(table)), "font");
  ASSERT_EQ(ligatures.size(), 1u);
  EXPECT_EQ(ligatures.at({5, 7, 9}), 42);
  EXPECT_THROW(read_ligatures(std::as_bytes(std::span(table).first(40)), "font"), FormatError);
}

TEST(Clipart, NotesOfDrawingsAreRead) {
  const DrawingNote note = parse_drawing_note(
      "<svg><dc:title>not this</dc:title><rdf:RDF><dc:title> A &amp; B\n</dc:title><dc:subject><rdf:Bag><rdf:li>Hat, "
      "Cap</rdf:li>"
      "<rdf:li></rdf:li><rdf:li>red</rdf:li></rdf:Bag></dc:subject><dc:creator><cc:Agent><dc:title>Ann "
      "Lee</dc:title></cc:Agent></dc:creator></rdf:RDF></svg>");
  EXPECT_EQ(note.title, "A & B");
  EXPECT_EQ(note.creator, "Ann Lee");
  EXPECT_EQ(note.keywords, (std::vector<std::string>{"hat", "cap", "red"}));
  EXPECT_TRUE(parse_drawing_note("<svg/>").keywords.empty());
  EXPECT_EQ(artist_key("Ann  Lee [a@b.c]", "food"), "ann lee");
  EXPECT_EQ(artist_key("", "food"), "folder food");
}

/// On the built sets, where the cache has them (tests reach for no network).
TEST(BuiltSets, NoKeyStandsOnTwoSides) {
  int checked = 0;
  for (const std::string id : {"glyph-n", "emoji", "clipart"}) {
    if (!data_present(id)) continue;
    ++checked;
    for (const uint64_t seed : {0, 1}) {
      const ImageSet set = image_set(id, {.fetch = false, .split_seed = seed});
      check_set(set, id);  // throws if a key stands on two sides
      EXPECT_GT(samples_of(set.splits, Split::test).size(), 200u) << id;
      std::vector<int64_t> training(set.class_names.size());
      for (int64_t i = 0; i < set.size(); ++i) training[set.labels[i]] += set.splits[i] == Split::train;
      EXPECT_GT(*std::min_element(training.begin(), training.end()), 0) << id;
      if (id == "glyph-n") {
        EXPECT_GE(set.class_names.size(), 20'000u);
      }
    }
  }
  if (checked == 0) GTEST_SKIP() << "lighten data get glyph-n, emoji, clipart";
}

}  // namespace
}  // namespace lighten
