// Builders of picture sets: from packages to pixels.npy, samples.tsv and source.json in a folder.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/data/dataset.h"

namespace lighten {

void build_fashion(const fs::path& work, const fs::path& output);
void build_glyph_latin(const fs::path& work, const fs::path& output);
void build_icons(const fs::path& work, const fs::path& output);
/// "fonts-cabin, ...": for people.
std::string glyph_packages();
std::string icon_packages();

/// Images and labels of two IDX files (big-endian headers 0x803 and 0x801), uncompressed. Throws FormatError naming `where`.
void append_idx(const std::string& images, const std::string& labels, const std::string& where, ImageSet& set);

/// Draws all 62 letters and digits of every usable face: those that have them all with outlines, none blank, and lower-case
/// letters that are not small capitals. Families whose letters nearly agree (copies under another name) get one key.
/// `jittered`: how many more times each glyph is drawn, turned, sheared and stretched at random.
ImageSet draw_glyphs(const std::vector<fs::path>& fonts, int64_t side, int64_t jittered, uint64_t seed);

/// The key of a font family before copies are merged: its first word, lower case, without digits.
std::string font_key(const std::string& family);

/// The family of an icon theme: the first word of its name, lower case; themes that share drawings are one family.
std::string icon_family(const std::string& theme);

/// A split for few keys: in the order of a hash of seed and key, the first `test` keys are test data, the next `validation`
/// ones validation data. Throws OptionError if nothing would be left to train on.
std::vector<Split> deal_keys(const std::vector<std::string>& keys, int64_t validation, int64_t test, uint64_t seed);

}  // namespace lighten
