// Results in files: nothing that exists is lost unless it was asked for.
#pragma once
#include "lighten/base/file.h"

namespace lighten {

/// check_writable, and FileError if a file stands at `path` already, unless `force`. A device or pipe may be written.
void check_output_file(const fs::path& path, bool force);

}  // namespace lighten
