// Texts that verbs read.
#pragma once
#include <string>
#include <vector>

namespace lighten {

/// Of a text file (one text a line), a .jsonl, .csv or .tsv (the field `field`), or a data id (deb-text, deb-pairs:queries,
/// ...). Throws FormatError or OptionError.
std::vector<std::string> read_texts(const std::string& name, const std::string& field = "text");

}  // namespace lighten
