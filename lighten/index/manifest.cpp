#include "lighten/index/manifest.h"

#include <charconv>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"

namespace lighten {
namespace {

constexpr int64_t kVersion = 1;

Json file_json(const ManifestFile& file) {
  return {
      {"file", file.file}, {"codes", file.codes}, {"bytes", file.bytes}, {"checksum", fmt::format("{:016x}", file.checksum)}};
}

ManifestFile read_file_entry(const formats::Fields& fields) {
  ManifestFile entry;
  entry.file = fields.text("file");
  if (entry.file.empty() || entry.file.find_first_of("/\\") != std::string::npos || entry.file.front() == '.')
    throw_error<FormatError>("{}: file must be a plain name", fields.where());
  entry.codes = fields.integer("codes");
  const int64_t bytes = fields.integer("bytes");
  if (entry.codes < 0 || bytes < 0) throw_error<FormatError>("{}: codes and bytes must not be negative", fields.where());
  entry.bytes = static_cast<uint64_t>(bytes);
  const std::string text = fields.text("checksum");
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), entry.checksum, 16);
  if (error != std::errc() || end != text.data() + text.size())
    throw_error<FormatError>("{}: checksum must be a hexadecimal number", fields.where());
  return entry;
}

}  // namespace

Json to_json(const Manifest& manifest) {
  Json json{{"format_version", kVersion},
            {"method", manifest.method},
            {"codes",
             {{"kind", manifest.format.kind == ScanKind::hamming ? "hamming" : "sdc"},
              {"dimensions", manifest.format.shape.dimensions},
              {"loops", manifest.format.shape.loops}}},
            {"lists", manifest.lists},
            {"next_id", manifest.next_id},
            {"next_file", manifest.next_file},
            {"ids_ascending", manifest.ids_ascending},
            {"encoder", manifest.encoder},
            {"segments", Json::array()}};
  for (const ManifestFile& file : manifest.segments) json["segments"].push_back(file_json(file));
  if (!manifest.removed.file.empty()) json["removed"] = file_json(manifest.removed);
  return json;
}

Manifest read_manifest(const fs::path& folder) {
  const fs::path path = folder / kManifestName;
  const std::string name = path.string();
  if (!fs::exists(path)) throw_error<FileError>("{}: there is no index here ({} is missing)", folder.string(), kManifestName);
  const Json json = formats::parse_json(read_file(path), name);
  const formats::Fields fields(json, name);
  if (const int64_t version = fields.integer("format_version"); version != kVersion)
    throw_error<FormatError>("{}: format version {}; this program reads version {}", name, version, kVersion);
  Manifest manifest;
  manifest.method = fields.text("method");
  const formats::Fields codes = fields.object("codes");
  const std::string kind = codes.text("kind");
  const int64_t loops = codes.integer("loops"), dimensions = codes.integer("dimensions");
  if ((kind != "hamming" && kind != "sdc") || loops < 0 || loops > 3 || (kind == "hamming") != (loops == 0) || dimensions < 1 ||
      dimensions > 65536)
    throw_error<FormatError>("{}: codes must be hamming with 0 loops or sdc with 1 to 3, of 1 to 65536 dimensions", name);
  manifest.format = code_format(dimensions, static_cast<int>(loops));
  manifest.lists = fields.integer("lists");
  manifest.next_id = fields.integer("next_id");
  manifest.next_file = fields.integer("next_file");
  if (manifest.lists < 0 || manifest.next_id < 0 || manifest.next_file < 0)
    throw_error<FormatError>("{}: lists, next_id and next_file must not be negative", name);
  manifest.ids_ascending = fields.boolean("ids_ascending", false);
  manifest.encoder = fields.boolean("encoder", false);
  const Json* segments = fields.find("segments");
  if (segments == nullptr || !segments->is_array()) throw_error<FormatError>("{}: segments must be a list", name);
  for (const Json& entry : *segments) manifest.segments.push_back(read_file_entry({entry, name + ": segments"}));
  if (fields.has("removed")) manifest.removed = read_file_entry(fields.object("removed"));
  return manifest;
}

void write_manifest(const fs::path& folder, const Manifest& manifest) {
  write_file(folder / kManifestName, json_text(to_json(manifest), 1) + "\n");
}

}  // namespace lighten
