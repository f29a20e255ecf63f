#include "lighten/data/image_sets.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/data/image_builders.h"
#include "lighten/data/packages.h"
#include "lighten/data/picture_reader.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/image.h"

namespace lighten {
namespace {

class ImageFolder : public testing::Test {
 protected:
  void SetUp() override {
    set_quiet(true);
    folder_ = fs::temp_directory_path() / fmt::format("lighten-folder-test-{}", ::getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override {
    set_quiet(false);
    fs::remove_all(folder_);
  }
  template <typename F>
  static std::string message(const F& call) {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  fs::path folder_;
};

ImageSet made(int64_t n) {
  ImageSet set;
  set.channels = 1;
  set.height = set.width = 4;
  set.class_names = {"a", "b"};
  Random random(2);
  for (int64_t i = 0; i < n; ++i) {
    for (int p = 0; p < 16; ++p) set.pixels.push_back(static_cast<uint8_t>(random.below(256)));
    set.labels.push_back(static_cast<int32_t>(i % 2));
    set.ids.push_back(fmt::format("s{}", i));
    set.keys.push_back(fmt::format("k{}", i / 4));
  }
  set.splits = split_all(set.keys);
  return set;
}

TEST_F(ImageFolder, StoredSetsComeBack) {
  const ImageSet set = made(20);
  save_image_set(set, folder_);
  const ImageSet back = load_image_set(folder_);
  EXPECT_EQ(back.pixels, set.pixels);
  EXPECT_EQ(back.labels, set.labels);
  EXPECT_EQ(back.ids, set.ids);
  EXPECT_EQ(back.keys, set.keys);
  EXPECT_EQ(back.class_names, set.class_names);
}

TEST_F(ImageFolder, PicturesOfSubFoldersAreASet) {
  const ImageSet set = made(40);
  write_image_folder(set, folder_);
  const ImageSet back = read_image_folder(folder_, {.channels = 1});
  ASSERT_EQ(back.size(), 40);
  EXPECT_EQ(back.class_names, set.class_names);
  std::multiset<std::string> before, after;
  for (int64_t i = 0; i < 40; ++i) {
    const auto row = [&](const ImageSet& s) {
      return std::string(s.pixels.begin() + i * 16, s.pixels.begin() + (i + 1) * 16) + s.class_names[s.labels[i]] +
             std::string(split_name(s.splits[i]));
    };
    before.insert(row(set));
    after.insert(row(back));
  }
  EXPECT_EQ(before, after);
}

TEST_F(ImageFolder, WhatDoesNotDecodeIsNamed) {
  write_image_folder(made(10), folder_);
  fs::create_directories(folder_ / "train/c");
  write_file(folder_ / "train/c/broken.png", "no picture");
  EXPECT_NE(message([&] { read_image_folder(folder_); }).find("train/c/broken.png: neither a PNG nor a JPEG"),
            std::string::npos);
  EXPECT_NE(message([&] { read_image_folder(folder_ / "none"); }).find("no such folder"), std::string::npos);
  fs::create_directories(folder_ / "empty/x");
  EXPECT_NE(message([&] { read_image_folder(folder_ / "empty"); }).find("no PNG or JPEG"), std::string::npos);
  fs::create_directories(folder_ / "one/a");
  write_png(folder_ / "one/a/x.png", {1, 2, 2, {0, 1, 2, 3}});
  EXPECT_NE(message([&] { read_image_folder(folder_ / "one"); }).find("only the class 'a'"), std::string::npos);
}

TEST_F(ImageFolder, AllThatDoesNotDecodeIsNamedAtOnce) {
  write_image_folder(made(10), folder_);
  write_png(folder_ / "whole", {1, 2, 2, {0, 1, 2, 3}});
  const std::string whole = read_file(folder_ / "whole");
  for (const char* name : {"train/a/cut.png", "train/b/cut too.png"}) {
    fs::create_directories((folder_ / name).parent_path());
    write_file(folder_ / name, whole.substr(0, whole.size() / 2));
  }
  for (const std::string& text :
       {message([&] { read_image_folder(folder_); }), message([&] { read_pictures_below(folder_, {}); })}) {
    EXPECT_NE(text.find("2 of 12 pictures cannot be read"), std::string::npos) << text;
    EXPECT_NE(text.find("train/a/cut.png"), std::string::npos);
    EXPECT_NE(text.find("train/b/cut too.png"), std::string::npos);
  }
}

TEST_F(ImageFolder, PicturesBelowAFolderNeedNoClasses) {
  fs::create_directories(folder_ / "x/y");
  write_png(folder_ / "x/y/1.png", {1, 2, 2, {4, 4, 4, 4}});
  write_png(folder_ / "2.png", {1, 4, 4, std::vector<uint8_t>(16, 9)});
  write_file(folder_ / "notes.txt", "no picture");
  const ImageSet set = read_pictures_below(folder_, {.side = 2, .channels = 1});
  EXPECT_EQ(set.ids, (std::vector<std::string>{"2.png", "x/y/1.png"}));
  EXPECT_EQ(set.pixels, (Pixels{9, 9, 9, 9, 4, 4, 4, 4}));
  EXPECT_EQ(set.size(), 2);
  fs::create_directories(folder_ / "x/z");
  EXPECT_NE(message([&] { read_pictures_below(folder_ / "x/z", {}); }).find("no PNG or JPEG"), std::string::npos);
}

TEST_F(ImageFolder, LabelsAreReadByIdAndBadRowsAreNamed) {
  const ImageSet set = made(4);
  const fs::path csv = folder_ / "labels.csv";
  const auto with = [&](const std::string& rows) {
    write_file(csv, "id,label\n" + rows);
    return message([&] { read_labels(csv, set, false); });
  };
  write_file(csv, "label,id\nb,s0\nb,s3\na,s1\na,s2\n");
  EXPECT_EQ(read_labels(csv, set), (std::vector<int32_t>{1, 0, 0, 1}));
  EXPECT_NE(with("s0,a\ns1,c\n").find("labels.csv: line 3: unknown class 'c'"), std::string::npos);
  EXPECT_NE(with("s9,a\n").find("labels.csv: line 2: there is no picture 's9'"), std::string::npos);
  EXPECT_NE(with("s0,a\ns0,b\n").find("labels.csv: line 3: a second label for 's0' (the first is in line 2)"),
            std::string::npos);
  EXPECT_NE(with("s0,a\ns1,a\n").find("no label for 's2'"), std::string::npos);
}

TEST_F(ImageFolder, PicturesWithoutClassFoldersAreNamedByTheCsv) {
  for (int i = 0; i < 4; ++i)
    write_png(folder_ / fmt::format("{}.png", i), {1, 2, 2, std::vector<uint8_t>(4, static_cast<uint8_t>(i))});
  EXPECT_TRUE(has_pictures(folder_));
  const fs::path csv = folder_ / "labels.csv";
  write_file(csv, "id,label\n2.png,cat\n0.png,dog\n3.png,cat\n");
  const ImageSet set = read_labelled_pictures(folder_, csv, {.channels = 1});
  EXPECT_EQ(set.class_names, (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(set.labels, (std::vector<int32_t>{0, 1, 0}));
  EXPECT_EQ(set.pixels[4], 0);
  EXPECT_EQ(set.pixels[0], 2);
  const auto with = [&](const std::string& rows) {
    write_file(csv, "id,label\n" + rows);
    return message([&] { read_labelled_pictures(folder_, csv); });
  };
  EXPECT_NE(with("0.png,a\n9.png,b\n").find("line 3: there is no picture '9.png'"), std::string::npos);
  EXPECT_NE(with("../x.png,a\n").find("line 2: there is no picture"), std::string::npos);
  EXPECT_NE(with("0.png,a\n0.png,b\n").find("line 3: a second label"), std::string::npos);
  EXPECT_NE(with("0.png,\n").find("line 2: '0.png' has no label"), std::string::npos);
}

TEST_F(ImageFolder, SubsetsAndClassesKeepWhatBelongsTogether) {
  const ImageSet set = made(10), part = subset(set, {7, 2});
  EXPECT_EQ(part.ids, (std::vector<std::string>{"s7", "s2"}));
  EXPECT_TRUE(std::equal(part.pixels.begin(), part.pixels.begin() + 16, set.pixels.begin() + 7 * 16));
  const ImageSet only = keep_classes(set, {"b"});
  EXPECT_EQ(only.size(), 5);
  EXPECT_EQ(only.labels, std::vector<int32_t>(5, 0));
  EXPECT_THROW(keep_classes(set, {"z"}), OptionError);
}

TEST(Idx, IsReadAndChecked) {
  const std::string images(
      "\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x03"
      "abcdef",
      22),
      labels("\0\0\x08\x01\0\0\0\x02\x07\x01", 10);
  ImageSet set;
  append_idx(images, labels, "x", set);
  EXPECT_EQ(set.height, 1);
  EXPECT_EQ(set.width, 3);
  EXPECT_EQ(set.pixels[3], 'd');
  EXPECT_EQ(set.labels, (std::vector<int32_t>{7, 1}));
  EXPECT_THROW(append_idx(images.substr(0, 20), labels, "x", set), FormatError);
  EXPECT_THROW(append_idx(labels, labels, "x", set), FormatError);
}

TEST(FontKey, IsTheFirstWordOfTheFamily) {
  EXPECT_EQ(font_key("DejaVu Sans Mono"), "dejavu");
  EXPECT_EQ(font_key("3270-Condensed"), "condensed");
  EXPECT_EQ(font_key("Gillius ADF No2"), "gillius");
  EXPECT_EQ(font_key("B612"), "b");
}

TEST(DealKeys, GivesWholeKeysInTheOrderOfTheirHashes) {
  std::vector<std::string> keys;
  for (int i = 0; i < 60; ++i) keys.push_back(fmt::format("theme{}", i % 6));
  const std::vector<Split> splits = deal_keys(keys, 1, 2, 3);
  EXPECT_EQ(samples_of(splits, Split::test).size(), 20u);
  EXPECT_EQ(samples_of(splits, Split::validation).size(), 10u);
  for (size_t i = 6; i < 60; ++i) EXPECT_EQ(splits[i], splits[i % 6]);
  bool moved = false;
  for (uint64_t seed = 4; seed < 10; ++seed) moved |= deal_keys(keys, 1, 2, seed) != splits;
  EXPECT_TRUE(moved);
  EXPECT_THROW(deal_keys(keys, 3, 3, 0), OptionError);
}

TEST(IconFamily, ThemesThatShareDrawingsAreOne) {
  EXPECT_EQ(icon_family("Papirus-Dark"), "papirus");
  EXPECT_EQ(icon_family("ePapirus"), "papirus");
  EXPECT_EQ(icon_family("mate"), "gnome");
  EXPECT_EQ(icon_family("Tango"), "gnome");
  EXPECT_EQ(icon_family("elementary-xfce-darker"), icon_family("elementary"));
}

TEST(Icons, NoThemeStandsOnTwoSides) {
  if (!data_present("icons")) GTEST_SKIP() << "lighten data get icons";
  for (const uint64_t seed : {0, 1, 2}) {
    const ImageSet set = icons_set({.fetch = false, .split_seed = seed});
    check_set(set, "icons");
    EXPECT_EQ(set.class_names.size(), 100u);
    EXPECT_GT(samples_of(set.splits, Split::test).size(), 200u);
  }
}

/// On the built set, where the cache has it (tests reach for no network).
TEST(GlyphLatin, NoFontStandsOnTwoSidesAndEveryClassIsThere) {
  if (!data_present("glyph-latin")) GTEST_SKIP() << "lighten data get glyph-latin";
  const ImageSet set = glyph_latin_set({.fetch = false});
  check_set(set, "glyph-latin");  // throws if a key stands on two sides
  EXPECT_EQ(set.class_names.size(), 62u);
  EXPECT_GE(set.size(), 16000);
  std::map<Split, std::set<std::string>> fonts;
  std::map<Split, std::vector<int64_t>> classes;
  for (int64_t i = 0; i < set.size(); ++i) {
    fonts[set.splits[i]].insert(set.ids[i].substr(0, set.ids[i].rfind('/')));
    classes[set.splits[i]].resize(62);
    ++classes[set.splits[i]][set.labels[i]];
  }
  for (const auto& [split, counts] : classes)
    for (const int64_t count : counts) EXPECT_EQ(count, counts[0]);
  for (const std::string& font : fonts[Split::test]) EXPECT_FALSE(fonts[Split::train].contains(font)) << font;
  EXPECT_GE(fonts[Split::test].size(), 20u);
}

}  // namespace
}  // namespace lighten
