// The files that tasks on pictures read and write.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/catalogue/tasks.h"
#include "lighten/data/dataset.h"
#include "lighten/nn/vision.h"

namespace lighten {

struct PictureFiles {
  std::string data, labels, output;
  int64_t side = 32, limit = 0;
  bool grey = false, force = false;
};
OptionList describe(PictureFiles& files, const std::string& output_meaning);

/// Whether --data is a folder and not the id of a set.
bool is_image_folder(const PictureFiles& files);
/// The pictures of --data; with `all_sides` no test side is held back (nothing is to be measured).
ImageSet read_pictures(const PictureFiles& files, uint64_t seed, bool all_sides);
/// Those of --labels, or those of the set.
std::vector<int32_t> labels_of(const PictureFiles& files, const ImageSet& set);

/// Throws OptionError, naming `who` sees pictures of another size, if channels, height or width differ.
void check_size(const ImageSet& set, const VisionConfig& config, const std::string& who);

/// Throws OptionError without --output, FileError if it exists and may not be replaced.
void check_output(const PictureFiles& files);
/// Where a training keeps its state until the output is complete; removed by remove_work().
fs::path work_of(const PictureFiles& files);
void remove_work(const PictureFiles& files);

}  // namespace lighten
