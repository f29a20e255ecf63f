#include "lighten/formats/gguf.h"

#include <cmath>
#include <cstring>

#include "lighten/base/half.h"
#include "lighten/base/random.h"
#include "lighten/formats/test_files.h"

namespace lighten {
namespace {

using formats::contains;
using formats::message_of;
using formats::put;
using formats::TemporaryFolder;

template <typename T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}
std::string text(const std::string& s) { return raw<uint64_t>(s.size()) + s; }
std::string head(uint32_t version, uint64_t tensors, uint64_t keys) { return "GGUF" + raw(version) + raw(tensors) + raw(keys); }
std::string tensor(const std::string& name, const std::vector<uint64_t>& innermost_first, uint32_t type, uint64_t offset) {
  std::string out = text(name) + raw(static_cast<uint32_t>(innermost_first.size()));
  for (const uint64_t size : innermost_first) out += raw(size);
  return out + raw(type) + raw(offset);
}
std::string padded(std::string bytes, size_t alignment = 32) {
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
  return bytes;
}

std::string refusal(const std::string& contents) {
  const TemporaryFolder folder;
  const fs::path path = put(folder / "broken.gguf", contents);
  const std::string message = message_of<FormatError>([&] { GgufFile file(path); });
  EXPECT_TRUE(contains(message, path.string()));
  return message;
}

TEST(Gguf, ReadsVersionsTwoAndThree) {
  for (const uint32_t version : {2u, 3u}) {
    const TemporaryFolder folder;
    const std::string info = head(version, 1, 2) + text("general.name") + raw(uint32_t{8}) + text("x") + text("a.list") +
                             raw(uint32_t{9}) + raw(uint32_t{5}) + raw(uint64_t{2}) + raw(int32_t{-1}) + raw(int32_t{7}) +
                             tensor("w", {2, 3}, 0, 0);
    std::string data;
    for (int i = 0; i < 6; ++i) data += raw(static_cast<float>(i));
    const GgufFile file(put(folder / "a.gguf", padded(info) + data));
    EXPECT_EQ(file.version(), version);
    EXPECT_EQ(file.metadata().dump(), R"({"general.name":"x","a.list":[-1,7]})");
    ASSERT_NE(file.find("w"), nullptr);
    EXPECT_EQ(file.find("w")->shape, (std::vector<int64_t>{3, 2}));
    EXPECT_EQ(to_float(*file.find("w"), "w"), (std::vector<float>{0, 1, 2, 3, 4, 5}));
    EXPECT_EQ(file.find("v"), nullptr);
  }
}

TEST(Gguf, RefusesDamagedHeadersAndSaysWhatIsWrong) {
  const auto key = [](const std::string& name, uint32_t type, const std::string& value) {
    return text(name) + raw(type) + value;
  };
  EXPECT_TRUE(contains(refusal(""), "the file ends inside the magic number"));
  EXPECT_TRUE(contains(refusal("GGML1234"), "this is no GGUF file"));
  EXPECT_TRUE(contains(refusal(head(1, 0, 0)), "version 1 is not supported"));
  EXPECT_TRUE(contains(refusal(head(0x03000000, 0, 0)), "big-endian"));
  EXPECT_TRUE(contains(refusal(head(3, uint64_t{1} << 60, 0)), "tensor count claims"));
  EXPECT_TRUE(contains(refusal(head(3, 0, UINT64_MAX)), "metadata count claims"));
  EXPECT_TRUE(contains(refusal(head(3, 0, 1) + raw(UINT64_MAX) + "name56789012345"), "claims a text of"));
  EXPECT_TRUE(contains(refusal(head(3, 0, 1) + key("k", 13, "12345678")), "metadata field \"k\" has the unknown type 13"));
  EXPECT_TRUE(contains(refusal(head(3, 0, 1) + key("k", 8, raw(uint64_t{99}) + "ab")), "claims a text of 99"));
  EXPECT_TRUE(contains(refusal(head(3, 0, 2) + key("k", 7, "1") + key("k", 7, "1")), "\"k\" stands twice"));
  EXPECT_TRUE(
      contains(refusal(head(3, 0, 1) + key("k", 9, raw(uint32_t{4}) + raw(uint64_t{1} << 61))), "claims 2305843009213693952"));
  EXPECT_TRUE(contains(refusal(head(3, 0, 1) + key("k", 9, raw(uint32_t{99}) + raw(uint64_t{0}))), "array of unknown type 99"));
  std::string nested;
  for (int i = 0; i < 6; ++i) nested += raw(uint32_t{9}) + raw(uint64_t{1});
  EXPECT_TRUE(contains(refusal(head(3, 0, 1) + key("k", 9, nested + std::string(64, '\0'))), "nests arrays too deeply"));
  EXPECT_TRUE(contains(refusal(head(3, 0, 1) + key("general.alignment", 4, raw(uint32_t{24}))), "power of two"));
  EXPECT_TRUE(contains(refusal(head(3, 0, 1) + key("general.alignment", 4, raw(uint32_t{0}))), "power of two"));
  EXPECT_TRUE(contains(refusal(head(3, 0, 1) + key("general.alignment", 8, text("32"))), "whole number"));
}

TEST(Gguf, RefusesTensorsThatDoNotAddUp) {
  const auto one = [](const std::string& info) { return refusal(padded(head(3, 1, 0) + info) + std::string(64, '\0')); };
  const auto two = [](const std::string& info) { return refusal(padded(head(3, 2, 0) + info) + std::string(64, '\0')); };
  EXPECT_TRUE(contains(one(tensor("w", {17}, 0, 0)), "tensor w: needs 68 bytes at offset 0, but the file holds 64"));
  EXPECT_TRUE(contains(one(tensor("w", {2}, 0, 64 + 32)), "truncated"));
  EXPECT_TRUE(contains(one(tensor("w", {2}, 0, UINT64_MAX - 31)), "truncated"));
  EXPECT_TRUE(contains(one(tensor("w", {2}, 0, 4)), "offset 4 is not a multiple of the alignment 32"));
  EXPECT_TRUE(contains(one(tensor("w", {}, 0, 0)), "0 dimensions"));
  EXPECT_TRUE(contains(one(tensor("w", {1, 1, 1, 1, 1}, 0, 0)), "5 dimensions"));
  EXPECT_TRUE(contains(one(tensor("w", {0}, 0, 0)), "dimension 0 of 0 cannot be"));
  EXPECT_TRUE(contains(one(tensor("w", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0)), "cannot be"));
  EXPECT_TRUE(contains(one(tensor("w", {uint64_t{1} << 62}, 0, 0)), "more than any file can hold"));
  EXPECT_TRUE(contains(one(tensor("w", {16, 2}, 2, 0)), "rows of 16 are not whole blocks of 32 (Q4_0)"));
  EXPECT_TRUE(contains(one(tensor("w", {2}, 4, 0)), "tensor type 4 is not known"));
  EXPECT_TRUE(contains(two(tensor("w", {2}, 0, 0) + tensor("w", {2}, 0, 32)), "tensor w stands twice"));
  EXPECT_TRUE(contains(two(tensor("v", {9}, 0, 0) + tensor("w", {2}, 0, 32)), "tensors v and w overlap"));
  EXPECT_TRUE(contains(refusal(head(3, 1, 0) + tensor("w", {2}, 0, 0)), "truncated"));
}

std::vector<float> decode(GgufType type, const std::vector<uint8_t>& block) {
  const int64_t count = gguf_type_info(type)->block_length;
  EXPECT_EQ(block.size(), gguf_type_info(type)->block_bytes);
  std::vector<float> out(static_cast<size_t>(count));
  gguf_dequantize(type, reinterpret_cast<const std::byte*>(block.data()), count, out.data());
  return out;
}

/// A block that is zero but for chosen bytes. 0x3c00 is 1 in binary16, 0x4000 is 2.
std::vector<uint8_t> block(GgufType type, const std::vector<std::pair<size_t, int>>& bytes) {
  std::vector<uint8_t> result(gguf_type_info(type)->block_bytes);
  for (const auto& [at, value] : bytes) result[at] = static_cast<uint8_t>(value);
  return result;
}

TEST(Gguf, PlainBlocksMeanWhatTheFormatSays) {
  const std::vector<float> q4_0 = decode(GgufType::q4_0, block(GgufType::q4_0, {{1, 0x40}, {2, 0x3f}}));
  EXPECT_EQ(q4_0[0], 2 * (15 - 8));
  EXPECT_EQ(q4_0[16], 2 * (3 - 8));
  EXPECT_EQ(q4_0[1], 2 * (0 - 8));
  const std::vector<float> q4_1 = decode(GgufType::q4_1, block(GgufType::q4_1, {{1, 0x40}, {3, 0x3c}, {19, 0xa1}}));
  EXPECT_EQ(q4_1[15], 2 * 1 + 1);
  EXPECT_EQ(q4_1[31], 2 * 10 + 1);
  const std::vector<float> q5_0 = decode(GgufType::q5_0, block(GgufType::q5_0, {{1, 0x3c}, {5, 0x80}, {21, 0x70}}));
  EXPECT_EQ(q5_0[31], 7 + 16 - 16);
  EXPECT_EQ(q5_0[30], -16);
  const std::vector<float> q5_1 = decode(GgufType::q5_1, block(GgufType::q5_1, {{1, 0x3c}, {3, 0x40}, {4, 0x01}, {8, 0x05}}));
  EXPECT_EQ(q5_1[0], 5 + 16 + 2);
  const std::vector<float> q8_0 = decode(GgufType::q8_0, block(GgufType::q8_0, {{1, 0x40}, {2, 0x80}, {33, 0x7f}}));
  EXPECT_EQ(q8_0[0], -256);
  EXPECT_EQ(q8_0[31], 254);
  const std::vector<float> iq4_nl = decode(GgufType::iq4_nl, block(GgufType::iq4_nl, {{1, 0x3c}, {2, 0xf8}}));
  EXPECT_EQ(iq4_nl[0], 1);
  EXPECT_EQ(iq4_nl[16], 113);
  EXPECT_EQ(iq4_nl[1], -127);
}

TEST(Gguf, SuperBlocksMeanWhatTheFormatSays) {
  // Q2_K: group 9 = numbers 144-159, in the second half, bits 0-1 of bytes 32-63, so number 144 is byte 16 + 32 + 16. Scale 3,
  // minimum 2.
  const auto q2 = decode(GgufType::q2_k, block(GgufType::q2_k, {{9, 0x23}, {16 + 48, 0x03}, {81, 0x3c}, {83, 0x40}}));
  EXPECT_EQ(q2[144], 1 * 3 * 3 - 2 * 2);
  EXPECT_EQ(q2[145], -4);
  EXPECT_EQ(q2[0], 0);
  // Q3_K: all scale bits 0 mean -32; number 255 = bits 6-7 of the last low byte, its high bit is bit 7 of high[31].
  const auto q3 = decode(GgufType::q3_k, block(GgufType::q3_k, {{31, 0x80}, {95, 0x80}, {109, 0x3c}}));
  EXPECT_EQ(q3[255], -32 * 2);
  EXPECT_EQ(q3[254], -32 * -4);
  // Group 15's scale: high nibble of byte 7, top bits 6-7 of byte 11 of the scales: 0b110101 - 32 = 21.
  const auto q3_scaled = decode(GgufType::q3_k, block(GgufType::q3_k, {{96 + 7, 0x50}, {96 + 11, 0xc0}, {109, 0x3c}}));
  EXPECT_EQ(q3_scaled[255], 21 * -4);
  // Q4_K: group 5 = numbers 160-191, high nibbles of bytes 64-95. Scale: low nibble of byte 9, top bits of byte 1; minimum:
  // high nibble, top of byte 5.
  const auto q4 =
      decode(GgufType::q4_k,
             block(GgufType::q4_k, {{1, 0x3c}, {3, 0x3c}, {4 + 1, 0x80}, {4 + 5, 0x40}, {4 + 9, 0x53}, {16 + 64, 0xd0}}));
  EXPECT_EQ(q4[160], (3 + 32) * 13 - (5 + 16));
  EXPECT_EQ(q4[161], -(5 + 16));
  // Q5_K: the same place, fifth bit = bit 5 of high[0].
  const auto q5 =
      decode(GgufType::q5_k, block(GgufType::q5_k, {{1, 0x3c}, {4 + 1, 0x80}, {4 + 9, 0x03}, {16, 0x20}, {48 + 64, 0xd0}}));
  EXPECT_EQ(q5[160], (3 + 32) * (13 + 16));
  // Q6_K: number 200 = second half, its 72nd: high nibble of low[64 + 8], top pair bits 4-5 of high[32 + 8]; group 12's scale
  // is signed.
  const auto q6 = decode(GgufType::q6_k, block(GgufType::q6_k, {{72, 0xb0}, {128 + 40, 0x20}, {192 + 12, 0xfd}, {209, 0x3c}}));
  EXPECT_EQ(q6[200], -3 * (11 + 32 - 32));
  EXPECT_EQ(q6[201], -3 * -32);
}

TEST(Gguf, QuantizingWhatLiesOnTheGridGivesItBack) {
  // With codes 0 and the highest present, a block of d q + m is reproduced exactly.
  std::vector<float> values(64);
  for (size_t i = 0; i < 64; ++i) values[i] = 0.25f * static_cast<float>(i % 16) - 1.5f;
  for (const GgufType type : {GgufType::f32, GgufType::f16, GgufType::bf16, GgufType::q4_1}) {
    const std::vector<std::byte> stored = gguf_quantize(type, values);
    std::vector<float> back(64);
    gguf_dequantize(type, stored.data(), 64, back.data());
    EXPECT_EQ(back, values) << gguf_type_info(type)->name;
  }
}

TEST(Gguf, RoundingErrorStaysWithinHalfAStep) {
  Random random(3);
  std::vector<float> x(32 * 200);
  for (float& value : x) value = static_cast<float>(random.normal());
  // Width of a step relative to the block's largest magnitude; Q4_0 and Q5_0 clip the side opposite to the extreme by up to a
  // step.
  const std::vector<std::pair<GgufType, double>> steps = {{GgufType::q4_0, 1 / 8.0},
                                                          {GgufType::q5_0, 1 / 16.0},
                                                          {GgufType::q8_0, 0.5 / 127},
                                                          {GgufType::q4_1, 1 / 15.0},
                                                          {GgufType::q5_1, 1 / 31.0}};
  for (const auto& [type, limit] : steps) {
    const std::vector<std::byte> stored = gguf_quantize(type, x);
    std::vector<float> back(x.size());
    gguf_dequantize(type, stored.data(), static_cast<int64_t>(x.size()), back.data());
    for (size_t b = 0; b < x.size(); b += 32) {
      double largest = 0;
      for (size_t j = b; j < b + 32; ++j) largest = std::max(largest, std::fabs(static_cast<double>(x[j])));
      for (size_t j = b; j < b + 32; ++j)
        ASSERT_LE(std::fabs(back[j] - x[j]), largest * (limit + 2e-3)) << gguf_type_info(type)->name;
    }
  }
}

TEST(Gguf, RefusesToQuantizeWhatItCannot) {
  const std::vector<float> x(256, 1.0f);
  EXPECT_TRUE(contains(message_of<FormatError>([&] { gguf_quantize(GgufType::q4_k, x); }), "Q4_K cannot be written"));
  EXPECT_TRUE(
      contains(message_of<FormatError>([&] { gguf_quantize(GgufType::q4_0, std::span(x).first(33)); }), "whole blocks of 32"));
  const std::vector<float> broken(32, NAN);
  EXPECT_TRUE(contains(message_of<FormatError>([&] { gguf_quantize(GgufType::q8_0, broken); }), "nan"));
  std::byte stored[66] = {};
  float out[256];
  EXPECT_TRUE(contains(message_of<FormatError>([&] { gguf_dequantize(static_cast<GgufType>(16), stored, 256, out); }),
                       "IQ2_XXS cannot be read"));
}

TEST(Gguf, WritesWhatItReads) {
  const TemporaryFolder folder;
  std::vector<float> x(96);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  GgufMetadata metadata;
  metadata.set("general.architecture", "llama");
  metadata.set("a.float", 1e-5f);
  const std::vector<std::byte> q8 = gguf_quantize(GgufType::q8_0, x), f32 = gguf_quantize(GgufType::f32, x);
  write_gguf(folder / "x.gguf", metadata, {{"a", {3, 32}, GgufType::q8_0, q8}, {"b", {96}, GgufType::f32, f32}}, 64);
  const GgufFile file(folder / "x.gguf");
  EXPECT_EQ(file.alignment(), 64u);
  EXPECT_EQ(file.metadata()["a.float"].get<double>(), 1e-5);
  EXPECT_EQ(file.find("a")->shape, (std::vector<int64_t>{3, 32}));
  EXPECT_EQ(to_float(*file.find("b"), "b"), x);
  EXPECT_EQ(0, std::memcmp(file.find("a")->bytes.data(), q8.data(), q8.size()));
  EXPECT_THROW(metadata.set("a.float", 2.0f), FormatError);
  EXPECT_THROW(write_gguf(folder / "y.gguf", metadata, {{"a", {2, 32}, GgufType::q8_0, q8}}), FormatError);
  EXPECT_THROW(write_gguf(folder / "y.gguf", metadata, {{"a", {32, 3}, GgufType::q8_0, q8}}), FormatError);
  EXPECT_THROW(write_gguf(folder / "y.gguf", metadata, {{"a", {96}, GgufType::f32, f32}, {"a", {96}, GgufType::f32, f32}}),
               FormatError);
  EXPECT_FALSE(fs::exists(folder / "y.gguf"));
}

}  // namespace
}  // namespace lighten
