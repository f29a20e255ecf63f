// Texts that people bring, one a row.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

/// Of a .jsonl (.ndjson) the field `column` of every line, of a .csv or .tsv the column of that name (with a header), of any
/// other text file its lines (without line ends; an empty line is an empty text). A UTF-8 mark at the beginning is skipped.
/// Throws FileError if it cannot be read, FormatError that names file and line if it is empty, binary, of a kind that is not
/// lines of text (.json, .npy, .npz, .parquet, .xlsx, .gz, .zip), or a row has no such text: an empty line among the rows of a
/// table with one column, or of a .jsonl.
std::vector<std::string> read_text_rows(const fs::path& file, const std::string& column = "text");

/// One running text: of a .jsonl (.ndjson) the rows of read_text_rows(), a line end behind each; any other file as
/// read_plain_text() gives it. `role` ("calibration file") begins the messages of the latter.
std::string read_prose(const fs::path& file, const std::string& role);

}  // namespace lighten
