#include "lighten/formats/colour_font.h"

#include <ft2build.h>
#include FT_FREETYPE_H
#include FT_TRUETYPE_TABLES_H

#include "lighten/base/error.h"

namespace lighten {

namespace {

/// Big-endian numbers of a table, checked.
class Table {
 public:
  Table(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}
  uint16_t u16(size_t at) const {
    if (at + 2 > bytes_.size())
      throw_error<FormatError>("{}: GSUB points to byte {} of {}; the font is damaged", where_, at, bytes_.size());
    return static_cast<uint16_t>(std::to_integer<unsigned>(bytes_[at]) << 8 | std::to_integer<unsigned>(bytes_[at + 1]));
  }
  uint32_t u32(size_t at) const { return static_cast<uint32_t>(u16(at)) << 16 | u16(at + 2); }

 private:
  std::span<const std::byte> bytes_;
  std::string where_;
};

/// The glyphs of a coverage table, in its order.
std::vector<uint16_t> coverage(const Table& table, size_t at) {
  std::vector<uint16_t> glyphs;
  const uint16_t format = table.u16(at), count = table.u16(at + 2);
  for (size_t i = 0; i < count; ++i) {
    if (format == 1) {
      glyphs.push_back(table.u16(at + 4 + 2 * i));
      continue;
    }
    const uint32_t first = table.u16(at + 4 + 6 * i), last = table.u16(at + 6 + 6 * i);
    for (uint32_t glyph = first; glyph <= last; ++glyph) glyphs.push_back(static_cast<uint16_t>(glyph));
  }
  return glyphs;
}

void read_subtable(const Table& table, size_t at, std::map<std::vector<uint16_t>, uint16_t>& ligatures) {
  const std::vector<uint16_t> first = coverage(table, at + table.u16(at + 2));
  const uint16_t sets = table.u16(at + 4);
  for (size_t s = 0; s < std::min<size_t>(sets, first.size()); ++s) {
    const size_t set = at + table.u16(at + 6 + 2 * s);
    for (size_t l = 0; l < table.u16(set); ++l) {
      const size_t ligature = set + table.u16(set + 2 + 2 * l);
      std::vector<uint16_t> glyphs = {first[s]};
      for (size_t c = 1; c < table.u16(ligature + 2); ++c) glyphs.push_back(table.u16(ligature + 2 + 2 * c));
      ligatures.emplace(std::move(glyphs), table.u16(ligature));
    }
  }
}

}  // namespace

std::map<std::vector<uint16_t>, uint16_t> read_ligatures(std::span<const std::byte> gsub, const std::string& where) {
  const Table table(gsub, where);
  std::map<std::vector<uint16_t>, uint16_t> ligatures;
  const size_t list = table.u16(8);
  for (size_t i = 0; i < table.u16(list); ++i) {
    const size_t lookup = list + table.u16(list + 2 + 2 * i);
    const uint16_t type = table.u16(lookup);
    for (size_t j = 0; j < table.u16(lookup + 4); ++j) {
      size_t at = lookup + table.u16(lookup + 6 + 2 * j);
      if (type == 7) {
        if (table.u16(at + 2) != 4) continue;
        at += table.u32(at + 4);
      } else if (type != 4) {
        continue;
      }
      read_subtable(table, at, ligatures);
    }
  }
  return ligatures;
}

struct ColourFont::State {
  std::string name;
  FT_Library library = nullptr;
  FT_Face face = nullptr;
  std::map<std::vector<uint16_t>, uint16_t> ligatures;

  ~State() {
    if (face) FT_Done_Face(face);
    if (library) FT_Done_FreeType(library);
  }
};

ColourFont::ColourFont(const fs::path& path) : state_(std::make_unique<State>()) {
  state_->name = path.string();
  if (FT_Init_FreeType(&state_->library) != 0) throw FileError("FreeType cannot be started");
  if (const FT_Error error = FT_New_Face(state_->library, path.c_str(), 0, &state_->face); error != 0)
    throw_error<FormatError>("{}: not a font that can be read (FreeType error {})", path.string(), error);
  if (!FT_HAS_COLOR(state_->face) || state_->face->num_fixed_sizes == 0 || FT_Select_Size(state_->face, 0) != 0)
    throw_error<FormatError>("{}: a font without colour bitmaps", path.string());
  FT_ULong bytes = 0;
  if (FT_Load_Sfnt_Table(state_->face, FT_MAKE_TAG('G', 'S', 'U', 'B'), 0, nullptr, &bytes) != 0) return;
  std::vector<std::byte> gsub(bytes);
  if (FT_Load_Sfnt_Table(state_->face, FT_MAKE_TAG('G', 'S', 'U', 'B'), 0, reinterpret_cast<FT_Byte*>(gsub.data()), &bytes) ==
      0)
    state_->ligatures = read_ligatures(gsub, path.string());
}

ColourFont::~ColourFont() = default;

uint32_t ColourFont::glyph_of(std::span<const uint32_t> characters) const {
  std::vector<uint16_t> glyphs;
  for (const uint32_t character : characters) {
    if (character == 0xFE0F) continue;
    glyphs.push_back(static_cast<uint16_t>(FT_Get_Char_Index(state_->face, character)));
    if (glyphs.back() == 0) return 0;
  }
  if (glyphs.size() == 1) return glyphs[0];
  const auto found = state_->ligatures.find(glyphs);
  return found == state_->ligatures.end() ? 0 : found->second;
}

Image ColourFont::draw(uint32_t glyph, uint8_t background) const {
  if (FT_Load_Glyph(state_->face, glyph, FT_LOAD_COLOR) != 0 || state_->face->glyph->bitmap.pixel_mode != FT_PIXEL_MODE_BGRA)
    throw_error<FormatError>("{}: glyph {} has no colour bitmap", state_->name, glyph);
  const FT_Bitmap& bitmap = state_->face->glyph->bitmap;
  Image image{3, bitmap.rows, bitmap.width, {}};
  image.pixels.resize(static_cast<size_t>(3) * bitmap.rows * bitmap.width);
  for (unsigned y = 0; y < bitmap.rows; ++y)
    for (unsigned x = 0; x < bitmap.width; ++x) {
      const uint8_t* bgra = bitmap.buffer + static_cast<ptrdiff_t>(y) * bitmap.pitch + 4 * static_cast<ptrdiff_t>(x);
      for (size_t c = 0; c < 3; ++c)  // colours are already multiplied by alpha
        image.pixels[(c * bitmap.rows + y) * bitmap.width + x] =
            static_cast<uint8_t>(std::min(255, bgra[2 - c] + background * (255 - bgra[3]) / 255));
    }
  return image;
}

}  // namespace lighten
