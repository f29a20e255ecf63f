// Decoding many picture files into one set: what cannot be decoded is named all at once, at the end.
#pragma once
#include <string>
#include <vector>

#include "lighten/data/image_sets.h"

namespace lighten {

/// Appends pictures to `set`: read in its channels, centred in a square and brought to one side (FolderOptions; side 0: that of
/// the first picture). Size and channels of the set are set by the first one.
class PictureReader {
 public:
  PictureReader(ImageSet& set, const FolderOptions& options) : set_(set), options_(options) {}
  /// A file that cannot be read or decoded is remembered; no pixels are appended for it.
  void read(const fs::path& file);
  /// Throws FormatError that names every such file with its reason (of very many the first hundred).
  void finish() const;

 private:
  ImageSet& set_;
  FolderOptions options_;
  int64_t read_ = 0;
  std::vector<std::string> broken_;
};

/// All PNG and JPEG pictures of a folder and its sub-folders, by path, without labels (-1): what a classifier is to label. ids
/// are paths below the folder; there are no classes, keys and sides. Throws FileError for a folder without pictures,
/// FormatError as PictureReader does.
ImageSet read_pictures_below(const fs::path& folder, const FolderOptions& options);

}  // namespace lighten
