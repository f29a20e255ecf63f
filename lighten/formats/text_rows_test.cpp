#include "lighten/formats/text_rows.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "lighten/base/error.h"

namespace lighten {
namespace {

class TextRows : public testing::Test {
 protected:
  fs::path folder = fs::temp_directory_path() / fmt::format("lighten-texts-{}", ::getpid());
  void SetUp() override { fs::create_directories(folder); }
  void TearDown() override { fs::remove_all(folder); }
  std::vector<std::string> read(const std::string& name, const std::string& content, const std::string& column = "text") const {
    write_file(folder / name, content);
    return read_text_rows(folder / name, column);
  }
  std::string message(const std::string& name, const std::string& content) const {
    try {
      read(name, content);
    } catch (const FormatError& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(TextRows, AnyFormGivesTheSameTexts) {
  const std::vector<std::string> wanted = {"a tool, \"quick\"", "", "naïve"};
  EXPECT_EQ(read("t.txt", "a tool, \"quick\"\n\nnaïve\n"), wanted);
  EXPECT_EQ(read("t", "a tool, \"quick\"\r\n\r\nnaïve"), wanted);
  EXPECT_EQ(read("t.jsonl", "{\"text\": \"a tool, \\\"quick\\\"\"}\n{\"text\": \"\", \"n\": 1}\n{\"text\": \"naïve\"}\n"),
            wanted);
  EXPECT_EQ(read("t.csv", "n,text\n1,\"a tool, \"\"quick\"\"\"\n2,\n3,naïve\n"), wanted);
  EXPECT_EQ(read("T.CSV", "text\n\"a tool, \"\"quick\"\"\"\n\"\"\nnaïve\n\n"), wanted) << "a quoted empty text is one";
  EXPECT_EQ(read("T.JSONL", "\xEF\xBB\xBF{\"text\": \"a\"}\r\n{\"text\": \"b\"}\n\n"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(read("mark.txt", "\xEF\xBB\xBFone\n"), std::vector<std::string>{"one"});
  EXPECT_EQ(read("t.tsv", "n\tbody\n1\tone\n", "body"), std::vector<std::string>{"one"});
}

TEST_F(TextRows, ProseOfJsonLinesIsTheirTexts) {
  write_file(folder / "chats.jsonl", "{\"text\": \"one\\ntwo\", \"id\": 3}\n{\"text\": \"three\"}\n");
  EXPECT_EQ(read_prose(folder / "chats.jsonl", "calibration file"), "one\ntwo\nthree\n");
  write_file(folder / "plain.txt", "{\"text\": 1}\n\n");
  EXPECT_EQ(read_prose(folder / "plain.txt", "calibration file"), "{\"text\": 1}\n\n");
  write_file(folder / "other.jsonl", "{\"messages\": []}\n");
  try {
    read_prose(folder / "other.jsonl", "calibration file");
    ADD_FAILURE() << "rows without a text are no prose";
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("other.jsonl: line 1"), std::string::npos) << error.what();
  }
}

TEST_F(TextRows, BadOnesNameFileAndLine) {
  EXPECT_NE(message("t.jsonl", "{\"text\": \"a\"}\n{\"body\": \"b\"}\n").find("t.jsonl: line 2"), std::string::npos);
  EXPECT_NE(message("t.csv", "n,body\n1,b\n").find("text"), std::string::npos);
  EXPECT_NE(message("t.csv", "text\n\"two\nlines\"\n\nc\n").find("line 4 is empty"), std::string::npos);
  EXPECT_NE(message("t.jsonl", "{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n").find("line 2: is empty"), std::string::npos);
  for (const std::string name : {"t.json", "t.npz", "t.npy", "T.PARQUET"})
    EXPECT_NE(message(name, "a\n").find("holds no texts by line"), std::string::npos) << name;
  EXPECT_NE(message("t.txt", "").find("t.txt"), std::string::npos);
  EXPECT_NE(message("t.txt", std::string("a\0b", 3)).find("t.txt"), std::string::npos);
}

}  // namespace
}  // namespace lighten
