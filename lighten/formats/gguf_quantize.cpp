// Float32 -> block formats, with the rounding of the reference implementation.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "lighten/base/error.h"
#include "lighten/base/half.h"
#include "lighten/formats/gguf.h"
#include "lighten/formats/safetensors.h"

namespace lighten {
namespace {

constexpr int kBlock = 32;

void put_half(float value, uint8_t* out) {
  const Half bits = float_to_half(value);
  std::memcpy(out, &bits, 2);
}

/// 1 / d, and 0 where d is 0 or so small that its inverse overflows (all codes then mean the same number).
float inverse(float d) {
  const float result = d == 0 ? 0 : 1.0f / d;
  return std::isfinite(result) ? result : 0;
}

/// trunc(x), kept inside [0, highest].
uint8_t code(float x, int highest) { return static_cast<uint8_t>(std::clamp(x, 0.0f, static_cast<float>(highest))); }

float value_of_largest_magnitude(const float* x) {
  return *std::max_element(x, x + kBlock, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
}

/// Scale around zero for codes [0, 2 half): d = extreme / -half, so that the extreme itself gets code 0.
void codes_around_zero(const float* x, int half, uint8_t* scale, uint8_t* codes) {
  const float d = value_of_largest_magnitude(x) / -static_cast<float>(half), id = inverse(d);
  put_half(d, scale);
  for (int j = 0; j < kBlock; ++j) codes[j] = code(x[j] * id + (static_cast<float>(half) + 0.5f), 2 * half - 1);
}

/// Scale and minimum for codes [0, highest].
void codes_above_minimum(const float* x, int highest, uint8_t* scale_and_minimum, uint8_t* codes) {
  const auto [low, high] = std::minmax_element(x, x + kBlock);
  const float d = (*high - *low) / static_cast<float>(highest), id = inverse(d);
  put_half(d, scale_and_minimum);
  put_half(*low, scale_and_minimum + 2);
  for (int j = 0; j < kBlock; ++j) codes[j] = code((x[j] - *low) * id + 0.5f, highest);
}

void put_nibbles(const uint8_t* codes, uint8_t* out) {
  for (int j = 0; j < kBlock / 2; ++j) out[j] = static_cast<uint8_t>((codes[j] & 15) | (codes[j + kBlock / 2] & 15) << 4);
}

void put_fifth_bits(const uint8_t* codes, uint8_t* out) {
  uint32_t word = 0;
  for (int j = 0; j < kBlock; ++j) word |= static_cast<uint32_t>(codes[j] >> 4) << j;
  std::memcpy(out, &word, 4);
}

void q4_0(const float* x, uint8_t* out) {
  uint8_t codes[kBlock];
  codes_around_zero(x, 8, out, codes);
  put_nibbles(codes, out + 2);
}

void q4_1(const float* x, uint8_t* out) {
  uint8_t codes[kBlock];
  codes_above_minimum(x, 15, out, codes);
  put_nibbles(codes, out + 4);
}

void q5_0(const float* x, uint8_t* out) {
  uint8_t codes[kBlock];
  codes_around_zero(x, 16, out, codes);
  put_fifth_bits(codes, out + 2);
  put_nibbles(codes, out + 6);
}

void q5_1(const float* x, uint8_t* out) {
  uint8_t codes[kBlock];
  codes_above_minimum(x, 31, out, codes);
  put_fifth_bits(codes, out + 4);
  put_nibbles(codes, out + 8);
}

void q8_0(const float* x, uint8_t* out) {
  const float d = std::fabs(value_of_largest_magnitude(x)) / 127.0f, id = inverse(d);
  put_half(d, out);
  for (int j = 0; j < kBlock; ++j)
    out[2 + j] = static_cast<uint8_t>(static_cast<int8_t>(std::clamp(std::round(x[j] * id), -127.0f, 127.0f)));
}

using Encode = void (*)(const float*, uint8_t*);

Encode encoder(GgufType type) {
  switch (type) {
    case GgufType::q4_0:
      return q4_0;
    case GgufType::q4_1:
      return q4_1;
    case GgufType::q5_0:
      return q5_0;
    case GgufType::q5_1:
      return q5_1;
    case GgufType::q8_0:
      return q8_0;
    default:
      return nullptr;
  }
}

template <typename Convert>
void put_all(std::span<const float> values, std::byte* out, Convert convert) {
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t bits = convert(values[i]);
    std::memcpy(out + 2 * i, &bits, 2);
  }
}

}  // namespace

std::vector<std::byte> gguf_quantize(GgufType type, std::span<const float> values) {
  const auto count = static_cast<int64_t>(values.size());
  std::vector<std::byte> out(gguf_bytes(type, count, "gguf_quantize"));
  check_finite(values, "gguf_quantize");
  if (type == GgufType::f32)
    std::memcpy(out.data(), values.data(), out.size());
  else if (type == GgufType::f16)
    put_all(values, out.data(), float_to_half);
  else if (type == GgufType::bf16)
    put_all(values, out.data(), float_to_bfloat16);
  else if (const Encode encode = encoder(type)) {
    auto* next = reinterpret_cast<uint8_t*>(out.data());
    for (int64_t i = 0; i < count; i += kBlock, next += gguf_type_info(type)->block_bytes) encode(values.data() + i, next);
  } else {
    throw_error<FormatError>(
        "GGUF tensor type {} cannot be written; writable are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1",
        gguf_type_info(type)->name);
  }
  return out;
}

}  // namespace lighten
