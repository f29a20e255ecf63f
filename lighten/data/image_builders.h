// Builders of picture sets: from packages to pixels.npy, samples.tsv and source.json in a folder.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/data/dataset.h"

namespace lighten {

void build_fashion(const fs::path& work, const fs::path& output);
void build_glyph_latin(const fs::path& work, const fs::path& output);
void build_glyph_n(const fs::path& work, const fs::path& output);
void build_emoji(const fs::path& work, const fs::path& output);
void build_clipart(const fs::path& work, const fs::path& output);
void build_icons(const fs::path& work, const fs::path& output);
/// "fonts-cabin, ...": for people.
std::string glyph_packages();
std::string icon_packages();
std::string glyph_n_packages();
std::string emoji_packages();

/// Images and labels of two IDX files (big-endian headers 0x803 and 0x801), uncompressed. Throws FormatError naming `where`.
void append_idx(const std::string& images, const std::string& labels, const std::string& where, ImageSet& set);

/// Draws all 62 letters and digits of every usable face: those that have them all with outlines, none blank, and lower-case
/// letters that are not small capitals. Families whose letters nearly agree (copies under another name) get one key.
/// `jittered`: how many more times each glyph is drawn, turned, sheared and stretched at random.
ImageSet draw_glyphs(const std::vector<fs::path>& fonts, int64_t side, int64_t jittered, uint64_t seed);

/// A design of characters and its font files: the first that has a character draws it.
struct GlyphDesign {
  std::string name;
  std::vector<fs::path> fonts;
};
/// Draws what each design has of `wanted`, each design at one scale. Designs that draw at least a tenth of their common
/// characters alike share a key (the first one's name); a drawing that two of them have is kept once. Classes ("U+4E00") are
/// the characters that at least `least_keys` keys draw.
ImageSet draw_designs(const std::vector<GlyphDesign>& designs, const std::vector<uint32_t>& wanted, int64_t least_keys,
                      int64_t side);

/// A fully-qualified emoji of emoji-test.txt.
struct EmojiLine {
  std::vector<uint32_t> characters;
  std::string group, subgroup, name;
};
/// Throws FormatError that names the line.
std::vector<EmojiLine> parse_emoji_test(const std::string& text, const std::string& where);
/// What its split goes by: the name without skin tone, hair, gender and number; series of nearly equal drawings (clock faces,
/// keycaps, families) as a whole.
std::string emoji_key(const EmojiLine& emoji);
/// CLDR's name and keywords of a sequence of characters.
struct Annotation {
  std::string name;
  std::vector<std::string> keywords;
};
std::map<std::string, Annotation> parse_annotations(const std::string& xml);

/// What a drawing's RDF says: title, keywords in lower case, and who drew it.
struct DrawingNote {
  std::string title, creator;
  std::vector<std::string> keywords;
};
DrawingNote parse_drawing_note(const std::string& svg);
/// The key of a drawing: its artist's name in lower case up to an address; without one, its folder.
std::string artist_key(const std::string& creator, const std::string& folder);

/// Mean ink of the 4 x 4 cells of a square picture [side, side], row by row: by it drawings are told apart or found to be the
/// same.
std::vector<uint8_t> glyph_signature(const uint8_t* pixels, int64_t side);

/// The key of a font family before copies are merged: its first word, lower case, without digits.
std::string font_key(const std::string& family);

/// The family of an icon theme: the first word of its name, lower case; themes that share drawings are one family.
std::string icon_family(const std::string& theme);

/// A split for few keys: in the order of a hash of seed and key, the first `test` keys are test data, the next `validation`
/// ones validation data. Throws OptionError if nothing would be left to train on.
std::vector<Split> deal_keys(const std::vector<std::string>& keys, int64_t validation, int64_t test, uint64_t seed);

}  // namespace lighten
