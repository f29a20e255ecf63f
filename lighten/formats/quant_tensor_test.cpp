#include "lighten/formats/quant_tensor.h"

#include <cmath>

#include "lighten/base/random.h"
#include "lighten/formats/test_files.h"

namespace lighten {
namespace {

using formats::contains;
using formats::message_of;

size_t at(int64_t index) { return static_cast<size_t>(index); }

QuantTensor random_tensor(int64_t rows, int64_t columns, int bits, int64_t group_size, ZeroKind zero, GroupAxis axis) {
  Random random(static_cast<uint64_t>(rows * 1000 + columns * 10 + bits));
  QuantTensor t;
  t.zero = zero;
  t.axis = axis;
  t.bits = bits;
  t.rows = rows;
  t.columns = columns;
  t.group_size = group_size;
  const int64_t length = axis == GroupAxis::input ? columns : rows, lines = axis == GroupAxis::input ? rows : columns;
  const int64_t groups = lines * (group_size == 0 ? 1 : (length + group_size - 1) / group_size);
  for (int64_t i = 0; i < rows * columns; ++i) t.codes.push_back(static_cast<uint8_t>(random.below(1u << bits)));
  for (int64_t i = 0; i < groups; ++i) {
    t.scales.push_back(float_to_half(static_cast<float>(random.uniform() + 0.01)));
    if (zero == ZeroKind::integer) t.zero_points.push_back(static_cast<uint8_t>(random.below(1u << bits)));
    if (zero == ZeroKind::minimum) t.minimums.push_back(float_to_half(static_cast<float>(random.normal())));
  }
  return t;
}

/// The meaning of the struct, element by element.
float element(const QuantTensor& t, int64_t row, int64_t position) {
  const bool input = t.axis == GroupAxis::input;
  const int64_t length = input ? t.columns : t.rows, size = t.group_size == 0 ? length : t.group_size;
  const int64_t groups = (length + size - 1) / size;
  const size_t group = at(input ? row * groups + position / size : position * groups + row / size);
  const float scale = half_to_float(t.scales[group]);
  const float code = t.codes[at(row * t.columns + position)];
  if (t.zero == ZeroKind::symmetric) return scale * (code - static_cast<float>(std::pow(2, t.bits - 1)));
  if (t.zero == ZeroKind::integer) return scale * (code - t.zero_points[group]);
  const float product = scale * code;
  return product + half_to_float(t.minimums[group]);
}

TEST(QuantTensor, DequantizesEveryScalarLayoutAsItsFormulaSays) {
  for (const ZeroKind zero : {ZeroKind::symmetric, ZeroKind::integer, ZeroKind::minimum})
    for (const GroupAxis axis : {GroupAxis::input, GroupAxis::output})
      for (const int bits : {1, 2, 3, 4, 5, 8})
        for (const int64_t group_size : {0, 8, 5, 64}) {  // 5 leaves a short last group
          const QuantTensor t = random_tensor(7, 24, bits, group_size, zero, axis);
          check(t, "t");
          const std::vector<float> weight = dequantize(t);
          for (int64_t r = 0; r < t.rows; ++r)
            for (int64_t c = 0; c < t.columns; ++c) ASSERT_EQ(weight[at(r * t.columns + c)], element(t, r, c));
        }
}

TEST(QuantTensor, PermutationPutsCodePositionsBackToTheirColumns) {
  for (const GroupAxis axis : {GroupAxis::input, GroupAxis::output}) {
    QuantTensor t = random_tensor(3, 8, 4, 4, ZeroKind::integer, axis);
    const std::vector<float> straight = dequantize(t);
    t.permutation = {3, 1, 7, 0, 2, 6, 5, 4};
    check(t, "t");
    const std::vector<float> permuted = dequantize(t);
    for (size_t r = 0; r < 3; ++r)
      for (size_t j = 0; j < 8; ++j) EXPECT_EQ(permuted[r * 8 + at(t.permutation[j])], straight[r * 8 + j]);
  }
}

TEST(QuantTensor, OutliersAreAddedAtTheColumnsOfTheWeight) {
  QuantTensor t = random_tensor(3, 8, 4, 4, ZeroKind::symmetric, GroupAxis::input);
  t.permutation = {3, 1, 7, 0, 2, 6, 5, 4};
  const std::vector<float> plain = dequantize(t);
  t.outlier_rows = {0, 1, 1, 3};
  t.outlier_columns = {5, 0, 7};
  t.outlier_values = {float_to_half(2.5f), float_to_half(-1.0f), float_to_half(0.125f)};
  check(t, "t");
  const std::vector<float> weight = dequantize(t);
  std::vector<float> expected = plain;
  expected[5] += 2.5f;
  expected[16] -= 1.0f;
  expected[23] += 0.125f;
  EXPECT_EQ(weight, expected);
}

TEST(QuantTensor, PackedBitsCountEverything) {
  // 4 x 64 codes of 3 bits, 4 x 2 groups: 768 + 8 x 16 + 8 x 3.
  QuantTensor t = random_tensor(4, 64, 3, 32, ZeroKind::integer, GroupAxis::input);
  EXPECT_EQ(packed_bits(t), 768u + 128u + 24u);
  t.permutation.resize(64);
  t.outlier_rows = {0, 1, 1, 1, 1};
  t.outlier_columns = {0};
  t.outlier_values = {0};
  EXPECT_EQ(packed_bits(t), 768u + 128u + 24u + 64 * 32 + 5 * 32 + 32);
  // Along outputs: 64 columns x 1 group, each 16 + 16.
  EXPECT_EQ(packed_bits(random_tensor(4, 64, 4, 4, ZeroKind::minimum, GroupAxis::output)), 1024u + 64u * 32u);
}

template <typename Change>
std::string refusal(Change change) {
  QuantTensor t = random_tensor(4, 8, 4, 4, ZeroKind::integer, GroupAxis::input);
  change(t);
  return message_of<FormatError>([&] { check(t, "file: w"); });
}

TEST(QuantTensor, CheckNamesWhatIsWrong) {
  EXPECT_TRUE(contains(refusal([](auto& t) { t.codes.pop_back(); }), "file: w: 32 codes expected, found 31"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.codes[3] = 16; }), "code 3 is 16, but must be below 16"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.scales[1] = 0x7c00; }), "scale 1 is not a finite number"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.scales.clear(); }), "8 scales expected, found 0"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.zero_points[2] = 99; }), "zero point 2 is 99"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.zero = ZeroKind::minimum; }), "zero points expected"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.bits = 9; }), "9 bits are not supported"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.rows = -1; }), "-1 x 8"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.group_size = -4; }), "negative"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.permutation = {0, 1, 2, 3, 4, 5, 6, 6}; }), "each of the 8 columns once"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.permutation = {0, 1, 2}; }), "each of the 8 columns once"));
  EXPECT_TRUE(contains(refusal([](auto& t) {
                         t.outlier_rows = {0, 0, 0, 0, 1};
                         t.outlier_columns = {8};
                         t.outlier_values = {0};
                       }),
                       "outliers"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.input_scales = {1, 2}; }), "8 input scales expected"));
  EXPECT_TRUE(contains(refusal([](auto& t) { t.pre_left = {1, 0, 0, 1}; }), "transform"));
}

TEST(QuantTensor, KindsWithoutAnImplementationAreRefused) {
  QuantTensor t = random_tensor(4, 8, 4, 4, ZeroKind::integer, GroupAxis::input);
  t.kind = CodeKind::vectors;
  EXPECT_TRUE(contains(message_of<ModelError>([&] { dequantize(t); }), "vectors"));
}

TEST(QuantTensor, PlanesAreSummedWithTheirScales) {
  QuantTensor t;
  t.kind = CodeKind::planes;
  t.zero = ZeroKind::minimum;
  t.bits = 1;
  t.rows = 1;
  t.columns = 70;
  t.group_size = 35;
  t.books = 2;
  t.planes = {{0b101, 1}, {0b110, 0}};  // columns 0, 2, 64; columns 1, 2
  for (const float scale : {2.0f, 3.0f, 0.5f, -1.0f}) t.plane_scales.push_back(float_to_half(scale));
  t.minimums = {float_to_half(-1), float_to_half(4)};
  EXPECT_NO_THROW(check(t, "test"));
  const std::vector<float> w = dequantize(t);
  EXPECT_EQ(std::vector<float>(w.begin(), w.begin() + 4), (std::vector<float>{1, -0.5f, 1.5f, -1}));
  EXPECT_EQ(w[35], 4);
  EXPECT_EQ(w[64], 7);
  EXPECT_EQ(packed_bits(t), 2u * 70 + 16 * 6);
  t.plane_scales.pop_back();
  EXPECT_TRUE(contains(message_of<FormatError>([&] { check(t, "test"); }), "plane scales"));
}

}  // namespace
}  // namespace lighten
