#include "lighten/data/client_files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/formats/image.h"
#include "lighten/formats/npy.h"

namespace lighten {
namespace {

class ClientFolder : public testing::Test {
 protected:
  fs::path folder = fs::temp_directory_path() / fmt::format("lighten-clients-{}", ::getpid());
  void SetUp() override { set_quiet(true); }
  void TearDown() override {
    fs::remove_all(folder);
    set_quiet(false);
  }
  void features(const std::string& client, int64_t rows, const std::string& labels) const {
    fs::create_directories(folder / client);
    std::vector<float> values;
    for (int64_t i = 0; i < 2 * rows; ++i) values.push_back(static_cast<float>(i));
    write_npy(folder / client / "features.npy", {rows, 2}, values);
    if (!labels.empty()) write_file(folder / client / "labels.csv", labels);
  }
  std::string message() const {
    try {
      read_clients(folder);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(ClientFolder, SamplesStandClientByClientAndEmptyLabelsAreNone) {
  features("b", 3, "id,label\n2,pear\n0,apple\n1,\n");
  features("a", 2, "");
  const ClientFiles files = read_clients(folder);
  EXPECT_EQ(files.names, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(files.begin, (std::vector<int64_t>{0, 2, 5}));
  EXPECT_EQ(files.ids, (std::vector<std::string>{"0", "1", "0", "1", "2"}));
  EXPECT_EQ(files.class_names, (std::vector<std::string>{"apple", "pear"}));
  EXPECT_EQ(files.labels, (std::vector<int32_t>{-1, -1, 0, -1, 1}));
  EXPECT_EQ(files.features, (std::vector<float>{0, 1, 2, 3, 0, 1, 2, 3, 4, 5}));
}

TEST_F(ClientFolder, TextsAreRows) {
  for (const std::string client : {"a", "b"}) fs::create_directories(folder / client);
  write_file(folder / "a" / "texts.txt", "one\ntwo\n");
  write_file(folder / "b" / "texts.jsonl", "{\"text\": \"three\"}\n");
  write_file(folder / "b" / "labels.csv", "id,label\n0,odd\n");
  const ClientFiles files = read_clients(folder);
  EXPECT_FALSE(files.are_pictures());
  EXPECT_EQ(files.texts, (std::vector<std::string>{"one", "two", "three"}));
  EXPECT_EQ(files.ids, (std::vector<std::string>{"0", "1", "0"}));
  EXPECT_EQ(files.labels, (std::vector<int32_t>{-1, -1, 0}));
  EXPECT_EQ(client_rows(folder / "b"), folder / "b" / "texts.jsonl");
  features("c", 2, "");
  EXPECT_NE(message().find("holds features, the clients before hold texts"), std::string::npos) << message();
  EXPECT_EQ(client_rows(folder / "c"), folder / "c" / "features.npy");
  EXPECT_THROW(client_rows(folder), FileError);
  write_file(folder / "b" / "texts.csv", "text\nx\n");
  EXPECT_NE(message().find("client 'b' holds both texts.jsonl and texts.csv"), std::string::npos) << message();
}

TEST_F(ClientFolder, PicturesAreBroughtToOneSize) {
  for (const std::string client : {"x", "y"}) {
    fs::create_directories(folder / client);
    write_png(folder / client / "one.png",
              {.channels = 1, .height = 4, .width = 8, .pixels = std::vector<uint8_t>(32, client == "x" ? 7 : 200)});
  }
  write_file(folder / "x" / "labels.csv", "id,label\none.png,dark\n");
  const ClientFiles files = read_clients(folder, {.side = 8, .grey = true});
  EXPECT_TRUE(files.are_pictures());
  EXPECT_EQ(files.pictures.pixels.size(), 2u * 64);
  EXPECT_EQ(files.pictures.pixels[4 * 8 + 4], 7);         // the middle of the first
  EXPECT_EQ(files.pictures.pixels[64 + 4 * 8 + 4], 200);  // and of the second
  EXPECT_EQ(files.labels, (std::vector<int32_t>{0, -1}));
  features("z", 2, "");
  EXPECT_NE(message().find("same kind"), std::string::npos);
}

TEST_F(ClientFolder, BrokenPicturesOfAllClientsAreNamed) {
  for (const std::string client : {"x", "y"}) {
    fs::create_directories(folder / client);
    write_file(folder / client / "cut.png", "no picture");
    write_file(folder / client / "labels.csv", "id,label\ncut.png,dark\n");
  }
  const std::string text = message();
  EXPECT_NE(text.find("2 of 2 pictures"), std::string::npos) << text;
  EXPECT_NE(text.find("x/cut.png"), std::string::npos);
  EXPECT_NE(text.find("y/cut.png"), std::string::npos);
}

TEST_F(ClientFolder, WhatIsWrongIsNamed) {
  EXPECT_NE(message().find("no such folder"), std::string::npos);
  fs::create_directories(folder);
  EXPECT_NE(message().find("no sub-folder"), std::string::npos);
  fs::create_directories(folder / "desert");
  EXPECT_NE(message().find("client 'desert' has no data"), std::string::npos);
  fs::remove(folder / "desert");
  features("a", 2, "id,label\n0,x\n5,y\n");
  EXPECT_NE(message().find("line 3"), std::string::npos) << message();
  features("a", 2, "id,label\n0,x\n0,y\n");
  EXPECT_NE(message().find("line 2"), std::string::npos) << message();
}

}  // namespace
}  // namespace lighten
