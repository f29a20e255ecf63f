#include "lighten/formats/image.h"

#include <librsvg/rsvg.h>
#include <png.h>
#include <turbojpeg.h>

#include <cmath>
#include <cstring>
#include <memory>

#include "lighten/base/error.h"

namespace lighten {

namespace {

constexpr int64_t kMostPixels = 100'000'000;

void check_size(int64_t height, int64_t width, const std::string& where) {
  if (height < 1 || width < 1 || height * width > kMostPixels)
    throw_error<FormatError>("{}: a picture of {} x {} pixels; at most {} million are read", where, width, height,
                             kMostPixels / 1000000);
}

/// [height, width, channels] -> [channels, height, width]
Image planes(const uint8_t* interleaved, int64_t channels, int64_t height, int64_t width) {
  Image image{channels, height, width, std::vector<uint8_t>(channels * height * width)};
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < height * width; ++i) image.pixels[c * height * width + i] = interleaved[i * channels + c];
  return image;
}

Image decode_png(std::span<const std::byte> bytes, const std::string& where, int64_t channels, uint8_t background) {
  png_image png;
  std::memset(&png, 0, sizeof png);
  png.version = PNG_IMAGE_VERSION;
  const std::unique_ptr<png_image, decltype(&png_image_free)> guard(&png, png_image_free);
  if (!png_image_begin_read_from_memory(&png, bytes.data(), bytes.size()))
    throw_error<FormatError>("{}: not a PNG that can be read: {}", where, png.message);
  check_size(png.height, png.width, where);
  png.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  std::vector<uint8_t> buffer(PNG_IMAGE_SIZE(png));
  const png_color behind{background, background, background};
  if (!png_image_finish_read(&png, &behind, buffer.data(), 0, nullptr))
    throw_error<FormatError>("{}: a damaged PNG: {}", where, png.message);
  return planes(buffer.data(), channels, png.height, png.width);
}

Image decode_jpeg(std::span<const std::byte> bytes, const std::string& where, int64_t channels) {
  const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(), tjDestroy);
  const auto* data = reinterpret_cast<const unsigned char*>(bytes.data());
  int width = 0, height = 0, subsampling = 0, colours = 0;
  if (tjDecompressHeader3(decoder.get(), data, bytes.size(), &width, &height, &subsampling, &colours) != 0)
    throw_error<FormatError>("{}: not a JPEG that can be read: {}", where, tjGetErrorStr2(decoder.get()));
  check_size(height, width, where);
  std::vector<uint8_t> buffer(static_cast<size_t>(height) * width * channels);
  if (tjDecompress2(decoder.get(), data, bytes.size(), buffer.data(), width, 0, height, channels == 1 ? TJPF_GRAY : TJPF_RGB,
                    TJFLAG_ACCURATEDCT | TJFLAG_STOPONWARNING) != 0)
    throw_error<FormatError>("{}: a damaged JPEG: {}", where, tjGetErrorStr2(decoder.get()));
  return planes(buffer.data(), channels, height, width);
}

/// RGB as bytes, whatever the picture's channels.
struct Colour {
  int r, g, b;
};
Colour colour_at(const Image& image, int64_t y, int64_t x) {
  if (y >= image.height) return {0, 0, 0};
  const int64_t green = image.channels == 3 ? 1 : 0, blue = image.channels == 3 ? 2 : 0;
  return {image.at(0, y, x), image.at(green, y, x), image.at(blue, y, x)};
}

uint8_t luminance(int r, int g, int b) { return static_cast<uint8_t>((299 * r + 587 * g + 114 * b + 500) / 1000); }

}  // namespace

Image decode_image(std::span<const std::byte> bytes, const std::string& where, int64_t channels, uint8_t background) {
  if (channels != 1 && channels != 3)
    throw_error<OptionError>("{}: pictures are read with 1 or 3 channels, not {}", where, channels);
  const auto starts = [&](std::initializer_list<int> magic) {
    size_t i = 0;
    for (const int byte : magic)
      if (i >= bytes.size() || std::to_integer<int>(bytes[i++]) != byte) return false;
    return true;
  };
  if (starts({0x89, 'P', 'N', 'G'})) return decode_png(bytes, where, channels, background);
  if (starts({0xff, 0xd8})) return decode_jpeg(bytes, where, channels);
  throw_error<FormatError>("{}: neither a PNG nor a JPEG", where);
}

Image read_image(const fs::path& path, int64_t channels, uint8_t background) {
  return decode_image(MappedFile(path).bytes(), path.string(), channels, background);
}

Image render_svg(std::span<const std::byte> bytes, const std::string& where, int64_t side, int64_t channels,
                 uint8_t background) {
  GError* error = nullptr;
  const auto failed = [&](const char* what) {
    const std::string message = error ? error->message : "no reason given";
    if (error) g_error_free(error);
    throw_error<FormatError>("{}: {}: {}", where, what, message);
  };
  const std::unique_ptr<RsvgHandle, void (*)(gpointer)> handle(
      rsvg_handle_new_from_data(reinterpret_cast<const guint8*>(bytes.data()), bytes.size(), &error), g_object_unref);
  if (!handle) failed("not an SVG that can be read");
  const int extent = static_cast<int>(side);
  const std::unique_ptr<cairo_surface_t, void (*)(cairo_surface_t*)> surface(
      cairo_image_surface_create(CAIRO_FORMAT_ARGB32, extent, extent), cairo_surface_destroy);
  const std::unique_ptr<cairo_t, void (*)(cairo_t*)> context(cairo_create(surface.get()), cairo_destroy);
  const RsvgRectangle viewport{0, 0, static_cast<double>(side), static_cast<double>(side)};
  if (!rsvg_handle_render_document(handle.get(), context.get(), &viewport, &error)) failed("cannot be drawn");
  cairo_surface_flush(surface.get());
  const uint8_t* data = cairo_image_surface_get_data(surface.get());
  const int64_t stride = cairo_image_surface_get_stride(surface.get());
  Image image{channels, side, side, std::vector<uint8_t>(channels * side * side)};
  for (int64_t y = 0; y < side; ++y)
    for (int64_t x = 0; x < side; ++x) {
      uint32_t pixel = 0;  // premultiplied ARGB
      std::memcpy(&pixel, data + y * stride + 4 * x, 4);
      const int rest = (255 - static_cast<int>(pixel >> 24)) * background / 255;
      const int r = static_cast<int>((pixel >> 16) & 255) + rest, g = static_cast<int>((pixel >> 8) & 255) + rest,
                b = static_cast<int>(pixel & 255) + rest;
      const int64_t at = y * side + x;
      if (channels == 1) {
        image.pixels[at] = luminance(r, g, b);
      } else {
        image.pixels[at] = static_cast<uint8_t>(r);
        image.pixels[side * side + at] = static_cast<uint8_t>(g);
        image.pixels[2 * side * side + at] = static_cast<uint8_t>(b);
      }
    }
  return image;
}

Image resized(const Image& image, int64_t height, int64_t width) {
  if (height < 1 || width < 1) throw_error<OptionError>("resized: a picture of {} x {} cannot be", width, height);
  // Weights of the source cells that each target cell covers, along one axis.
  const auto weights = [](int64_t from, int64_t to) {
    std::vector<std::vector<std::pair<int64_t, double>>> rows(to);
    const double scale = static_cast<double>(from) / static_cast<double>(to);
    for (int64_t i = 0; i < to; ++i) {
      const double begin = static_cast<double>(i) * scale, end = static_cast<double>(i + 1) * scale;
      for (auto j = static_cast<int64_t>(begin); j < from && static_cast<double>(j) < end; ++j) {
        const double part = std::min(end, static_cast<double>(j + 1)) - std::max(begin, static_cast<double>(j));
        if (part > 1e-9) rows[i].emplace_back(j, part / scale);
      }
    }
    return rows;
  };
  const auto down = weights(image.height, height), across = weights(image.width, width);
  Image result{image.channels, height, width, std::vector<uint8_t>(image.channels * height * width)};
  for (int64_t c = 0; c < image.channels; ++c)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x) {
        double sum = 0;
        for (const auto& [from_y, part_y] : down[y])
          for (const auto& [from_x, part_x] : across[x]) sum += part_y * part_x * image.at(c, from_y, from_x);
        result.pixels[(c * height + y) * width + x] = static_cast<uint8_t>(std::lround(std::min(sum, 255.0)));
      }
  return result;
}

Image squared(const Image& image, int64_t side, uint8_t background) {
  const int64_t extent = std::max(image.height, image.width);
  if (image.height == image.width) return extent == side ? image : resized(image, side, side);
  Image square{image.channels, extent, extent, std::vector<uint8_t>(image.channels * extent * extent, background)};
  const int64_t top = (extent - image.height) / 2, left = (extent - image.width) / 2;
  for (int64_t c = 0; c < image.channels; ++c)
    for (int64_t y = 0; y < image.height; ++y)
      std::copy_n(&image.pixels[(c * image.height + y) * image.width], image.width,
                  &square.pixels[(c * extent + top + y) * extent + left]);
  return resized(square, side, side);
}

void write_png(const fs::path& path, const Image& image) {
  if (image.channels != 1 && image.channels != 3) throw_error<OptionError>("{}: a PNG has 1 or 3 channels here", path.string());
  std::vector<uint8_t> interleaved(image.pixels.size());
  const int64_t area = image.height * image.width;
  for (int64_t c = 0; c < image.channels; ++c)
    for (int64_t i = 0; i < area; ++i) interleaved[i * image.channels + c] = image.pixels[c * area + i];
  png_image png;
  std::memset(&png, 0, sizeof png);
  png.version = PNG_IMAGE_VERSION;
  png.width = static_cast<png_uint_32>(image.width);
  png.height = static_cast<png_uint_32>(image.height);
  png.format = image.channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t size = 0;
  std::string bytes;
  if (png_image_write_to_memory(&png, nullptr, &size, 0, interleaved.data(), 0, nullptr)) {
    bytes.resize(size);
    if (png_image_write_to_memory(&png, bytes.data(), &size, 0, interleaved.data(), 0, nullptr)) {
      bytes.resize(size);
      return write_file(path, bytes);
    }
  }
  throw_error<FileError>("{}: cannot be encoded: {}", path.string(), png.message);
}

std::string terminal_picture(const std::vector<Image>& row, bool colour) {
  static const std::string kRamp = " .:-=+*#%@";
  std::string text;
  if (row.empty()) return text;
  for (int64_t y = 0; y < row[0].height; y += 2) {
    for (const Image& image : row) {
      for (int64_t x = 0; x < image.width; ++x) {
        const Colour upper = colour_at(image, y, x), lower = colour_at(image, y + 1, x);
        if (colour)
          text += fmt::format("\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m▀", upper.r, upper.g, upper.b, lower.r, lower.g, lower.b);
        else
          text +=
              kRamp[(luminance(upper.r, upper.g, upper.b) + luminance(lower.r, lower.g, lower.b)) * (kRamp.size() - 1) / 510];
      }
      if (colour) text += "\x1b[0m";
      text += " ";
    }
    text += "\n";
  }
  return text;
}

}  // namespace lighten
