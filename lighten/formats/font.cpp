#include "lighten/formats/font.h"

#include <ft2build.h>
#include FT_FREETYPE_H
#include FT_OUTLINE_H

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lighten/base/error.h"

namespace lighten {

struct FontFace::State {
  FT_Library library = nullptr;
  FT_Face face = nullptr;
  int64_t side = 0;
  double scale = 1;     ///< pixels per font unit
  double baseline = 0;  ///< pixels from the lower edge

  ~State() {
    if (face) FT_Done_Face(face);
    if (library) FT_Done_FreeType(library);
  }
  /// The outline in font units.
  bool load(uint32_t character) const {
    const FT_UInt glyph = FT_Get_Char_Index(face, character);
    return glyph != 0 && FT_Load_Glyph(face, glyph, FT_LOAD_NO_SCALE | FT_LOAD_NO_BITMAP | FT_LOAD_NO_HINTING) == 0 &&
           face->glyph->format == FT_GLYPH_FORMAT_OUTLINE;
  }
};

FontFace::FontFace(const fs::path& path, int64_t index) : state_(std::make_unique<State>()) {
  if (FT_Init_FreeType(&state_->library) != 0) throw FileError("FreeType cannot be started");
  if (const FT_Error error = FT_New_Face(state_->library, path.c_str(), static_cast<FT_Long>(index), &state_->face); error != 0)
    throw_error<FormatError>("{}: not a font that can be read (FreeType error {})", path.string(), error);
  FT_Select_Charmap(state_->face, FT_ENCODING_UNICODE);
}

FontFace::~FontFace() = default;
FontFace::FontFace(FontFace&& other) noexcept = default;

std::string FontFace::family() const { return state_->face->family_name ? state_->face->family_name : ""; }
std::string FontFace::style() const { return state_->face->style_name ? state_->face->style_name : ""; }
int64_t FontFace::faces_in_file() const { return state_->face->num_faces; }
bool FontFace::scalable() const { return FT_IS_SCALABLE(state_->face); }

bool FontFace::has_all(std::span<const uint32_t> characters) const {
  return state_->face->charmap && state_->face->charmap->encoding == FT_ENCODING_UNICODE &&
         std::all_of(characters.begin(), characters.end(), [&](uint32_t c) { return FT_Get_Char_Index(state_->face, c) != 0; });
}

bool FontFace::fit(std::span<const uint32_t> characters, int64_t side, int64_t margin) {
  double low = 1e9, high = -1e9, widest = 0;
  for (const uint32_t character : characters) {
    if (!state_->load(character)) return false;
    FT_BBox box;
    FT_Outline_Get_CBox(&state_->face->glyph->outline, &box);
    if (box.xMax <= box.xMin || box.yMax <= box.yMin) return false;
    low = std::min(low, static_cast<double>(box.yMin));
    high = std::max(high, static_cast<double>(box.yMax));
    widest = std::max(widest, static_cast<double>(box.xMax - box.xMin));
  }
  const double room = static_cast<double>(side - 2 * margin);
  state_->side = side;
  state_->scale = room / std::max(high - low, widest);
  state_->baseline = (static_cast<double>(side) - (high - low) * state_->scale) / 2 - low * state_->scale;
  return true;
}

std::vector<uint8_t> FontFace::draw(uint32_t character, const GlyphStyle& style) {
  const int64_t side = state_->side;
  std::vector<uint8_t> pixels(side * side, 0);
  if (side == 0 || !state_->load(character))
    throw_error<FormatError>("{} {}: the character U+{:04X} has no outline (or fit() was not called)", family(), this->style(),
                             character);
  FT_Outline* outline = &state_->face->glyph->outline;
  FT_BBox box;
  FT_Outline_Get_CBox(outline, &box);
  // Around the middle of the glyph: stretch and shear, then turn; then to pixels in 26.6 fixed point.
  const double angle = style.rotation * std::numbers::pi / 180, cos = std::cos(angle), sin = std::sin(angle);
  const double middle_x = static_cast<double>(box.xMin + box.xMax) / 2, middle_y = static_cast<double>(box.yMin + box.yMax) / 2;
  for (int i = 0; i < outline->n_points; ++i) {
    FT_Vector& point = outline->points[i];
    const double y = static_cast<double>(point.y) - middle_y,
                 x = (static_cast<double>(point.x) - middle_x) * style.stretch + style.shear * y;
    point.x = std::lround(((x * cos - y * sin) * state_->scale + static_cast<double>(side) / 2) * 64);
    point.y = std::lround(((x * sin + y * cos + middle_y) * state_->scale + state_->baseline) * 64);
  }
  FT_Bitmap bitmap{};
  bitmap.rows = bitmap.width = static_cast<unsigned>(side);
  bitmap.pitch = static_cast<int>(side);
  bitmap.buffer = pixels.data();
  bitmap.num_grays = 256;
  bitmap.pixel_mode = FT_PIXEL_MODE_GRAY;
  if (const FT_Error error = FT_Outline_Get_Bitmap(state_->library, outline, &bitmap); error != 0)
    throw_error<FormatError>("{} {}: the character U+{:04X} cannot be drawn (FreeType error {})", family(), this->style(),
                             character, error);
  return pixels;
}

}  // namespace lighten
