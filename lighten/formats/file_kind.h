// What a file's name says of its content.
#pragma once
#include <string>

#include "lighten/base/file.h"

namespace lighten {

/// The ending of a file's name in small letters, with its dot: ".csv" of "A.CSV".
std::string small_ending(const fs::path& file);

}  // namespace lighten
