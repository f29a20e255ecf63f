#include "lighten/formats/image.h"

#include <gtest/gtest.h>
#include <turbojpeg.h>
#include <unistd.h>

#include <numeric>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/formats/gzip.h"

namespace lighten {
namespace {

class ImageFile : public testing::Test {
 protected:
  void SetUp() override { path_ = fs::temp_directory_path() / fmt::format("lighten-image-test-{}", ::getpid()); }
  void TearDown() override { fs::remove(path_); }
  std::string message(int64_t channels = 1) {
    try {
      read_image(path_, channels);
    } catch (const FormatError& error) {
      return error.what();
    }
    return "";
  }
  fs::path path_;
};

Image noise(int64_t channels, int64_t height, int64_t width) {
  Image image{channels, height, width, {}};
  Random random(3);
  for (int64_t i = 0; i < channels * height * width; ++i) image.pixels.push_back(static_cast<uint8_t>(random.below(256)));
  return image;
}

TEST_F(ImageFile, PngComesBackBitForBit) {
  for (const int64_t channels : {1, 3}) {
    const Image image = noise(channels, 7, 11);
    write_png(path_, image);
    const Image back = read_image(path_, channels);
    EXPECT_EQ(back.height, 7);
    EXPECT_EQ(back.width, 11);
    EXPECT_EQ(back.pixels, image.pixels);
  }
}

TEST_F(ImageFile, JpegIsDecodedToWhatWasEncoded) {
  // A smooth picture at the best quality: within a few grey levels of the original.
  std::vector<unsigned char> rgb;
  for (int y = 0; y < 16; ++y)
    for (int x = 0; x < 24; ++x)
      for (const int value : {8 * x, 12 * y, 100}) rgb.push_back(static_cast<unsigned char>(value));
  tjhandle encoder = tjInitCompress();
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  ASSERT_EQ(tjCompress2(encoder, rgb.data(), 24, 0, 16, TJPF_RGB, &bytes, &size, TJSAMP_444, 100, 0), 0);
  const std::string text(reinterpret_cast<char*>(bytes), size);
  tjFree(bytes);
  tjDestroy(encoder);
  write_file(path_, text);
  const Image image = read_image(path_, 3);
  ASSERT_EQ(image.height, 16);
  ASSERT_EQ(image.width, 24);
  for (int y = 0; y < 16; ++y)
    for (int x = 0; x < 24; ++x) {
      EXPECT_NEAR(image.at(0, y, x), 8 * x, 4);
      EXPECT_NEAR(image.at(1, y, x), 12 * y, 4);
    }
  write_file(path_, text.substr(0, text.size() - 60));
  EXPECT_NE(message().find("damaged JPEG"), std::string::npos);
}

TEST_F(ImageFile, WhatIsNoPictureIsRefusedByName) {
  write_file(path_, "GIF89a");
  EXPECT_NE(message().find("neither a PNG nor a JPEG"), std::string::npos);
  write_png(path_, noise(3, 20, 20));
  const std::string whole = read_file(path_);
  write_file(path_, whole.substr(0, whole.size() / 2));
  EXPECT_NE(message().find("damaged PNG"), std::string::npos);
  write_file(path_, whole.substr(0, 12));
  EXPECT_NE(message().find(path_.string()), std::string::npos);
}

TEST(Resized, KeepsTheMeanAndAveragesAreas) {
  const Image image = noise(1, 12, 12);
  const Image half = resized(image, 6, 4);
  for (int y = 0; y < 6; ++y)
    for (int x = 0; x < 4; ++x) {
      int sum = 0;
      for (int dy = 0; dy < 2; ++dy)
        for (int dx = 0; dx < 3; ++dx) sum += image.at(0, 2 * y + dy, 3 * x + dx);
      EXPECT_NEAR(half.at(0, y, x), sum / 6.0, 0.51);
    }
  EXPECT_EQ(resized(image, 12, 12).pixels, image.pixels);
  const Image odd = resized(image, 5, 7);
  const double mean = std::accumulate(image.pixels.begin(), image.pixels.end(), 0.0) / 144;
  EXPECT_NEAR(std::accumulate(odd.pixels.begin(), odd.pixels.end(), 0.0) / 35, mean, 0.5);
  const Image square = squared({1, 2, 4, std::vector<uint8_t>(8, 10)}, 4, 200);
  EXPECT_EQ(square.pixels, (std::vector<uint8_t>{200, 200, 200, 200, 10, 10, 10, 10, 10, 10, 10, 10, 200, 200, 200, 200}));
}

TEST(Svg, IsDrawnWithItsBackground) {
  const std::string svg =
      "<svg xmlns='http://www.w3.org/2000/svg' width='4' height='4'><rect width='2' height='4' fill='#ff0000'/></svg>";
  const Image image = render_svg(std::as_bytes(std::span(svg)), "x.svg", 8, 3, 255);
  EXPECT_EQ(image.at(0, 4, 1), 255);
  EXPECT_EQ(image.at(1, 4, 1), 0);
  EXPECT_EQ(image.at(2, 4, 1), 0);
  for (int c = 0; c < 3; ++c) EXPECT_EQ(image.at(c, 4, 6), 255);
  const std::string broken = "<svg";
  EXPECT_THROW(render_svg(std::as_bytes(std::span(broken)), "x.svg", 8, 3), FormatError);
}

TEST(TerminalPicture, DrawsTwoRowsALine) {
  const Image image{1, 2, 2, {0, 255, 0, 255}};
  EXPECT_EQ(terminal_picture({image, image}, false), " @  @ \n");
  EXPECT_EQ(terminal_picture({image}, true),
            "\x1b[38;2;0;0;0m\x1b[48;2;0;0;0m▀\x1b[38;2;255;255;255m\x1b[48;2;255;255;255m▀\x1b[0m \n");
}

TEST_F(ImageFile, GzipIsUnpackedAndDamageIsNamed) {
  // gzip of "hello\n", made with gzip -n.
  const std::string bytes(
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\x48\xcd\xc9\xc9\xe7\x02\x00\x20\x30\x3a\x36\x06\x00\x00\x00", 26);
  write_file(path_, bytes);
  EXPECT_EQ(read_gzip(path_), "hello\n");
  EXPECT_THROW(read_gzip(path_, 3), FormatError);
  write_file(path_, bytes.substr(0, 15));
  EXPECT_THROW(read_gzip(path_), FormatError);
  write_file(path_, "plain");
  EXPECT_THROW(read_gzip(path_), FormatError);
}

}  // namespace
}  // namespace lighten
