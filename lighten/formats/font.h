// Glyphs of font files, rendered by FreeType.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

/// How a glyph is drawn besides its size; the plain glyph by default.
struct GlyphStyle {
  double rotation = 0;  ///< degrees, counter-clockwise
  double shear = 0;     ///< x += shear * y
  double stretch = 1;   ///< width times this
};

/// One face of a font file (a collection has several). Not to be used from two threads at once.
class FontFace {
 public:
  /// Throws FormatError that names the file.
  explicit FontFace(const fs::path& path, int64_t index = 0);
  ~FontFace();
  FontFace(FontFace&& other) noexcept;
  FontFace& operator=(FontFace&&) = delete;
  FontFace(const FontFace&) = delete;
  FontFace& operator=(const FontFace&) = delete;

  std::string family() const;  ///< "DejaVu Sans"
  std::string style() const;   ///< "Bold Oblique"
  int64_t faces_in_file() const;
  bool scalable() const;
  /// Whether the Unicode character map has a glyph for every one of these.
  bool has_all(std::span<const uint32_t> characters) const;

  /// Chooses one scale for `characters` such that the highest and the lowest of them, the base line being common, and the
  /// widest fit into a square of `side` pixels with `margin` on each side. False if one of them has no outline.
  bool fit(std::span<const uint32_t> characters, int64_t side, int64_t margin);
  /// The glyph at the scale of fit(), centred horizontally, on the common base line: 0 = paper, 255 = ink, [side, side].
  /// Parts that a style moves out of the square are cut.
  std::vector<uint8_t> draw(uint32_t character, const GlyphStyle& style = {});

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lighten
