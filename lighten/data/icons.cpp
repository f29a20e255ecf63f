// Icons of one name in many themes.
#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/json.h"
#include "lighten/base/options.h"
#include "lighten/base/progress.h"
#include "lighten/base/threads.h"
#include "lighten/data/fetch.h"
#include "lighten/data/image_builders.h"
#include "lighten/data/image_sets.h"
#include "lighten/data/packages.h"
#include "lighten/formats/image.h"

namespace lighten {

namespace {

constexpr int64_t kSide = 32;
constexpr size_t kClasses = 100, kFilesOfAName = 3;

const std::vector<std::string>& packages() {
  static const std::vector<std::string> names = {
      "adwaita-icon-theme", "breeze-icon-theme", "elementary-icon-theme", "elementary-xfce-icon-theme",
      "faenza-icon-theme",  "gnome-icon-theme",  "mate-icon-theme",       "mint-y-icons",
      "moka-icon-theme",    "numix-icon-theme",  "oxygen-icon-theme",     "papirus-icon-theme",
      "tango-icon-theme"};
  return names;
}

struct IconFile {
  fs::path path;
  std::string family, name;
  int64_t size = 0;  ///< pixels that its folder names; 0: scalable
};

/// "48x48", "48" or "scalable" among the folders of a path.
int64_t size_of(const fs::path& path) {
  for (const fs::path& part : path.parent_path()) {
    const std::string text = part.string();
    if (text.empty() || std::isdigit(static_cast<unsigned char>(text[0])) == 0) continue;
    if (text.find('@') != std::string::npos) return -1;  // drawn for another density
    return std::stol(text.substr(0, 4));
  }
  return 0;
}

/// Closest to 32 pixels from above first: 32, 48, 64, ..., then scalable, then smaller ones.
int64_t preference(const IconFile& file) {
  if (file.size >= kSide) return file.size;
  return file.size == 0 ? 1000 : 2000 - file.size;
}

std::vector<IconFile> icon_files(const fs::path& package) {
  std::vector<IconFile> files;
  const fs::path icons = package / "usr/share/icons";
  if (!fs::is_directory(icons)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(icons)) {
    const std::string extension = entry.path().extension().string(), name = entry.path().stem().string();
    if (entry.is_symlink() || !entry.is_regular_file() || (extension != ".svg" && extension != ".png")) continue;
    if (name.ends_with("-symbolic")) continue;
    const fs::path relative = fs::relative(entry.path(), icons);
    const int64_t size = size_of(relative);
    if (size < 0 || (size > 0 && size < 16)) continue;
    files.push_back({entry.path(), icon_family(relative.begin()->string()), name, size});
  }
  return files;
}

Image drawn(const IconFile& file) {
  if (file.path.extension() == ".svg") return render_svg(MappedFile(file.path).bytes(), file.path.string(), kSide, 3);
  return squared(read_image(file.path, 3), kSide, 255);
}

/// At most kFilesOfAName files of every family of the names that most families have.
std::vector<IconFile> chosen_files(std::vector<IconFile> files) {
  std::map<std::string, std::set<std::string>> families;
  for (const IconFile& file : files) families[file.name].insert(file.family);
  std::vector<std::string> names;
  names.reserve(families.size());
  for (const auto& [name, of_name] : families) names.push_back(name);
  std::stable_sort(names.begin(), names.end(),
                   [&](const auto& a, const auto& b) { return families[a].size() > families[b].size(); });
  names.resize(std::min(names.size(), kClasses));
  std::sort(names.begin(), names.end());
  std::sort(files.begin(), files.end(), [](const IconFile& a, const IconFile& b) {
    return std::tuple(a.name, a.family, preference(a), a.path.string()) <
           std::tuple(b.name, b.family, preference(b), b.path.string());
  });
  std::vector<IconFile> chosen;
  std::map<std::pair<std::string, std::string>, size_t> taken;
  for (const IconFile& file : files)
    if (std::binary_search(names.begin(), names.end(), file.name) && taken[{file.name, file.family}]++ < kFilesOfAName)
      chosen.push_back(file);
  return chosen;
}

}  // namespace

std::string icon_family(const std::string& theme) {
  std::string word;
  for (const char c : theme) {
    if (std::isalpha(static_cast<unsigned char>(c)) == 0) break;
    word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  // MATE's icons began as GNOME's, and both drew on Tango.
  return word == "mate" || word == "tango" || word == "menta" || word == "hicolor" ? "gnome"
         : word == "epapirus"                                                      ? "papirus"
                                                                                   : word;
}

std::string icon_packages() { return fmt::format("{}", fmt::join(packages(), ", ")); }

void build_icons(const fs::path& work, const fs::path& output) {
  std::vector<IconFile> files;
  Json source = {{"packages", Json::array()}, {"release_dates", release_dates(work)}, {"not_drawn", Json::array()}};
  for (const DebianPackage& package : fetch_debian(work, packages(), 230'000'000)) {
    source["packages"].push_back({{"name", package.name}, {"version", package.version}, {"sha256", package.sha256}});
    for (IconFile& file : icon_files(package.folder)) files.push_back(std::move(file));
  }
  const std::vector<IconFile> chosen = chosen_files(std::move(files));
  ImageSet set;
  set.channels = 3;
  set.height = set.width = kSide;
  std::set<std::string> seen;  // the same picture again, in whatever theme: once
  Progress progress("drawing icons", static_cast<int64_t>(chosen.size()), "icons");
  for (const IconFile& file : chosen) {
    progress.advance();
    Image image;
    try {
      image = drawn(file);
    } catch (const FormatError& error) {
      source["not_drawn"].push_back(file.path.filename().string());
      continue;
    }
    if (!seen.emplace(image.pixels.begin(), image.pixels.end()).second) continue;
    if (set.class_names.empty() || set.class_names.back() != file.name) set.class_names.push_back(file.name);
    set.pixels.append(image.pixels.begin(), image.pixels.end());
    set.labels.push_back(static_cast<int32_t>(set.class_names.size()) - 1);
    set.ids.push_back(fmt::format("{}/{}/{}", file.family, file.name, seen.size()));
    set.keys.push_back(file.family);
  }
  progress.finish();
  set.splits.assign(set.labels.size(), Split::train);
  save_image_set(set, output);
  write_file(output / "source.json", json_text(source, 1) + "\n");
}

std::vector<Split> deal_keys(const std::vector<std::string>& keys, int64_t validation, int64_t test, uint64_t seed) {
  std::set<std::string> distinct(keys.begin(), keys.end());
  if (static_cast<int64_t>(distinct.size()) <= validation + test)
    throw_error<OptionError>("{} keys cannot give {} to validation and {} to test", distinct.size(), validation, test);
  std::vector<std::pair<uint64_t, std::string>> order;
  order.reserve(distinct.size());
  for (const std::string& key : distinct) order.emplace_back(stable_hash(fmt::format("{}:{}", seed, key)), key);
  std::sort(order.begin(), order.end());
  std::map<std::string, Split> side;
  for (int64_t i = 0; i < static_cast<int64_t>(order.size()); ++i)
    side[order[i].second] = i < test ? Split::test : i < test + validation ? Split::validation : Split::train;
  std::vector<Split> splits;
  splits.reserve(keys.size());
  for (const std::string& key : keys) splits.push_back(side.at(key));
  return splits;
}

ImageSet icons_set(const DataOptions& options) {
  ImageSet set = load_image_set(data_path("icons", options.fetch));
  set.splits = deal_keys(set.keys, 2, 3, options.split_seed);
  if (options.limit <= 0) return set;
  return subset(set, limit_samples(set.ids, set.splits, options.limit));
}

}  // namespace lighten
