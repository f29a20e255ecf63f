// Colour bitmaps of a font (CBDT): emoji, and the ligatures that make one picture of several characters.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/formats/image.h"

namespace lighten {

/// The ligatures of a GSUB table (lookups of type 4, also behind extensions of type 7): glyphs -> the glyph that stands for
/// them. Throws FormatError that names `where` for offsets outside the table. Source: OpenType 1.9, GSUB.
std::map<std::vector<uint16_t>, uint16_t> read_ligatures(std::span<const std::byte> gsub, const std::string& where);

/// A font with one strike of colour bitmaps. Not to be used from two threads at once.
class ColourFont {
 public:
  /// Throws FormatError that names the file.
  explicit ColourFont(const fs::path& path);
  ~ColourFont();
  ColourFont(const ColourFont&) = delete;
  ColourFont& operator=(const ColourFont&) = delete;

  /// The glyph of one or several characters, 0 if the font has none. Variation selectors (U+FE0F) are passed over.
  uint32_t glyph_of(std::span<const uint32_t> characters) const;
  /// The bitmap in RGB on `background`. Throws FormatError for a glyph without one.
  Image draw(uint32_t glyph, uint8_t background = 255) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lighten
