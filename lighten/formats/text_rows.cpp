#include "lighten/formats/text_rows.h"

#include <algorithm>

#include "lighten/base/error.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/plain_text.h"

namespace lighten {
namespace {

std::vector<std::string> column_of(const CsvTable& table, const std::string& name) {
  const size_t column = table.column(name);
  std::vector<std::string> texts;
  for (int64_t row = 0; row < table.size(); ++row) texts.push_back(table.text(row, column));
  return texts;
}

}  // namespace

std::vector<std::string> read_text_rows(const fs::path& file, const std::string& column) {
  const fs::path kind = file.extension();
  if (kind == ".csv" || kind == ".tsv") return column_of(read_table(file), column);
  const std::string content = read_plain_text(file, "text file", "give one text a line");
  std::vector<std::string> texts;
  for (size_t at = 0; at < content.size();) {
    const size_t end = std::min(content.find('\n', at), content.size());
    std::string line = content.substr(at, end - at);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    at = end + 1;
    if (kind == ".jsonl") {
      const std::string where = fmt::format("{}: line {}", file.string(), texts.size() + 1);
      const Json row = formats::parse_json(line, where);
      line = formats::Fields(row, where).text(column);
    }
    texts.push_back(std::move(line));
  }
  return texts;
}

}  // namespace lighten
