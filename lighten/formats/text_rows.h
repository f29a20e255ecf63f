// Texts that people bring, one a row.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

/// Of a .jsonl the field `column` of every line, of a .csv or .tsv the column of that name (with a header), of any other text
/// file its lines (without line ends; an empty line is an empty text). Throws FileError if it cannot be read, FormatError that
/// names file and line if it is empty, binary, or a row has no such text.
std::vector<std::string> read_text_rows(const fs::path& file, const std::string& column = "text");

}  // namespace lighten
