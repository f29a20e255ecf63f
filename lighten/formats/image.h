// Pictures: PNG and JPEG decoded by libpng and libjpeg-turbo, SVG drawn by librsvg.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lighten/base/file.h"

namespace lighten {

struct Image {
  int64_t channels = 0, height = 0, width = 0;
  std::vector<uint8_t> pixels;  ///< [channels, height, width]
  uint8_t at(int64_t channel, int64_t y, int64_t x) const { return pixels[(channel * height + y) * width + x]; }
};

/// Decodes a PNG or JPEG, told apart by its first bytes, into 1 (grey) or 3 (RGB) channels. Transparent parts show
/// `background`. Throws FormatError that names `where`: neither format, damaged, or larger than 100 megapixels.
Image decode_image(std::span<const std::byte> bytes, const std::string& where, int64_t channels, uint8_t background = 255);
Image read_image(const fs::path& path, int64_t channels, uint8_t background = 255);
/// Draws an SVG into a square of `side` pixels, centred, keeping its aspect ratio. Throws FormatError.
Image render_svg(std::span<const std::byte> bytes, const std::string& where, int64_t side, int64_t channels,
                 uint8_t background = 255);

/// The mean over the area that each new pixel covers (a box filter when it shrinks, nearest neighbours mixed when it grows).
Image resized(const Image& image, int64_t height, int64_t width);
/// The picture centred in a square of `background`, then resized to `side`.
Image squared(const Image& image, int64_t side, uint8_t background);

/// 8-bit grey or RGB.
void write_png(const fs::path& path, const Image& image);

/// Pictures of one height side by side as lines for a terminal: half blocks in 24-bit colour, or a ramp of characters.
std::string terminal_picture(const std::vector<Image>& row, bool colour);

}  // namespace lighten
