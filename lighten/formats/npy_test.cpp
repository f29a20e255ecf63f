#include "lighten/formats/npy.h"

#include <cmath>
#include <limits>

#include "lighten/base/random.h"
#include "lighten/formats/test_files.h"

namespace lighten {
namespace {

using formats::contains;
using formats::message_of;
using formats::put;
using formats::TemporaryFolder;

/// Bytes of a version 1 file, written here by hand.
std::string npy(const std::string& header, const std::string& data, char version = 1) {
  std::string text = std::string("\x93NUMPY", 6) + version + '\0';
  const auto length = static_cast<uint32_t>(header.size());
  text.append(reinterpret_cast<const char*>(&length), version == 1 ? 2 : 4);
  return text + header + data;
}

std::string dictionary(const std::string& descr, const std::string& shape, const std::string& order = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }";
}

std::string refusal(const std::string& contents) {
  const TemporaryFolder folder;
  const fs::path path = put(folder / "broken.npy", contents);
  const std::string message = message_of<FormatError>([&] { NpyFile file(path); });
  EXPECT_TRUE(contains(message, path.string()));
  return message;
}

const std::string kEight("\0\0\x80\x3f\0\0\0\x40", 8);  // 1 and 2 as float32

TEST(Npy, ReadsAFileWrittenByHand) {
  const TemporaryFolder folder;
  for (const char version : {1, 2, 3}) {
    const NpyFile file(put(folder / "a.npy", npy(dictionary("<f4", "(2, 1)") + std::string(20, ' ') + "\n", kEight, version)));
    EXPECT_EQ(file.dtype(), DType::f32);
    EXPECT_EQ(file.rows(), 2);
    EXPECT_EQ(file.columns(), 1);
    EXPECT_EQ(file.to_float(), (std::vector<float>{1, 2}));
  }
  // numpy writes a scalar as (), and a column-major vector or column is the same bytes as a row-major one.
  EXPECT_TRUE(NpyFile(put(folder / "s.npy", npy(dictionary("<f8", "()"), kEight))).shape().empty());
  EXPECT_EQ(NpyFile(put(folder / "v.npy", npy(dictionary("<f4", "(2,)", "True"), kEight))).to_float()[1], 2.0f);
}

TEST(Npy, RefusesHostileHeaders) {
  EXPECT_TRUE(contains(refusal(""), "no .npy file"));
  EXPECT_TRUE(contains(refusal("PK\x03\x04 an archive of numpy's"), "no .npy file"));
  EXPECT_TRUE(contains(refusal(npy("", "", 4)), "version 4"));
  EXPECT_TRUE(contains(refusal(npy(dictionary("<f4", "(2,)"), kEight).substr(0, 30)), "truncated"));
  EXPECT_TRUE(contains(refusal(npy(dictionary("<f4", "(3,)"), kEight)), "needs 12 bytes of data, but 8 are there"));
  EXPECT_TRUE(contains(refusal(npy(dictionary("<f4", "(1,)"), kEight)), "the file is damaged"));
  EXPECT_TRUE(contains(refusal(npy(dictionary("<f4", "(4611686018427387904, 4)"), kEight)), "more than any file"));
  EXPECT_TRUE(contains(refusal(npy(dictionary("<f4", "(9223372036854775808,)"), kEight)), "below 2^63"));
  EXPECT_TRUE(contains(refusal(npy(dictionary("<f4", "(-2, -1)"), kEight)), "not negative"));
  EXPECT_TRUE(contains(refusal(npy(dictionary("<f4", "(2)"), kEight)), "(n,)"));
  EXPECT_TRUE(contains(refusal(npy(dictionary("<f4", "(1, 2", "False"), kEight)), "size in shape"));
  EXPECT_TRUE(contains(refusal(npy(dictionary("<f4", "(1, 2)", "True") + "x", kEight)), "something follows"));
  EXPECT_TRUE(contains(refusal(npy(dictionary(">f4", "(2,)"), kEight)), "big-endian"));
  EXPECT_TRUE(contains(refusal(npy(dictionary("|O", "(1,)"), kEight)), "type \"|O\" is not supported"));
  EXPECT_TRUE(contains(refusal(npy(dictionary("<f4", "(2, 2)", "True"), kEight + kEight)), "ascontiguousarray"));
  EXPECT_TRUE(
      contains(refusal(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", kEight)), "named fields"));
  EXPECT_TRUE(contains(refusal(npy("{'descr': '<f4', 'shape': (2,)}", kEight)), "must hold descr"));
  EXPECT_TRUE(contains(refusal(npy("{'descr': '<f4', 'descr': '<f4', 'shape': (2,)}", kEight)), "stands twice"));
  EXPECT_TRUE(contains(refusal(npy("{'descr: '", kEight)), "expected \":\""));
  EXPECT_TRUE(contains(refusal(npy("{'code': 'x'}", kEight)), "unknown field \"code\""));
  EXPECT_TRUE(contains(refusal(npy("[]", kEight)), "expected \"{\""));
}

TEST(Npy, SurvivesEverySingleByteDamage) {
  const TemporaryFolder folder;
  const std::string good = npy(dictionary("<f4", "(2, 1)"), kEight);
  Random random(1);
  int refused = 0;
  for (size_t i = 0; i < good.size(); ++i)
    for (int trial = 0; trial < 4; ++trial) {
      std::string bad = good;
      bad[i] = static_cast<char>(random.below(256));
      try {
        const NpyFile file(put(folder / "x.npy", bad));
        EXPECT_EQ(file.tensor().bytes.size(), static_cast<size_t>(file.tensor().elements()) * dtype_size(file.dtype()));
      } catch (const FormatError&) {
        ++refused;
      }
    }
  EXPECT_GT(refused, 200);  // most bytes of this header matter
}

TEST(Npy, WhatIsWrittenIsReadBack) {
  const TemporaryFolder folder;
  write_npy<int64_t>(folder / "ids.npy", {2, 3}, {1, -2, 3, 4, 5, INT64_MAX});
  const NpyFile ids(folder / "ids.npy");
  EXPECT_EQ(ids.shape(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(ids.values<int64_t>()[1], -2);
  EXPECT_EQ(ids.values<int64_t>()[5], INT64_MAX);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(ids.tensor().bytes.data()) % 64, 0u);  // ready for kernels
  EXPECT_TRUE(contains(message_of<FormatError>([&] { (void)ids.values<float>(); }), "type F32 are needed, but these are I64"));

  write_npy<uint8_t>(folder / "none.npy", {0, 32}, {});
  EXPECT_EQ(NpyFile(folder / "none.npy").rows(), 0);
  write_npy<float>(folder / "vector.npy", {2}, {1.5f, 2.5f});
  const NpyFile vector(folder / "vector.npy");
  EXPECT_EQ(vector.to_float(), (std::vector<float>{1.5f, 2.5f}));
  EXPECT_TRUE(contains(message_of<FormatError>([&] { (void)vector.columns(); }), "has shape [2]"));

  NpyWriter writer(folder / "pieces.npy", DType::u8, {2, 2});
  writer.write(std::as_bytes(std::span("ab", 2)));
  EXPECT_TRUE(contains(message_of<FormatError>([&] { writer.commit(); }), "were written"));
  writer.write(std::as_bytes(std::span("cd", 2)));
  writer.commit();
  EXPECT_EQ(NpyFile(folder / "pieces.npy").values<uint8_t>()[3], 'd');
}

TEST(Npy, NamesTheRowOfANaN) {
  const TemporaryFolder folder;
  write_npy<float>(folder / "v.npy", {2, 2}, {1, 2, 3, std::numeric_limits<float>::quiet_NaN()});
  const NpyFile file(folder / "v.npy");
  EXPECT_TRUE(contains(message_of<FormatError>([&] { (void)file.to_float(); }), "row 1, column 1 is nan"));
  EXPECT_TRUE(std::isnan(file.to_float(false)[3]));
  EXPECT_EQ(file.rows_to_float(0, 1), (std::vector<float>{1, 2}));
  EXPECT_TRUE(contains(message_of<FormatError>([&] { (void)file.rows_to_float(1, 1); }), "row 1, column 1 is nan"));
}

}  // namespace
}  // namespace lighten
