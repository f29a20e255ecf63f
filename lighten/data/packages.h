// Models and texts from public packages: fetched with the machine's own package managers, checked, unpacked and cached.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

/// One row of `lighten data list`.
struct DataEntry {
  std::string id;    ///< "smollm2-135m"
  std::string kind;  ///< "model", "text" or "set" (samples with labels)
  std::string title;
  std::string source;  ///< package manager and packages
  std::string licence;
  uint64_t download_bytes;
  std::string about;  ///< what is in it, for `lighten data show`
  std::string path;   ///< what data_path() hands out, below the cache folder
};
const std::vector<DataEntry>& data_entries();
const DataEntry* find_data(const std::string& id);

/// Where the data set stands in the cache, as MODEL or --text accept it (a .gguf, a folder). Fetches and builds it if it is not
/// there yet, if `fetch`. Throws OptionError for an unknown id, FileError if it cannot be had (says what was tried and how to
/// bring one's own).
fs::path data_path(const std::string& id, bool fetch = true);
bool data_present(const std::string& id);

/// A MODEL argument: an existing path, or a data id (as data_path).
fs::path resolve_model(const std::string& model, bool fetch = true);

}  // namespace lighten
