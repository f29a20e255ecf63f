// A small TrueType font for tests: each character is a box.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

/// A character and the corners of its box, in units of 1000 an em.
struct TestGlyph {
  uint32_t character = 0;
  int16_t left = 0, bottom = 0, right = 0, top = 0;
};

/// Writes head, hhea, maxp, hmtx, cmap (format 12), loca, glyf and name. `glyphs` are ascending by character.
inline void write_test_font(const fs::path& path, const std::string& family, const std::vector<TestGlyph>& glyphs) {
  const auto u16 = [](std::string& out, int64_t value) {
    out += static_cast<char>(value >> 8 & 0xFF);
    out += static_cast<char>(value & 0xFF);
  };
  const auto u32 = [&](std::string& out, int64_t value) {
    u16(out, value >> 16);
    u16(out, value);
  };
  const auto n = static_cast<int64_t>(glyphs.size());
  std::string head, hhea, maxp, hmtx, cmap, loca, glyf, name;
  u32(head, 0x00010000), u32(head, 0x00010000), u32(head, 0), u32(head, 0x5F0F3CF5), u16(head, 0), u16(head, 1000);
  head.append(16, '\0');  // dates
  u16(head, 0), u16(head, 0), u16(head, 1000), u16(head, 1000), u16(head, 0), u16(head, 8), u16(head, 2), u16(head, 1),
      u16(head, 0);
  u32(hhea, 0x00010000), u16(hhea, 900), u16(hhea, -100), u16(hhea, 0), u16(hhea, 1000);
  hhea.append(22, '\0');
  u16(hhea, n + 1);
  u32(maxp, 0x00010000), u16(maxp, n + 1), u16(maxp, 4), u16(maxp, 1);
  maxp.append(22, '\0');
  u32(loca, 0), u32(loca, 0);  // glyph 0 is empty
  u16(hmtx, 1000), u16(hmtx, 0);
  for (const TestGlyph& glyph : glyphs) {
    u16(glyf, 1), u16(glyf, glyph.left), u16(glyf, glyph.bottom), u16(glyf, glyph.right), u16(glyf, glyph.top);
    u16(glyf, 3), u16(glyf, 0);  // last point; no instructions
    glyf.append(4, '\1');        // four points on the outline
    u16(glyf, glyph.left), u16(glyf, 0), u16(glyf, glyph.right - glyph.left), u16(glyf, 0);
    u16(glyf, glyph.bottom), u16(glyf, glyph.top - glyph.bottom), u16(glyf, 0), u16(glyf, glyph.bottom - glyph.top);
    u16(glyf, 0);  // to a multiple of 4
    u32(loca, static_cast<int64_t>(glyf.size()));
    u16(hmtx, 1000), u16(hmtx, glyph.left);
  }
  u16(cmap, 0), u16(cmap, 1), u16(cmap, 3), u16(cmap, 10), u32(cmap, 12);
  u16(cmap, 12), u16(cmap, 0), u32(cmap, 16 + 12 * n), u32(cmap, 0), u32(cmap, n);
  for (int64_t i = 0; i < n; ++i) u32(cmap, glyphs[i].character), u32(cmap, glyphs[i].character), u32(cmap, i + 1);
  u16(name, 0), u16(name, 1), u16(name, 18), u16(name, 1), u16(name, 0), u16(name, 0), u16(name, 1);
  u16(name, static_cast<int64_t>(family.size())), u16(name, 0);
  name += family;

  const std::vector<std::pair<std::string, const std::string*>> tables = {{"cmap", &cmap}, {"glyf", &glyf}, {"head", &head},
                                                                          {"hhea", &hhea}, {"hmtx", &hmtx}, {"loca", &loca},
                                                                          {"maxp", &maxp}, {"name", &name}};
  std::string file, body;
  u32(file, 0x00010000), u16(file, static_cast<int64_t>(tables.size())), u16(file, 128), u16(file, 3), u16(file, 0);
  for (const auto& [tag, bytes] : tables) {
    file += tag;
    u32(file, 0), u32(file, static_cast<int64_t>(12 + 16 * tables.size() + body.size()));
    u32(file, static_cast<int64_t>(bytes->size()));
    body += *bytes;
    body.append((4 - body.size() % 4) % 4, '\0');
  }
  write_file(path, file + body);
}

}  // namespace lighten
