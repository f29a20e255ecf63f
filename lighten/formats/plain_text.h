// Text files that people give: for calibration, evaluation, prompts.
#pragma once
#include <string>

#include "lighten/base/file.h"

namespace lighten {

/// The text of a file; `remedy` says what an empty one should hold. Throws FileError if it cannot be read; FormatError, which
/// begins with `role` ("calibration file") and the file's name, if it is empty or binary (NUL bytes, or more than a tenth of it
/// invalid UTF-8).
std::string read_plain_text(const fs::path& file, const std::string& role,
                            const std::string& remedy = "give plain text like what the model will read");

}  // namespace lighten
