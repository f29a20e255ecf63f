// Sets of pictures: Fashion-MNIST, glyphs of the Latin alphabet, icons; and one's own folders of pictures.
#pragma once
#include <string>
#include <vector>

#include "lighten/data/card.h"
#include "lighten/data/dataset.h"

namespace lighten {

/// 28 x 28 grey product photographs, 10 classes. Test: the 10,000 of the original; validation: by hash of the number.
ImageSet fashion_set(const DataOptions& options = {});
/// 28 x 28 grey letters and digits (62 classes: 0-9, A-Z, a-z) of some 500 font faces, ink 255 on paper 0. Key: font family,
/// all its weights together. A face is drawn plain and several times jittered.
ImageSet glyph_latin_set(const DataOptions& options = {});
/// 28 x 28 grey Han, Hangul and kana (some 40,000 classes, "U+4E00") as some 35 designs draw them. Key: design; those that
/// share drawings are one. Of the keys 3 are test and 2 validation data; every class has at least 3 more. The pixels stay on
/// the disk until they are used.
ImageSet glyph_n_set(const DataOptions& options = {});
/// 32 x 32 colour icons of several themes on white; class: the icon's name, the most frequent first. Key: family of themes
/// (those that share drawings are one family).
ImageSet icons_set(const DataOptions& options = {});

/// 64 x 64 colour pictures on white (data/captions.h has their captions and keywords). emoji: class: Unicode's group; key: the
/// emoji without skin tone and gender. clipart: class: the folder; key: the artist.
ImageSet emoji_set(const DataOptions& options = {});
ImageSet clipart_set(const DataOptions& options = {});

/// "fashion", "glyph-latin", ...
const std::vector<std::string>& image_set_ids();
bool is_image_set(const std::string& id);
/// By id. Throws OptionError with the nearest one.
ImageSet image_set(const std::string& id, const DataOptions& options = {});

struct FolderOptions {
  int64_t side = 0;      ///< pictures are centred in a square and resized to it; 0: that of the first picture
  int64_t channels = 0;  ///< 1 or 3; 0: 3
  uint8_t background = 255;
  uint64_t split_seed = 0;
  SplitFractions fractions = {};
};
/// A folder whose sub-folders are classes and hold PNG or JPEG pictures. Sub-folders "train", "validation" and "test" that hold
/// class folders set the sides; otherwise a picture's side is by hash of its path. ids are paths below the folder. Throws
/// FormatError that names all pictures that do not decode, FileError for a folder without pictures.
ImageSet read_image_folder(const fs::path& folder, const FolderOptions& options = {});
/// Whether pictures stand in the folder itself.
bool has_pictures(const fs::path& folder);
/// The PNG and JPEG files in the folder itself, by name.
std::vector<fs::path> pictures_in(const fs::path& folder);
/// The pictures that a CSV with columns `id` (path below the folder) and `label` names; its labels are the classes. Throws
/// FormatError, naming the line, for a file that is missing or does not decode, a repeated id or an empty label.
ImageSet read_labelled_pictures(const fs::path& folder, const fs::path& csv, const FolderOptions& options = {});
/// Writes a set as such a folder (PNG), for other programs and as an example.
void write_image_folder(const ImageSet& set, const fs::path& folder);

/// Labels from a CSV with columns `id` and `label` (a class name), one row for each sample of `set`. Throws FormatError, naming
/// the line, for an unknown or repeated id, an unknown class, and, naming the first, for a sample without a row. With
/// `training_only` rows are needed for training and validation samples only; the others keep their labels.
std::vector<int32_t> read_labels(const fs::path& csv, const ImageSet& set, bool training_only = true);

/// The samples given, in this order.
ImageSet subset(const ImageSet& set, const std::vector<int64_t>& samples);
/// Samples of the classes given, renumbered in this order.
ImageSet keep_classes(const ImageSet& set, const std::vector<std::string>& names);

/// pixels.npy [n, channels, height, width] and samples.tsv (id, key, class).
void save_image_set(const ImageSet& set, const fs::path& folder);
ImageSet load_image_set(const fs::path& folder);

DataCard card_of(const ImageSet& set);
/// Pictures of the set side by side for a terminal, `rows` rows of them, one class after the other.
std::string terminal_pictures(const ImageSet& set, int64_t columns_of_text, int64_t rows, bool colour);

}  // namespace lighten
