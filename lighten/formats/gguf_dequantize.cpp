// Block formats -> float32. Each product and sum is rounded to float32 in the order of the reference, so results agree bit for
// bit.
#include <array>
#include <cstring>

#include "lighten/base/error.h"
#include "lighten/base/half.h"
#include "lighten/formats/gguf.h"
#include "lighten/formats/safetensors.h"

namespace lighten {
namespace {

constexpr int kBlock = 32;        // numbers in a plain block
constexpr int kSuperBlock = 256;  // numbers in a K block

using Bytes = const uint8_t*;

float half_at(Bytes p) {
  Half bits;
  std::memcpy(&bits, p, 2);
  return half_to_float(bits);
}

uint32_t word_at(Bytes p) {
  uint32_t word;
  std::memcpy(&word, p, 4);
  return word;
}

/// Code j of 32 that lie as 16 bytes: the low nibbles are codes 0-15, the high ones 16-31.
int nibble(Bytes q, int j) { return j < 16 ? q[j] & 15 : q[j - 16] >> 4; }

void q4_0(Bytes b, float* out) {
  const float d = half_at(b);
  for (int j = 0; j < kBlock; ++j) out[j] = d * static_cast<float>(nibble(b + 2, j) - 8);
}

void q4_1(Bytes b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  for (int j = 0; j < kBlock; ++j) out[j] = d * static_cast<float>(nibble(b + 4, j)) + m;
}

void q5_0(Bytes b, float* out) {
  const float d = half_at(b);
  const uint32_t high = word_at(b + 2);
  for (int j = 0; j < kBlock; ++j) {
    const int q = nibble(b + 6, j) | static_cast<int>((high >> j & 1) << 4);
    out[j] = d * static_cast<float>(q - 16);
  }
}

void q5_1(Bytes b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  const uint32_t high = word_at(b + 4);
  for (int j = 0; j < kBlock; ++j) {
    const int q = nibble(b + 8, j) | static_cast<int>((high >> j & 1) << 4);
    out[j] = d * static_cast<float>(q) + m;
  }
}

void q8_0(Bytes b, float* out) {
  const float d = half_at(b);
  for (int j = 0; j < kBlock; ++j) out[j] = static_cast<float>(static_cast<int8_t>(b[2 + j])) * d;
}

void iq4_nl(Bytes b, float* out) {
  const float d = half_at(b);
  for (int j = 0; j < kBlock; ++j) out[j] = d * static_cast<float>(kIq4Levels[static_cast<size_t>(nibble(b + 2, j))]);
}

/// Two-bit code j of 256 in 64 bytes: each half of 128 numbers takes 32 bytes, and each 32 numbers one pair of bits of them.
int two_bits(Bytes q, int j) { return q[j / 128 * 32 + j % 32] >> (j % 128 / 32 * 2) & 3; }

/// scales[16] (low nibble scale, high nibble minimum), codes[64], d, dmin. Groups of 16: w = (d s) q - (dmin m).
void q2_k(Bytes b, float* out) {
  const Bytes scales = b, codes = b + 16;
  const float d = half_at(b + 80), dmin = half_at(b + 82);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(scales[group] & 15), minimum = dmin * static_cast<float>(scales[group] >> 4);
    for (int j = group * 16; j < group * 16 + 16; ++j) out[j] = scale * static_cast<float>(two_bits(codes, j)) - minimum;
  }
}

/// high[32], low codes[64], scales[12], d. Groups of 16 with 6-bit scales: w = d (s - 32) (low - (high ? 0 : 4)).
void q3_k(Bytes b, float* out) {
  const Bytes high = b, codes = b + 32, scales = b + 96;
  const float d = half_at(b + 108);
  for (int group = 0; group < 16; ++group) {
    const int low = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4;
    const int top = scales[8 + group % 4] >> (group / 4 * 2) & 3;
    const float scale = d * static_cast<float>((low | top << 4) - 32);
    for (int j = group * 16; j < group * 16 + 16; ++j) {
      const int q = two_bits(codes, j) - ((high[j % 32] >> (j / 32) & 1) != 0 ? 0 : 4);
      out[j] = scale * static_cast<float>(q);
    }
  }
}

/// The eight 6-bit scales and minimums that Q4_K and Q5_K keep in 12 bytes: entries 0-3 lie in the low six bits of bytes 0-3
/// (scales) and 4-7 (minimums); entries 4-7 have their low nibble in bytes 8-11 and their top two bits above those of entries
/// 0-3.
struct ScaleMinimum {
  int scale, minimum;
};
ScaleMinimum scale_minimum(Bytes packed, int group) {
  if (group < 4) return {packed[group] & 63, packed[group + 4] & 63};
  const int i = group - 4;
  return {(packed[8 + i] & 15) | (packed[i] >> 6) << 4, (packed[8 + i] >> 4) | (packed[i + 4] >> 6) << 4};
}

/// Four-bit code j of 256 in 128 bytes: each 64 numbers take 32 bytes, first 32 low nibbles, then 32 high ones.
int four_bits(Bytes q, int j) { return q[j / 64 * 32 + j % 32] >> (j % 64 / 32 * 4) & 15; }

/// d, dmin, scales[12], codes[128]. Groups of 32: w = (d s) q - (dmin m).
void q4_k(Bytes b, float* out) {
  const float d = half_at(b), dmin = half_at(b + 2);
  for (int group = 0; group < 8; ++group) {
    const ScaleMinimum sm = scale_minimum(b + 4, group);
    const float scale = d * static_cast<float>(sm.scale), minimum = dmin * static_cast<float>(sm.minimum);
    for (int j = group * 32; j < group * 32 + 32; ++j) out[j] = scale * static_cast<float>(four_bits(b + 16, j)) - minimum;
  }
}

/// d, dmin, scales[12], high[32], codes[128]. As Q4_K with a fifth bit: bit `group` of high[j % 32].
void q5_k(Bytes b, float* out) {
  const Bytes high = b + 16, codes = b + 48;
  const float d = half_at(b), dmin = half_at(b + 2);
  for (int group = 0; group < 8; ++group) {
    const ScaleMinimum sm = scale_minimum(b + 4, group);
    const float scale = d * static_cast<float>(sm.scale), minimum = dmin * static_cast<float>(sm.minimum);
    for (int j = group * 32; j < group * 32 + 32; ++j) {
      const int q = four_bits(codes, j) | (high[j % 32] >> group & 1) << 4;
      out[j] = scale * static_cast<float>(q) - minimum;
    }
  }
}

/// low[128], high[64], scales[16] (signed), d. Groups of 16: w = (d s) (q - 32). Each half of 128 numbers takes 64 bytes of low
/// nibbles (64 numbers low, then 64 high) and 32 bytes of top pairs.
void q6_k(Bytes b, float* out) {
  const Bytes low = b, high = b + 128, scales = b + 192;
  const float d = half_at(b + 208);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(static_cast<int8_t>(scales[group]));
    for (int j = group * 16; j < group * 16 + 16; ++j) {
      const int nibble = low[j / 128 * 64 + j % 64] >> (j % 128 / 64 * 4) & 15;
      out[j] = scale * static_cast<float>((nibble | two_bits(high, j) << 4) - 32);
    }
  }
}

template <int kLength, void (*kDecode)(Bytes, float*)>
void all_blocks(const std::byte* blocks, uint64_t block_bytes, int64_t count, float* out) {
  const auto* next = reinterpret_cast<Bytes>(blocks);
  for (int64_t i = 0; i < count; i += kLength, next += block_bytes) kDecode(next, out + i);
}

template <typename Stored, typename Convert>
void all_numbers(const std::byte* stored, int64_t count, float* out, Convert convert) {
  for (int64_t i = 0; i < count; ++i) {
    Stored value;
    std::memcpy(&value, stored + i * static_cast<int64_t>(sizeof(Stored)), sizeof(Stored));
    out[i] = convert(value);
  }
}

}  // namespace

void gguf_dequantize(GgufType type, const std::byte* blocks, int64_t count, float* out) {
  gguf_bytes(type, count, "gguf_dequantize");
  const uint64_t bytes = gguf_type_info(type)->block_bytes;
  switch (type) {
    case GgufType::f32:
      std::memcpy(out, blocks, static_cast<size_t>(count) * sizeof(float));
      return;
    case GgufType::f64:
      return all_numbers<double>(blocks, count, out, [](double x) { return static_cast<float>(x); });
    case GgufType::f16:
      return all_numbers<Half>(blocks, count, out, half_to_float);
    case GgufType::bf16:
      return all_numbers<BFloat16>(blocks, count, out, bfloat16_to_float);
    case GgufType::q4_0:
      return all_blocks<kBlock, q4_0>(blocks, bytes, count, out);
    case GgufType::q4_1:
      return all_blocks<kBlock, q4_1>(blocks, bytes, count, out);
    case GgufType::q5_0:
      return all_blocks<kBlock, q5_0>(blocks, bytes, count, out);
    case GgufType::q5_1:
      return all_blocks<kBlock, q5_1>(blocks, bytes, count, out);
    case GgufType::q8_0:
      return all_blocks<kBlock, q8_0>(blocks, bytes, count, out);
    case GgufType::iq4_nl:
      return all_blocks<kBlock, iq4_nl>(blocks, bytes, count, out);
    case GgufType::q2_k:
      return all_blocks<kSuperBlock, q2_k>(blocks, bytes, count, out);
    case GgufType::q3_k:
      return all_blocks<kSuperBlock, q3_k>(blocks, bytes, count, out);
    case GgufType::q4_k:
      return all_blocks<kSuperBlock, q4_k>(blocks, bytes, count, out);
    case GgufType::q5_k:
      return all_blocks<kSuperBlock, q5_k>(blocks, bytes, count, out);
    case GgufType::q6_k:
      return all_blocks<kSuperBlock, q6_k>(blocks, bytes, count, out);
  }
  throw_error<FormatError>(
      "GGUF tensor type {} cannot be read; readable are F32, F16, BF16, F64, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, "
      "Q2_K to Q6_K and IQ4_NL",
      gguf_type_info(type)->name);
}

std::vector<float> to_float(const GgufTensor& tensor, const std::string& where, bool finite) {
  if (!gguf_can_read(tensor.type))
    throw_error<FormatError>("{}: type {} cannot be read; convert the file to another quantization", where,
                             gguf_type_info(tensor.type)->name);
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  gguf_dequantize(tensor.type, tensor.bytes.data(), tensor.elements(), values.data());
  if (finite) check_finite(values, where);
  return values;
}

}  // namespace lighten
