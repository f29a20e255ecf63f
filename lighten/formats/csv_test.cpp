#include "lighten/formats/csv.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"

namespace lighten {
namespace {

template <typename Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const FormatError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Csv, QuotesLineEndsAndLines) {
  const CsvTable table = parse_csv("\xEF\xBB\xBFid,text\r\n1,\"a, \"\"b\"\"\nc\"\r\n\r\n2,\n", "t.csv");
  EXPECT_EQ(table.columns, (std::vector<std::string>{"id", "text"}));
  ASSERT_EQ(table.size(), 2);
  EXPECT_EQ(table.text(0, 1), "a, \"b\"\nc");
  EXPECT_EQ(table.text(1, 1), "");
  EXPECT_EQ(table.lines, (std::vector<int64_t>{2, 5}));  // a cell of two lines and an empty line stand between
  EXPECT_EQ(table.integer(1, table.column("id")), 2);
  for (const std::string text : {"plain", "a,b", "say \"x\"", "two\nlines", ""})
    EXPECT_EQ(parse_csv("c,d\n" + csv_field(text) + ",1\n", "t").text(0, 0), text);
}

TEST(Csv, ErrorsNameTheLine) {
  const auto error = [](const std::string& text) { return message_of([&] { parse_csv(text, "t.csv"); }); };
  EXPECT_NE(error("a,b\n1,2\n3\n").find("t.csv: line 3: has 1 cells, but the first line has 2"), std::string::npos);
  EXPECT_NE(error("a,b\n1,\"2\n3\n").find("t.csv: line 2: a quote opens"), std::string::npos);
  EXPECT_NE(error("a,b\n\"1\"x,2\n").find("t.csv: line 2: text after"), std::string::npos);
  EXPECT_NE(error("a,a\n1,2\n").find("'a' stands twice"), std::string::npos);
  EXPECT_NE(error("a,b\n").find("holds no rows"), std::string::npos);
  const CsvTable table = parse_csv("a,b\n1,x\n1e999,nan\n", "t.csv");
  EXPECT_NE(message_of([&] { table.column("c"); }).find("no column 'c'"), std::string::npos);
  EXPECT_NE(message_of([&] { table.number(0, 1); }).find("t.csv: line 2: column 'b' holds \"x\""), std::string::npos);
  EXPECT_NE(message_of([&] { table.number(1, 0); }).find("line 3"), std::string::npos);
  EXPECT_NE(message_of([&] { table.number(1, 1); }).find("finite"), std::string::npos);
  EXPECT_NE(message_of([&] { table.integer(1, 0); }).find("whole number"), std::string::npos);
}

TEST(Csv, TabsWithoutHeader) {
  const CsvTable table = parse_csv("1\t2\n3\t4\n", "e.tsv", {.separator = '\t', .header = false});
  EXPECT_EQ(table.size(), 2);
  EXPECT_EQ(table.integer(1, 0), 3);
  EXPECT_NE(message_of([&] { parse_csv("1\t2\n3\n", "e.tsv", {.separator = '\t', .header = false}); }).find("line 2"),
            std::string::npos);
}

TEST(Csv, Jsonl) {
  const fs::path file = fs::temp_directory_path() / "lighten-csv-test.jsonl";
  write_file(file, "{\"id\": 3, \"text\": \"a\\nb\"}\n\n{\"text\": \"c\", \"id\": 4.5}\n");
  const CsvTable table = read_table(file);
  EXPECT_EQ(table.text(0, table.column("text")), "a\nb");
  EXPECT_EQ(table.integer(0, table.column("id")), 3);
  EXPECT_DOUBLE_EQ(table.number(1, table.column("id")), 4.5);
  EXPECT_EQ(table.lines, (std::vector<int64_t>{1, 3}));
  write_file(file, "{\"id\": 3}\n{\"name\": 1}\n");
  EXPECT_NE(message_of([&] { read_table(file); }).find("line 2: field \"id\""), std::string::npos);
  fs::remove(file);
}

}  // namespace
}  // namespace lighten
