#include "lighten/base/output_file.h"

#include "lighten/base/error.h"

namespace lighten {

void check_output_file(const fs::path& path, bool force) {
  if (!force && fs::is_regular_file(path))
    throw_error<FileError>("{} already exists; give another output file, or --force to replace it", path.string());
  check_writable(path);
}

}  // namespace lighten
