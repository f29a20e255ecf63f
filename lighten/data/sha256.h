// SHA-256: integrity of what was fetched, and a stable key to split documents by.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "lighten/base/file.h"

namespace lighten {

/// Hash of bytes that arrive in pieces. Source: FIPS 180-4.
class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> bytes);
  /// 64 lower-case hexadecimal digits. Nothing may be added afterwards.
  std::string finish();

 private:
  uint32_t state_[8];
  uint8_t block_[64];
  uint64_t total_ = 0;
  void compress(const uint8_t* block);
};

std::string sha256(std::string_view text);
std::string sha256_of_file(const fs::path& path);

}  // namespace lighten
