#include "lighten/formats/safetensors.h"

#include <cmath>
#include <cstring>

#include "lighten/base/random.h"
#include "lighten/formats/test_files.h"

namespace lighten {
namespace {

using formats::contains;
using formats::message_of;
using formats::put;
using formats::TemporaryFolder;

std::string with_header(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

std::string refusal(const std::string& contents) {
  const TemporaryFolder folder;
  const fs::path path = put(folder / "broken.safetensors", contents);
  const std::string message = message_of<FormatError>([&] { SafetensorsFile file(path); });
  EXPECT_TRUE(contains(message, path.string()));
  return message;
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

const std::string kEightBytes(8, '\0');

TEST(Safetensors, RefusesDamagedFilesAndSaysWhatIsWrong) {
  const std::string good = "{" + entry("w", "F32", "[2]", "[0,8]") + "}";
  EXPECT_TRUE(contains(refusal(""), "0 bytes are too few"));
  EXPECT_TRUE(contains(refusal("1234567"), "7 bytes are too few"));
  EXPECT_TRUE(contains(refusal(with_header(good, kEightBytes).substr(0, 40)), "truncated"));
  EXPECT_TRUE(contains(refusal(with_header(good, "1234567")), "tensor w: data_offsets [0, 8] lie outside the 7 bytes"));
  EXPECT_TRUE(contains(refusal(std::string(8, '\xff') + good + kEightBytes), "header claims 18446744073709551615 bytes"));
  EXPECT_TRUE(contains(refusal(with_header(good, kEightBytes + "x")), "1 bytes after the last tensor"));
  EXPECT_TRUE(contains(refusal(with_header("{\"w\"", "")), "not valid JSON"));
  EXPECT_TRUE(contains(refusal(with_header("[1]", "")), "does not begin with"));
  EXPECT_TRUE(contains(refusal(with_header("", "")), "does not begin with"));
}

TEST(Safetensors, RefusesEntriesThatDoNotAddUp) {
  const auto one = [](const std::string& body) { return refusal(with_header("{" + body + "}", kEightBytes)); };
  EXPECT_TRUE(contains(one(entry("w", "F31", "[2]", "[0,8]")), "tensor w: unknown dtype \"F31\""));
  EXPECT_TRUE(contains(one(entry("w", "F16", "[2]", "[0,8]")), "need 4 bytes, but data_offsets give 8"));
  EXPECT_TRUE(contains(one(entry("w", "F32", "[-2]", "[0,8]")), "not negative"));
  EXPECT_TRUE(contains(one(entry("w", "F32", "[2.0]", "[0,8]")), "whole number"));
  EXPECT_TRUE(contains(one(entry("w", "F32", "[4611686018427387904,4]", "[0,8]")), "multiply to more"));
  EXPECT_TRUE(contains(one(entry("w", "F32", "[9223372036854775808]", "[0,8]")), "too large"));
  EXPECT_TRUE(contains(one(entry("w", "F32", "7", "[0,8]")), "shape must be a list"));
  EXPECT_TRUE(contains(one(entry("w", "F32", "[2]", "[8,0]")), "lie outside"));
  EXPECT_TRUE(contains(one(entry("w", "F32", "[2]", "[0]")), "two numbers"));
  EXPECT_TRUE(contains(one(entry("w", "F32", "[2]", "[0,18446744073709551615]")), "lie outside"));
  EXPECT_TRUE(contains(one("\"w\":{\"dtype\":\"F32\",\"shape\":[2]}"), "field \"data_offsets\" is missing"));
  EXPECT_TRUE(contains(one("\"w\":3"), "must be an object"));
  EXPECT_TRUE(contains(one("\"__metadata__\":{\"a\":1}," + entry("w", "F32", "[2]", "[0,8]")), "__metadata__"));
  EXPECT_TRUE(contains(one(entry("w", "F32", "[2]", "[0,8]") + "," + entry("w", "F32", "[2]", "[0,8]")), "\"w\" stands twice"));
  EXPECT_TRUE(contains(one(entry("a", "F32", "[1]", "[0,4]") + "," + entry("b", "F32", "[2]", "[0,8]")), "tensor b overlaps"));
  EXPECT_TRUE(contains(one(entry("w", "F32", "[1]", "[4,8]")), "4 unused bytes before tensor w"));
}

TEST(Safetensors, WritesAlignedAndReadsBack) {
  const TemporaryFolder folder;
  const std::vector<float> a = {1, -2, 3};
  const std::vector<uint16_t> b = {0x3c00, 0xc000};
  for (const size_t alignment : {size_t{1}, size_t{64}, size_t{4096}}) {
    write_safetensors(
        folder / "x.safetensors",
        {{"b", DType::f16, {1, 2}, std::as_bytes(std::span(b))}, {"a", DType::f32, {3}, std::as_bytes(std::span(a))}},
        {{"format", "pt"}}, alignment);
    const SafetensorsFile file(folder / "x.safetensors");
    EXPECT_EQ(to_float(file.at("a"), "a"), a);
    EXPECT_EQ(to_float(file.at("b"), "b"), (std::vector<float>{1, -2}));
    EXPECT_EQ(file.at("b").shape, (std::vector<int64_t>{1, 2}));
    EXPECT_EQ(file.metadata().at("format"), "pt");
    EXPECT_EQ((file.at("b").bytes.data() - file.file().data()) % static_cast<std::ptrdiff_t>(alignment), 0);
  }
  EXPECT_TRUE(
      contains(message_of<FormatError>([&] { SafetensorsFile(folder / "x.safetensors").at("c"); }), "tensor c is missing"));
}

TEST(Safetensors, RefusesToWriteWhatDoesNotFit) {
  const TemporaryFolder folder;
  const std::vector<float> a = {1, 2};
  const auto bytes = std::as_bytes(std::span(a));
  const fs::path path = folder / "x.safetensors";
  EXPECT_THROW(write_safetensors(path, {{"a", DType::f32, {3}, bytes}}), FormatError);
  EXPECT_THROW(write_safetensors(path, {{"a", DType::f32, {2}, bytes}, {"a", DType::f32, {2}, bytes}}), FormatError);
  EXPECT_THROW(write_safetensors(folder / "no/such/folder.safetensors", {{"a", DType::f32, {2}, bytes}}), FileError);
  EXPECT_FALSE(fs::exists(path));
}

float one(DType type, std::vector<uint8_t> bytes) {
  TensorView view{type, {1}, std::as_bytes(std::span(bytes))};
  return to_float(view, "w", false).at(0);
}

TEST(Safetensors, ConvertsEveryTypeToFloat) {
  // 8-bit floats by their definition: E4M3 has bias 7 and only S.1111.111 as NaN, E5M2 has bias 15 and infinities.
  EXPECT_EQ(one(DType::f8_e4m3, {0x38}), 1.0f);
  EXPECT_EQ(one(DType::f8_e4m3, {0x7e}), 448.0f);
  EXPECT_EQ(one(DType::f8_e4m3, {0x81}), -0x1p-9f);
  EXPECT_TRUE(std::isnan(one(DType::f8_e4m3, {0x7f})));
  EXPECT_EQ(one(DType::f8_e5m2, {0x3c}), 1.0f);
  EXPECT_EQ(one(DType::f8_e5m2, {0x7b}), 57344.0f);
  EXPECT_EQ(one(DType::f8_e5m2, {0x01}), 0x1p-16f);
  EXPECT_TRUE(std::isinf(one(DType::f8_e5m2, {0x7c})));
  EXPECT_EQ(one(DType::bf16, {0x80, 0xbf}), -1.0f);
  EXPECT_EQ(one(DType::i8, {0xff}), -1.0f);
  EXPECT_EQ(one(DType::u8, {0xff}), 255.0f);
  EXPECT_EQ(one(DType::i64, {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), -2.0f);
  EXPECT_EQ(one(DType::u16, {0, 1}), 256.0f);
  EXPECT_EQ(one(DType::boolean, {1}), 1.0f);
}

TEST(Safetensors, NamesTheTensorThatHoldsANan) {
  const std::vector<float> values = {1, 2, NAN, INFINITY};
  const TensorView view{DType::f32, {4}, std::as_bytes(std::span(values))};
  EXPECT_TRUE(contains(message_of<FormatError>([&] { to_float(view, "m: tensor w"); }), "m: tensor w: value 2 is nan"));
  EXPECT_EQ(to_float(view, "w", false).size(), 4u);
}

TEST(Safetensors, ReadsShardsAndRefusesAnIndexThatLeavesTheFolder) {
  const TemporaryFolder folder;
  const std::vector<float> a = {1}, b = {2};
  write_safetensors(folder / "model-1.safetensors", {{"a", DType::f32, {1}, std::as_bytes(std::span(a))}});
  write_safetensors(folder / "model-2.safetensors", {{"b", DType::f32, {1}, std::as_bytes(std::span(b))}});
  const auto index = [&](const std::string& map) {
    put(folder / "model.safetensors.index.json", "{\"weight_map\":" + map + "}");
  };
  index(R"({"a": "model-1.safetensors", "b": "model-2.safetensors"})");
  const SafetensorsModel model(folder.path());
  EXPECT_EQ(model.shards().size(), 2u);
  EXPECT_EQ(to_float(*model.find("b"), "b"), b);
  EXPECT_EQ(model.find("c"), nullptr);

  const auto refused = [&](const std::string& map) {
    index(map);
    return message_of<Error>([&] { SafetensorsModel broken(folder.path()); });
  };
  put(folder.path().parent_path() / "outside.safetensors", "");
  for (const char* name : {"../outside.safetensors", "/etc/passwd.safetensors", "a/b.safetensors", "..", "",
                           ".hidden.safetensors", "model.bin", "a\\\\b.safetensors", "a\\u0000.safetensors"})
    EXPECT_TRUE(contains(refused(std::string("{\"a\": \"") + name + "\"}"), "only plain names")) << name;
  fs::remove(folder.path().parent_path() / "outside.safetensors");
  EXPECT_TRUE(contains(refused(R"({"a": 3})"), "only plain names"));
  EXPECT_TRUE(contains(refused(R"({"a": "model-3.safetensors"})"), "model-3.safetensors"));
  EXPECT_TRUE(contains(refused(R"({"c": "model-1.safetensors"})"), "tensor c is missing"));
  EXPECT_TRUE(contains(refused(R"({"a": "model-1.safetensors", "a": "model-2.safetensors"})"), "stands twice"));
  EXPECT_TRUE(contains(refused("{}"), "weight_map is empty"));
  write_safetensors(folder / "model-4.safetensors", {{"a", DType::f32, {1}, std::as_bytes(std::span(b))}});
  EXPECT_TRUE(contains(refused(R"({"a": "model-4.safetensors", "b": "model-1.safetensors"})"), "tensor a is in model-1"));
  EXPECT_TRUE(contains(refused("[]"), "weight_map"));
  fs::remove(folder / "model.safetensors.index.json");
  EXPECT_TRUE(contains(message_of<FileError>([&] { SafetensorsModel none(folder.path()); }), "neither model.safetensors nor"));
}

TEST(Safetensors, CutOrChangedBytesNeverDoMoreThanThrow) {
  const TemporaryFolder folder;
  const std::string header = "{\"__metadata__\":{\"k\":\"v\"}," + entry("a", "BF16", "[2,2]", "[0,8]") + "," +
                             entry("b", "F8_E4M3", "[3]", "[8,11]") + "}";
  const std::string good = with_header(header, std::string(11, '\1'));
  const auto survives = [&](const std::string& bytes) {
    const fs::path path = put(folder / "f.safetensors", bytes);
    try {
      const SafetensorsFile file(path);
      for (const auto& [name, view] : file.tensors()) to_float(view, name);
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  EXPECT_TRUE(survives(good));
  for (size_t length = 0; length < good.size(); ++length) EXPECT_FALSE(survives(good.substr(0, length))) << length;
  Random random(5);
  for (int round = 0; round < 4000; ++round) {
    std::string changed = good;
    for (uint64_t i = 0; i <= random.below(3); ++i) changed[random.below(good.size())] = static_cast<char>(random.below(256));
    survives(changed);
  }
}

}  // namespace
}  // namespace lighten
