#include "lighten/formats/plain_text.h"

#include <algorithm>
#include <string_view>

#include "lighten/base/error.h"

namespace lighten {
namespace {

/// Bytes that do not belong to valid UTF-8 (structure only: lead and continuation bytes).
size_t invalid_utf8_bytes(std::string_view text) {
  size_t bad = 0;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80                   ? 1
                          : lead >= 0xc2 && lead < 0xe0 ? 2
                          : lead >= 0xe0 && lead < 0xf0 ? 3
                          : lead >= 0xf0 && lead < 0xf5 ? 4
                                                        : 0;
    bool right = length > 0 && i + length <= text.size();
    for (size_t k = 1; right && k < length; ++k) right = (static_cast<unsigned char>(text[i + k]) & 0xc0) == 0x80;
    bad += right ? 0 : 1;
    i += right ? length : 1;
  }
  return bad;
}

}  // namespace

std::string read_plain_text(const fs::path& file, const std::string& role, const std::string& remedy) {
  std::string text = read_file(file);
  const std::string name = file.string();
  if (std::all_of(text.begin(), text.end(), [](unsigned char c) { return c <= ' '; }))
    throw_error<FormatError>("{} {} is empty; {}", role, name, remedy);
  if (text.find('\0') != std::string::npos)
    throw_error<FormatError>("{} {} is binary (it holds NUL bytes); give plain text in UTF-8", role, name);
  if (invalid_utf8_bytes(text) * 10 > text.size())
    throw_error<FormatError>("{} {} is not UTF-8 text (more than a tenth of it is invalid); give plain text in UTF-8", role,
                             name);
  return text;
}

}  // namespace lighten
