#include "lighten/formats/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "lighten/base/error.h"
#include "lighten/formats/file_kind.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/plain_text.h"

namespace lighten {
namespace {

/// Cuts a text into rows of cells.
class CsvReader {
 public:
  CsvReader(std::string_view text, const std::string& file, char separator) : text_(text), file_(file), separator_(separator) {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
  }
  /// The next row that is not empty, and the line it begins at; false at the end.
  bool next(std::vector<std::string>& cells, int64_t& line) {
    while (at_ < text_.size()) {
      line = line_;
      cells.clear();
      const bool blank = at_end_of_line();
      do cells.push_back(cell());
      while (taken(separator_));
      end_of_line();
      if (!blank) return true;
    }
    return false;
  }

 private:
  bool taken(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool at_end_of_line() const {
    return at_ >= text_.size() || text_[at_] == '\n' ||
           (text_[at_] == '\r' && (at_ + 1 >= text_.size() || text_[at_ + 1] == '\n'));
  }
  void end_of_line() {
    if (!at_end_of_line()) throw_error<FormatError>("{}: line {}: text after a closing quote", file_, line_);
    taken('\r');
    taken('\n');
    ++line_;
  }
  std::string cell() {
    std::string value;
    if (!taken('"')) {
      while (!at_end_of_line() && text_[at_] != separator_) value += text_[at_++];
      return value;
    }
    const int64_t opened = line_;
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '"' && !taken('"')) return value;
      if (c == '\n') ++line_;
      value += c;
    }
    throw_error<FormatError>("{}: line {}: a quote opens here and is never closed", file_, opened);
  }
  std::string_view text_;
  const std::string& file_;
  char separator_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

void check_columns(const CsvTable& table) {
  std::set<std::string> seen;
  for (const std::string& name : table.columns) {
    if (name.empty()) throw_error<FormatError>("{}: a column of the first line has no name", table.file);
    if (!seen.insert(name).second)
      throw_error<FormatError>("{}: the column '{}' stands twice in the first line", table.file, name);
  }
}

CsvTable parse_jsonl(std::string_view text, const std::string& file) {
  CsvTable table;
  table.file = file;
  int64_t line = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view row = text.substr(at, end - at);
    at = end + 1;
    ++line;
    if (row.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}: line {}", file, line);
    const Json object = formats::parse_json(row, where);
    if (!object.is_object()) throw_error<FormatError>("{}: is no JSON object", where);
    if (table.rows.empty())
      for (const auto& [name, value] : object.items()) table.columns.push_back(name);
    if (object.size() != table.columns.size())
      throw_error<FormatError>("{}: has {} fields, the first line has {}", where, object.size(), table.columns.size());
    std::vector<std::string> cells;
    for (const std::string& name : table.columns) {
      const auto it = object.find(name);
      if (it == object.end()) throw_error<FormatError>("{}: field \"{}\" of the first line is missing", where, name);
      cells.push_back(it->is_string() ? it->get<std::string>() : json_text(*it));
    }
    table.rows.push_back(std::move(cells));
    table.lines.push_back(line);
  }
  if (table.rows.empty()) throw_error<FormatError>("{}: holds no rows", file);
  return table;
}

}  // namespace

size_t CsvTable::column(const std::string& name) const {
  const auto it = std::find(columns.begin(), columns.end(), name);
  if (it == columns.end())
    throw_error<FormatError>("{}: there is no column '{}'; the first line must name it (it names: {})", file, name,
                             columns.empty() ? "none" : fmt::format("{}", fmt::join(columns, ", ")));
  return static_cast<size_t>(it - columns.begin());
}

bool CsvTable::has(const std::string& name) const { return std::find(columns.begin(), columns.end(), name) != columns.end(); }

std::string CsvTable::where(int64_t row) const { return fmt::format("{}: line {}", file, lines[static_cast<size_t>(row)]); }

std::string CsvTable::name_of(size_t column) const {
  return columns.empty() ? fmt::format("column {}", column + 1) : fmt::format("column '{}'", columns[column]);
}

int64_t CsvTable::integer(int64_t row, size_t column) const {
  const std::string& cell = text(row, column);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size())
    throw_error<FormatError>("{}: {} holds \"{}\" where a whole number must stand", where(row), name_of(column),
                             formats::printable(cell));
  return value;
}

double CsvTable::number(int64_t row, size_t column) const {
  const std::string& cell = text(row, column);
  double value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size() || !std::isfinite(value))
    throw_error<FormatError>("{}: {} holds \"{}\" where a finite number must stand", where(row), name_of(column),
                             formats::printable(cell));
  return value;
}

CsvTable parse_csv(std::string_view text, const std::string& file, const CsvOptions& options) {
  CsvTable table;
  table.file = file;
  CsvReader reader(text, file, options.separator);
  std::vector<std::string> cells;
  int64_t line = 0;
  if (options.header && reader.next(cells, line)) table.columns = cells;
  check_columns(table);
  size_t width = table.columns.size();
  while (reader.next(cells, line)) {
    if (width == 0) width = cells.size();
    if (cells.size() != width)
      throw_error<FormatError>("{}: line {}: has {} cells, but {} has {}", file, line, cells.size(),
                               options.header ? "the first line" : "the first row", width);
    table.rows.push_back(cells);
    table.lines.push_back(line);
  }
  if (table.rows.empty())
    throw_error<FormatError>("{}: holds no rows{}", file, options.header ? " after the line of column names" : "");
  return table;
}

namespace {
constexpr const char* kNoRows = "it must hold a line for every entry, after the line of column names if it has one";
}

CsvTable read_csv(const fs::path& file, const CsvOptions& options) {
  return parse_csv(read_plain_text(file, "table", kNoRows), file.string(), options);
}

CsvTable read_table(const fs::path& file) {
  const std::string kind = small_ending(file);
  if (kind == ".jsonl" || kind == ".ndjson") return parse_jsonl(read_plain_text(file, "table", kNoRows), file.string());
  return read_csv(file, {.separator = kind == ".tsv" ? '\t' : ','});
}

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\n\r") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

}  // namespace lighten
