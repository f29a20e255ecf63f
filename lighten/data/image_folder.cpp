// One's own pictures and labels.
#include <algorithm>
#include <map>
#include <unordered_map>

#include "lighten/base/error.h"
#include "lighten/base/options.h"
#include "lighten/base/progress.h"
#include "lighten/data/image_sets.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/image.h"

namespace lighten {

namespace {

bool is_picture(const fs::path& path) {
  std::string extension = path.extension().string();
  for (char& c : extension) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return extension == ".png" || extension == ".jpg" || extension == ".jpeg";
}

std::vector<fs::path> sorted_entries(const fs::path& folder, bool folders) {
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(folder))
    if (folders ? entry.is_directory() : entry.is_regular_file() && is_picture(entry.path())) entries.push_back(entry.path());
  std::sort(entries.begin(), entries.end());
  return entries;
}

struct Found {
  fs::path path;
  std::string class_name;
  Split split;
};

/// Pictures of the class folders in `folder`.
void collect(const fs::path& folder, std::optional<Split> split, const fs::path& root, const FolderOptions& options,
             std::vector<Found>& found) {
  for (const fs::path& class_folder : sorted_entries(folder, true))
    for (const fs::path& file : sorted_entries(class_folder, false)) {
      const std::string id = fs::relative(file, root).generic_string();
      found.push_back(
          {file, class_folder.filename().string(), split ? *split : split_of(id, options.fractions, options.split_seed)});
    }
}

}  // namespace

ImageSet read_image_folder(const fs::path& folder, const FolderOptions& options) {
  if (!fs::is_directory(folder))
    throw_error<FileError>("{}: no such folder. Give a folder whose sub-folders are classes and hold PNG or JPEG pictures",
                           folder.string());
  std::vector<Found> found;
  const bool given_sides = fs::is_directory(folder / "train");
  if (given_sides) {
    for (const Split split : {Split::train, Split::validation, Split::test})
      if (const fs::path part = folder / split_name(split); fs::is_directory(part))
        collect(part, split, folder, options, found);
  } else {
    collect(folder, std::nullopt, folder, options, found);
  }
  if (found.empty())
    throw_error<FileError>("{}: no PNG or JPEG pictures in its sub-folders (one sub-folder a class)", folder.string());
  ImageSet set;
  std::map<std::string, int32_t> classes;
  for (const Found& file : found) classes.emplace(file.class_name, 0);
  for (auto& [name, number] : classes) {
    number = static_cast<int32_t>(set.class_names.size());
    set.class_names.push_back(name);
  }
  if (classes.size() < 2)
    throw_error<FormatError>("{}: only the class '{}'; a classifier needs two or more", folder.string(), set.class_names[0]);
  set.channels = options.channels == 0 ? 3 : options.channels;
  Progress progress("reading pictures", static_cast<int64_t>(found.size()), "files");
  int64_t side = options.side;
  for (const Found& file : found) {
    const Image image = read_image(file.path, set.channels, options.background);
    if (side == 0) side = std::max(image.height, image.width);
    const Image square = squared(image, side, options.background);
    set.pixels.insert(set.pixels.end(), square.pixels.begin(), square.pixels.end());
    set.labels.push_back(classes.at(file.class_name));
    set.ids.push_back(fs::relative(file.path, folder).generic_string());
    set.splits.push_back(file.split);
    progress.advance();
  }
  progress.finish();
  set.height = set.width = side;
  set.keys = set.ids;
  check_set(set, folder.string());
  return set;
}

void write_image_folder(const ImageSet& set, const fs::path& folder) {
  for (int64_t i = 0; i < set.size(); ++i) {
    const fs::path place = folder / split_name(set.splits.at(i)) / set.class_names[set.labels[i]];
    fs::create_directories(place);
    const auto from = set.pixels.begin() + i * set.sample_bytes();
    write_png(place / fmt::format("{:06}.png", i), {set.channels, set.height, set.width, {from, from + set.sample_bytes()}});
  }
}

std::vector<int32_t> read_labels(const fs::path& csv, const ImageSet& set, bool training_only) {
  const CsvTable table = read_csv(csv);
  const size_t id = table.column("id"), label = table.column("label");
  std::unordered_map<std::string, int64_t> place;
  for (int64_t i = 0; i < set.size(); ++i) place.emplace(set.ids[i], i);
  std::unordered_map<std::string, int32_t> classes;
  for (size_t i = 0; i < set.class_names.size(); ++i) classes.emplace(set.class_names[i], static_cast<int32_t>(i));
  std::vector<int32_t> labels = set.labels;
  std::vector<int64_t> given(set.size(), 0);
  for (int64_t row = 0; row < table.size(); ++row) {
    const std::string &name = table.text(row, id), &class_name = table.text(row, label);
    const auto sample = place.find(name);
    if (sample == place.end()) throw_error<FormatError>("{}: there is no picture '{}'", table.where(row), name);
    if (given[sample->second] != 0)
      throw_error<FormatError>("{}: a second label for '{}' (the first is in line {})", table.where(row), name,
                               given[sample->second]);
    const auto found = classes.find(class_name);
    if (found == classes.end())
      throw_error<FormatError>("{}: {}", table.where(row), unknown_name_message("class", class_name, set.class_names));
    labels[sample->second] = found->second;
    given[sample->second] = table.lines[row];
  }
  for (int64_t i = 0; i < set.size(); ++i)
    if (given[i] == 0 && (!training_only || set.splits[i] != Split::test))
      throw_error<FormatError>("{}: no label for '{}' ({} data)", table.file, set.ids[i], split_name(set.splits[i]));
  return labels;
}

}  // namespace lighten
