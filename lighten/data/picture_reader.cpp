#include "lighten/data/picture_reader.h"

#include <algorithm>

#include "lighten/base/error.h"
#include "lighten/formats/image.h"

namespace lighten {
namespace {

constexpr size_t kMostNamed = 100;

}  // namespace

void PictureReader::read(const fs::path& file) {
  ++read_;
  if (options_.channels == 0) options_.channels = 3;
  try {
    const Image image = read_image(file, options_.channels, options_.background);
    if (options_.side == 0) options_.side = std::max(image.height, image.width);
    const Image square = squared(image, options_.side, options_.background);
    set_.pixels.append(square.pixels.begin(), square.pixels.end());
    set_.channels = options_.channels;
    set_.height = set_.width = options_.side;
  } catch (const FormatError& error) {
    broken_.emplace_back(error.what());
  } catch (const FileError& error) {
    broken_.emplace_back(error.what());
  }
}

void PictureReader::finish() const {
  if (broken_.empty()) return;
  if (broken_.size() == 1) throw FormatError(broken_[0]);
  std::string text =
      fmt::format("{} of {} pictures cannot be read; replace them, or take them out of the folder:", broken_.size(), read_);
  for (size_t i = 0; i < std::min(broken_.size(), kMostNamed); ++i) text += "\n  " + broken_[i];
  if (broken_.size() > kMostNamed) text += fmt::format("\n  and {} more", broken_.size() - kMostNamed);
  throw FormatError(text);
}

}  // namespace lighten
