// The manifest of an index: which files it consists of.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/json.h"
#include "lighten/index/codes.h"

namespace lighten {

inline constexpr const char* kManifestName = "index.json";
inline constexpr const char* kEncoderName = "encoder.safetensors";
inline constexpr const char* kListsName = "lists.npy";

struct ManifestFile {
  std::string file;
  int64_t codes = 0;
  uint64_t bytes = 0, checksum = 0;
};

struct Manifest {
  std::string method;
  CodeFormat format;
  int64_t lists = 0;  ///< 0: flat
  int64_t next_id = 0, next_file = 1;
  bool ids_ascending = true;
  bool encoder = false;
  std::vector<ManifestFile> segments;
  ManifestFile removed;  ///< file "": nothing is removed
};

Json to_json(const Manifest& manifest);
/// Checks every field. Throws FormatError that names the file and the field.
Manifest read_manifest(const fs::path& folder);
void write_manifest(const fs::path& folder, const Manifest& manifest);

}  // namespace lighten
