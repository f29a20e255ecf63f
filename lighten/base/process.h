// Running other programs (apt-get, pip, npm): arguments are passed as they are, no shell is involved.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

struct ProcessResult {
  int exit_code = 0;   ///< 127 if the program was not found
  std::string output;  ///< standard output and standard error together
};

/// Runs `arguments[0]` found on PATH, in `folder` if given, and waits. Ctrl-C ends the child too. With `show_errors` the
/// child's standard error goes where ours goes and is not part of the output.
ProcessResult run_process(const std::vector<std::string>& arguments, const fs::path& folder = {},
                          const std::vector<std::string>& extra_environment = {}, bool show_errors = false);

}  // namespace lighten
