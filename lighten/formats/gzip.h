// gzip files.
#pragma once
#include <string>

#include "lighten/base/file.h"

namespace lighten {

/// The whole uncompressed contents. Throws FormatError that names the file if it is damaged or larger than `most` bytes.
std::string read_gzip(const fs::path& path, uint64_t most = uint64_t{1} << 32);

}  // namespace lighten
