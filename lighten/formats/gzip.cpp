#include "lighten/formats/gzip.h"

#include <zlib.h>

#include <memory>
#include <vector>

#include "lighten/base/error.h"

namespace lighten {

std::string read_gzip(const fs::path& path, uint64_t most) {
  const MappedFile file(path);
  if (file.size() < 2 || std::to_integer<int>(file.bytes()[0]) != 0x1f || std::to_integer<int>(file.bytes()[1]) != 0x8b)
    throw_error<FormatError>("{}: not a gzip file", path.string());
  z_stream stream{};
  if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) throw_error<FileError>("{}: zlib cannot be started", path.string());
  const std::unique_ptr<z_stream, int (*)(z_streamp)> guard(&stream, inflateEnd);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(file.data()));
  stream.avail_in = static_cast<uInt>(file.size());
  std::string text;
  std::vector<char> piece(1 << 16);
  for (;;) {
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    const int status = inflate(&stream, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END)
      throw_error<FormatError>("{}: damaged or cut off: {}", path.string(), stream.msg ? stream.msg : "unexpected end");
    text.append(piece.data(), piece.size() - stream.avail_out);
    if (text.size() > most) throw_error<FormatError>("{}: unpacks to more than {} bytes", path.string(), most);
    if (status == Z_STREAM_END) return text;
  }
}

}  // namespace lighten
