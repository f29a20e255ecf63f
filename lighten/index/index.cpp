#include "lighten/index/index.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "lighten/base/error.h"
#include "lighten/formats/npy.h"
#include "lighten/index/manifest.h"

namespace lighten {
namespace {

constexpr int kOpenTries = 5;

void check_checksum(std::span<const std::byte> bytes, const ManifestFile& entry, const fs::path& path) {
  if (bytes.size() != entry.bytes || checksum(bytes) != entry.checksum)
    throw_error<FormatError>("{}: the bytes are not those that were written; the file is damaged, build the index again",
                             path.string());
}

}  // namespace

Index::Index(const fs::path& folder) : folder_(folder) {
  // A writer may replace files between our reading the manifest and opening them: then there is a newer manifest.
  for (int attempt = 1;; ++attempt) {
    try {
      open();
      return;
    } catch (const FileError&) {
      if (attempt == kOpenTries || !fs::exists(folder / kManifestName)) throw;
    }
  }
}

void Index::open() {
  const Manifest manifest = read_manifest(folder_);
  manifest_ = to_json(manifest);
  format_ = manifest.format;
  method_ = manifest.method;
  next_id_ = manifest.next_id;
  ascending_ = manifest.ids_ascending && manifest.lists == 0;
  segments_.clear();
  removed_.clear();
  encoder_.reset();
  centroids_.reset();
  count_ = 0;
  for (const ManifestFile& file : manifest.segments) {
    const Segment& segment = segments_.emplace_back(folder_ / file.file, format_);
    const std::string name = (folder_ / file.file).string();
    if (segment.count() != file.codes || segment.bytes().size() != file.bytes)
      throw_error<FormatError>("{}: holds {} codes, but {} names {}", name, segment.count(), kManifestName, file.codes);
    if (segment.lists().size() != static_cast<size_t>(std::max<int64_t>(1, manifest.lists)))
      throw_error<FormatError>("{}: holds {} lists, but {} names {}", name, segment.lists().size(), kManifestName,
                               manifest.lists);
    count_ += segment.count();
  }
  if (!manifest.removed.file.empty()) {
    const fs::path path = folder_ / manifest.removed.file;
    const MappedFile file(path);
    check_checksum(file.bytes(), manifest.removed, path);
    size_t at = 0;
    int64_t gone = 0;
    for (const Segment& segment : segments_) {
      auto& bits = removed_.emplace_back(static_cast<size_t>(segment.blocks()));
      if (at + bits.size() * sizeof(uint32_t) > file.size())
        throw_error<FormatError>("{}: too short for the index's segments; the file is damaged", path.string());
      if (!bits.empty()) std::memcpy(bits.data(), file.data() + at, bits.size() * sizeof(uint32_t));
      at += bits.size() * sizeof(uint32_t);
      for (const uint32_t word : bits) gone += std::popcount(word);
    }
    count_ -= gone;
  }
  if (manifest.encoder) {
    encoder_.emplace(load_encoder(folder_ / kEncoderName));
    if (!(encoder_->format() == format_))
      throw_error<FormatError>("{}: makes codes of another format than the index holds", (folder_ / kEncoderName).string());
  }
  if (manifest.lists > 0) {
    const NpyFile lists(folder_ / kListsName);
    if (lists.rows() != manifest.lists || lists.columns() != format_.shape.dimensions)
      throw_error<FormatError>("{}: {} x {} values do not fit the index", lists.name(), lists.rows(), lists.columns());
    centroids_.emplace(lists.to_float(), lists.columns());
  }
}

const uint32_t* Index::removed(size_t segment) const { return removed_.empty() ? nullptr : removed_[segment].data(); }

void Index::verify() const {
  const Manifest manifest = read_manifest(folder_);
  for (size_t i = 0; i < segments_.size(); ++i)
    check_checksum(segments_[i].bytes(), manifest.segments.at(i), folder_ / manifest.segments[i].file);
}

}  // namespace lighten
