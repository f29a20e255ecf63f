#include "lighten/data/sha256.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

namespace lighten {
namespace {

/// The first 32 bits of the fractional part of the cube roots of the first 64 primes; square roots for the initial state.
constexpr bool is_prime(uint32_t n) {
  for (uint32_t d = 2; d * d <= n; ++d)
    if (n % d == 0) return false;
  return true;
}

/// floor(2^32 * (n^(1/k) - floor(n^(1/k)))), by integer bisection on 128 bits: exact.
constexpr uint32_t root_fraction(uint32_t n, int k) {
  unsigned __int128 low = 0, high = static_cast<unsigned __int128>(32) << 32;  // roots are below 32
  const auto too_big = [&](unsigned __int128 x) {                              // x^k > n * 2^(32 k), without overflow
    if (k == 2) return x * x > (static_cast<unsigned __int128>(n) << 64);
    const unsigned __int128 square = x * x;  // below 2^74; compare square * x with n << 96 by parts
    const unsigned __int128 upper = (square >> 32) * x, lower = (square & 0xffffffffu) * x;
    const unsigned __int128 sum = upper + (lower >> 32);
    const unsigned __int128 target = static_cast<unsigned __int128>(n) << 64;
    return sum > target || (sum == target && (lower & 0xffffffffu) != 0);
  };
  while (high - low > 1) {
    const unsigned __int128 middle = (low + high) / 2;
    (too_big(middle) ? high : low) = middle;
  }
  return static_cast<uint32_t>(low);
}

constexpr auto kConstants = [] {
  std::array<uint32_t, 72> values{};  // 64 round constants, then 8 initial words
  uint32_t prime = 2;
  for (size_t i = 0; i < 64; ++prime)
    if (is_prime(prime)) {
      values[i] = root_fraction(prime, 3);
      if (i < 8) values[64 + i] = root_fraction(prime, 2);
      ++i;
    }
  return values;
}();
static_assert(kConstants[0] == 0x428a2f98 && kConstants[63] == 0xc67178f2 && kConstants[64] == 0x6a09e667);

}  // namespace

Sha256::Sha256() { std::copy_n(kConstants.begin() + 64, 8, state_); }

void Sha256::compress(const uint8_t* block) {
  uint32_t w[64];
  for (int i = 0; i < 16; ++i)
    w[i] = static_cast<uint32_t>(block[4 * i]) << 24 | static_cast<uint32_t>(block[4 * i + 1]) << 16 |
           static_cast<uint32_t>(block[4 * i + 2]) << 8 | block[4 * i + 3];
  for (int i = 16; i < 64; ++i) {
    const uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + w[i - 7] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ (a >> 3)) +
           (std::rotr(b, 17) ^ std::rotr(b, 19) ^ (b >> 10));
  }
  uint32_t s[8];
  std::copy_n(state_, 8, s);
  for (int i = 0; i < 64; ++i) {
    const uint32_t t1 = s[7] + (std::rotr(s[4], 6) ^ std::rotr(s[4], 11) ^ std::rotr(s[4], 25)) +
                        ((s[4] & s[5]) ^ (~s[4] & s[6])) + kConstants[static_cast<size_t>(i)] + w[i];
    const uint32_t t2 =
        (std::rotr(s[0], 2) ^ std::rotr(s[0], 13) ^ std::rotr(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    for (int j = 7; j > 0; --j) s[j] = s[j - 1];
    s[4] += t1;
    s[0] = t1 + t2;
  }
  for (int i = 0; i < 8; ++i) state_[i] += s[i];
}

void Sha256::update(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t held = total_ % 64, take = std::min(bytes.size(), 64 - held);
    std::memcpy(block_ + held, bytes.data(), take);
    total_ += take;
    bytes = bytes.subspan(take);
    if (total_ % 64 == 0) compress(block_);
  }
}

std::string Sha256::finish() {
  const uint64_t bits = total_ * 8;
  const std::byte mark{0x80}, zero{0};
  update({&mark, 1});
  while (total_ % 64 != 56) update({&zero, 1});
  std::byte length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<std::byte>(bits >> (56 - 8 * i));
  update(length);
  std::string text;
  for (const uint32_t word : state_)
    for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[(word >> shift) & 15];
  return text;
}

std::string sha256(std::string_view text) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(text.data(), text.size())));
  return hash.finish();
}

std::string sha256_of_file(const fs::path& path) {
  const MappedFile file(path);
  Sha256 hash;
  hash.update(file.bytes());
  return hash.finish();
}

}  // namespace lighten
