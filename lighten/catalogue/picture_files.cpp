#include "lighten/catalogue/picture_files.h"

#include "lighten/base/error.h"
#include "lighten/data/image_sets.h"

namespace lighten {

OptionList describe(PictureFiles& f, const std::string& output_meaning) {
  return {
      option("data", f.data, any_value(), "a folder of pictures (a sub-folder a class), or a set of `lighten data list`", ""),
      option("labels", f.labels, any_value(), "CSV with columns id,label; id: the path below the folder", ""),
      option("output", f.output, any_value(), output_meaning, ""),
      option("side", f.side, range(8, 1024), "pixels to which pictures of a folder are brought", "Lighten"),
      option("limit", f.limit, range(0, 1e9), "at most so many samples of each side of a data set; 0: all", "Lighten"),
      Option("grey", f.grey, "read pictures of a folder without their colours", "Lighten"),
      Option("force", f.force, "replace an existing output", "Lighten"),
  };
}

bool is_image_folder(const PictureFiles& files) { return fs::exists(files.data) || !is_image_set(files.data); }

ImageSet read_pictures(const PictureFiles& files, uint64_t seed, bool all_sides) {
  require_option(files.data, "data", "a folder of pictures, or an id of `lighten data list`");
  if (!fs::exists(files.data) && is_image_set(files.data))
    return image_set(files.data, {.limit = files.limit, .split_seed = seed});
  FolderOptions options{.side = files.side, .channels = files.grey ? 1 : 3, .split_seed = seed};
  if (all_sides) options.fractions = {.validation = 0.1, .test = 0};
  if (!files.labels.empty() && has_pictures(files.data)) return read_labelled_pictures(files.data, files.labels, options);
  return read_image_folder(files.data, options);
}

std::vector<int32_t> labels_of(const PictureFiles& files, const ImageSet& set) {
  return files.labels.empty() ? set.labels : read_labels(files.labels, set);
}

void check_size(const ImageSet& set, const VisionConfig& config, const std::string& who) {
  if (set.channels != config.channels || set.height != config.height || set.width != config.width)
    throw_error<OptionError>("{} sees pictures of {} x {} x {} (channels, height, width), the data are {} x {} x {}", who,
                             config.channels, config.height, config.width, set.channels, set.height, set.width);
}

void check_output(const PictureFiles& files) {
  require_option(files.output, "output", "where to write (-o)");
  if (fs::exists(files.output) && !files.force) throw_error<FileError>("{}: exists; --force replaces it", files.output);
}

fs::path work_of(const PictureFiles& files) { return files.output + ".work"; }

void remove_work(const PictureFiles& files) {
  std::error_code error;
  fs::remove_all(work_of(files), error);
}

}  // namespace lighten
