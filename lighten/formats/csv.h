// Tables of texts that people bring: CSV, TSV and JSONL, with the line of every row for error messages.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

struct CsvTable {
  std::string file;
  std::vector<std::string> columns;            ///< names; empty for a file without a header
  std::vector<std::vector<std::string>> rows;  ///< as many cells each as there are columns
  std::vector<int64_t> lines;                  ///< where each row begins, from 1

  int64_t size() const { return static_cast<int64_t>(rows.size()); }
  /// The place of a column; throws FormatError that lists the ones there are.
  size_t column(const std::string& name) const;
  bool has(const std::string& name) const;
  /// "file: line 12", for errors about row `row`.
  std::string where(int64_t row) const;
  const std::string& text(int64_t row, size_t column) const { return rows[static_cast<size_t>(row)][column]; }
  /// Whole numbers and numbers; throw FormatError that names file, line, column and what stands there. A number must be finite.
  int64_t integer(int64_t row, size_t column) const;
  double number(int64_t row, size_t column) const;

 private:
  std::string name_of(size_t column) const;
};

struct CsvOptions {
  char separator = ',';
  bool header = true;  ///< the first row names the columns
};

/// CSV as RFC 4180 has it: fields in quotes may hold separators, line ends and doubled quotes; CRLF or LF; a UTF-8 mark at the
/// beginning and empty lines are skipped. Throws FormatError that names the line: a row with another number of cells, an
/// unfinished quote, text after a closing quote, a repeated or empty column name, a file without rows.
CsvTable read_csv(const fs::path& file, const CsvOptions& options = {});
CsvTable parse_csv(std::string_view text, const std::string& file, const CsvOptions& options = {});

/// .jsonl: one object a line; the columns are the fields of the first one, texts as they are, everything else as JSON text. A
/// later line must have the same fields. .tsv: separated by tabs. Anything else: CSV.
CsvTable read_table(const fs::path& file);

/// `text` as a CSV field: in quotes where it must be.
std::string csv_field(std::string_view text);

}  // namespace lighten
