// One's own pictures and labels.
#include <algorithm>
#include <map>
#include <unordered_map>

#include "lighten/base/error.h"
#include "lighten/base/options.h"
#include "lighten/base/progress.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/label_census.h"
#include "lighten/data/picture_reader.h"
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

/// Fills size and pixels of a set.
void decode(const std::vector<fs::path>& paths, const FolderOptions& options, ImageSet& set) {
  Progress progress("reading pictures", static_cast<int64_t>(paths.size()), "files");
  PictureReader reader(set, options);
  for (const fs::path& path : paths) {
    reader.read(path);
    progress.advance();
  }
  progress.finish();
  reader.finish();
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
  std::vector<fs::path> paths;
  for (const Found& file : found) {
    paths.push_back(file.path);
    set.labels.push_back(classes.at(file.class_name));
    set.ids.push_back(fs::relative(file.path, folder).generic_string());
    set.splits.push_back(file.split);
  }
  decode(paths, options, set);
  set.keys = set.ids;
  check_set(set, folder.string());
  return set;
}

std::vector<fs::path> pictures_in(const fs::path& folder) { return sorted_entries(folder, false); }

bool has_pictures(const fs::path& folder) { return fs::is_directory(folder) && !sorted_entries(folder, false).empty(); }

ImageSet read_labelled_pictures(const fs::path& folder, const fs::path& csv, const FolderOptions& options) {
  const CsvTable table = read_csv(csv);
  const size_t id = table.column("id"), label = table.column("label");
  std::map<std::string, int32_t> classes;
  LabelCensus census;
  std::unordered_map<std::string, int64_t> seen;
  std::vector<fs::path> paths;
  for (int64_t row = 0; row < table.size(); ++row) {
    const std::string& name = table.text(row, id);
    if (table.text(row, label).empty()) throw_error<FormatError>("{}: '{}' has no label", table.where(row), name);
    if (const auto [first, added] = seen.emplace(name, table.lines[row]); !added)
      throw_error<FormatError>("{}: a second label for '{}' (the first is in line {})", table.where(row), name, first->second);
    paths.push_back(folder / name);
    if (!fs::is_regular_file(paths.back()) || !is_within(paths.back(), folder))
      throw_error<FormatError>("{}: there is no picture '{}' in {}", table.where(row), name, folder.string());
    classes.emplace(table.text(row, label), 0);
    census.add(table.text(row, label), table.file, table.lines[row]);
  }
  census.warn_of_rare_classes();
  ImageSet set;
  for (auto& [name, number] : classes) {
    number = static_cast<int32_t>(set.class_names.size());
    set.class_names.push_back(name);
  }
  for (int64_t row = 0; row < table.size(); ++row) {
    set.ids.push_back(table.text(row, id));
    set.labels.push_back(classes.at(table.text(row, label)));
    set.splits.push_back(split_of(set.ids.back(), options.fractions, options.split_seed));
  }
  decode(paths, options, set);
  set.keys = set.ids;
  check_set(set, csv.string());
  return set;
}

ImageSet read_pictures_below(const fs::path& folder, const FolderOptions& options) {
  if (!fs::is_directory(folder))
    throw_error<FileError>("{}: no such folder; give one that holds PNG or JPEG pictures", folder.string());
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && is_picture(entry.path())) paths.push_back(entry.path());
  if (paths.empty()) throw_error<FileError>("{}: no PNG or JPEG pictures in it or its sub-folders", folder.string());
  std::sort(paths.begin(), paths.end());
  ImageSet set;
  for (const fs::path& path : paths) set.ids.push_back(fs::relative(path, folder).generic_string());
  set.labels.assign(paths.size(), -1);
  decode(paths, options, set);
  return set;
}

void write_image_folder(const ImageSet& set, const fs::path& folder) {
  for (int64_t i = 0; i < set.size(); ++i) {
    const fs::path place = folder / split_name(set.splits.at(i)) / set.class_names[set.labels[i]];
    fs::create_directories(place);
    const uint8_t* from = set.pixels.begin() + i * set.sample_bytes();
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
