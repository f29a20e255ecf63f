#include "lighten/formats/text_rows.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "lighten/base/error.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/file_kind.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/plain_text.h"

namespace lighten {
namespace {

/// Reading a table skips empty lines; in a table of one column that would move all later texts to other rows.
void refuse_empty_lines(const CsvTable& table) {
  if (table.columns.size() > 1) return;
  int64_t next = 2;
  for (int64_t row = 0; row < table.size(); ++row) {
    if (table.lines[static_cast<size_t>(row)] != next)
      throw_error<FormatError>("{}: line {} is empty; write \"\" for an empty text, or take the line out", table.file, next);
    const std::string& text = table.text(row, 0);
    next += 1 + std::count(text.begin(), text.end(), '\n');
  }
}

std::vector<std::string> column_of(const CsvTable& table, const std::string& name) {
  const size_t column = table.column(name);
  refuse_empty_lines(table);
  std::vector<std::string> texts;
  for (int64_t row = 0; row < table.size(); ++row) texts.push_back(table.text(row, column));
  return texts;
}

bool holds_json_lines(const fs::path& file) {
  const std::string kind = small_ending(file);
  return kind == ".jsonl" || kind == ".ndjson";
}

constexpr std::array kNotLines = {".json", ".npy", ".npz", ".parquet", ".xlsx", ".gz", ".zip"};
constexpr std::string_view kMark = "\xEF\xBB\xBF";

}  // namespace

std::vector<std::string> read_text_rows(const fs::path& file, const std::string& column) {
  const std::string kind = small_ending(file);
  if (kind == ".csv" || kind == ".tsv") return column_of(read_table(file), column);
  if (std::find(kNotLines.begin(), kNotLines.end(), kind) != kNotLines.end())
    throw_error<FormatError>("{}: a {} holds no texts by line; give .txt (one a line), .jsonl, .csv or .tsv", file.string(),
                             kind);
  const bool json = holds_json_lines(file);
  std::string content = read_plain_text(file, "text file", "give one text a line");
  if (json) content.erase(content.find_last_not_of("\r\n") + 1);
  std::vector<std::string> texts;
  for (size_t at = content.starts_with(kMark) ? kMark.size() : 0; at < content.size();) {
    const size_t end = std::min(content.find('\n', at), content.size());
    std::string line = content.substr(at, end - at);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    at = end + 1;
    if (json) {
      const std::string where = fmt::format("{}: line {}", file.string(), texts.size() + 1);
      if (line.empty()) throw_error<FormatError>("{}: is empty; every line is an object with \"{}\"", where, column);
      const Json row = formats::parse_json(line, where);
      line = formats::Fields(row, where).text(column);
    }
    texts.push_back(std::move(line));
  }
  return texts;
}

std::string read_prose(const fs::path& file, const std::string& role) {
  if (!holds_json_lines(file)) return read_plain_text(file, role);
  std::string prose;
  for (const std::string& text : read_text_rows(file)) prose += text + '\n';
  return prose;
}

}  // namespace lighten
