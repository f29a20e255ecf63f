#include <gtest/gtest.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/runtime/aligned_bytes.h"
#include "lighten/runtime/light_format.h"
#include "lighten/runtime/light_model.h"
#include "lighten/runtime/random_codes_test.h"

namespace lighten {
namespace {

using test::random_codes;

TEST(LinearSpec, KindsWithoutAKernelAreRefused) {
  Random random(1);
  const QuantTensor plain = random_codes(8, 64, 4, 32, ZeroKind::integer, random);
  EXPECT_NO_THROW(linear_spec(plain));
  QuantTensor changed = plain;
  changed.kind = CodeKind::levels;
  changed.zero = ZeroKind::symmetric;
  changed.codebook = {0, 0.5f, 1};
  EXPECT_THROW(linear_spec(changed), ModelError) << "levels that are no whole numbers";
  changed = plain;
  changed.kind = CodeKind::vectors;
  EXPECT_THROW(linear_spec(changed), ModelError);
  changed = plain;
  changed.axis = GroupAxis::output;
  EXPECT_THROW(linear_spec(changed), ModelError);
  changed = plain;
  changed.bits = 5;
  EXPECT_THROW(linear_spec(changed), ModelError);
  changed = plain;
  changed.permutation.resize(64);
  EXPECT_THROW(linear_spec(changed), ModelError);
  changed = plain;
  changed.group_size = 48;
  EXPECT_THROW(linear_spec(changed), ModelError);
}

TEST(LinearSpec, LevelsAndTritsPackAndMeanWhatDequantizeSays) {
  Random random(2);
  ThreadPool pool(1);
  const std::vector<std::pair<int, std::vector<float>>> kinds = {
      {4, {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}},
      {3, {-3, -1, 0, 2, 100}},
      {2, {-1, 0, 1}}};
  for (const auto& [bits, levels] : kinds) {
    QuantTensor tensor = random_codes(20, 320, bits, 64, ZeroKind::symmetric, random);
    tensor.kind = CodeKind::levels;
    tensor.codebook = levels;
    for (uint8_t& code : tensor.codes) code = static_cast<uint8_t>(code % levels.size());
    EXPECT_NO_THROW(check(tensor, "test"));
    const LinearSpec spec = linear_spec(tensor);
    EXPECT_EQ(spec.codes, bits == 2 ? PackedCodes::trits : PackedCodes::levels);
    EXPECT_EQ(runtime::spec_to_json(runtime::spec_from_json(runtime::spec_to_json(spec), "test")), runtime::spec_to_json(spec));
    runtime::AlignedBytes packed(packed_bytes(spec));
    pack(tensor, packed.data());
    const QuantTensor back = unpack({spec, packed.data()});
    EXPECT_EQ(back.codes, tensor.codes);
    EXPECT_EQ(back.kind, CodeKind::levels);
    const std::vector<float> weight = dequantize(tensor);
    EXPECT_EQ(dequantize(back), weight);
    std::vector<float> x(320), y(20), row(320);
    for (float& v : x) v = static_cast<float>(random.normal());
    linear(spec, packed.data(), x.data(), 320, 1, y.data(), 20, nullptr, Arithmetic::exact, pool);
    for (size_t r = 0; r < 20; ++r) {
      double sum = 0;
      for (size_t c = 0; c < 320; ++c) sum += static_cast<double>(weight[r * 320 + c]) * static_cast<double>(x[c]);
      EXPECT_NEAR(y[r], sum, 1e-5 * (1 + std::fabs(sum)));
      unpack_row(spec, packed.data(), static_cast<int64_t>(r), row.data());
      EXPECT_TRUE(std::equal(row.begin(), row.end(), weight.begin() + static_cast<int64_t>(r) * 320));
    }
  }
}

TEST(LinearSpec, PlanesPackAndMeanWhatDequantizeSays) {
  Random random(3);
  ThreadPool pool(1);
  for (const int books : {2, 3}) {
    for (const ZeroKind zero : {ZeroKind::symmetric, ZeroKind::minimum}) {
      QuantTensor tensor;
      tensor.kind = CodeKind::planes;
      tensor.zero = zero;
      tensor.bits = 1;
      tensor.rows = 20;
      tensor.columns = 320;
      tensor.group_size = 64;
      tensor.books = books;
      tensor.planes.assign(static_cast<size_t>(books), std::vector<uint64_t>(20 * 5));
      for (auto& plane : tensor.planes)
        for (uint64_t& word : plane) word = random.next();
      for (int i = 0; i < books * 20 * 5; ++i)
        tensor.plane_scales.push_back(float_to_half(static_cast<float>(random.normal())));
      if (zero == ZeroKind::minimum)
        for (int i = 0; i < 20 * 5; ++i) tensor.minimums.push_back(float_to_half(static_cast<float>(random.normal())));
      EXPECT_NO_THROW(check(tensor, "test"));
      const LinearSpec spec = linear_spec(tensor);
      EXPECT_EQ(runtime::spec_to_json(runtime::spec_from_json(runtime::spec_to_json(spec), "test")),
                runtime::spec_to_json(spec));
      runtime::AlignedBytes packed(packed_bytes(spec));
      pack(tensor, packed.data());
      const QuantTensor back = unpack({spec, packed.data()});
      EXPECT_EQ(back.planes, tensor.planes);
      EXPECT_EQ(back.plane_scales, tensor.plane_scales);
      EXPECT_EQ(back.minimums, tensor.minimums);
      const std::vector<float> weight = dequantize(tensor);
      std::vector<float> x(320), y(20), row(320);
      for (float& v : x) v = static_cast<float>(random.normal());
      linear(spec, packed.data(), x.data(), 320, 1, y.data(), 20, nullptr, Arithmetic::exact, pool);
      for (size_t r = 0; r < 20; ++r) {
        double sum = 0, size = 0;
        for (size_t c = 0; c < 320; ++c) {
          sum += static_cast<double>(weight[r * 320 + c]) * static_cast<double>(x[c]);
          size += std::fabs(static_cast<double>(weight[r * 320 + c]) * static_cast<double>(x[c]));
        }
        EXPECT_NEAR(y[r], sum, 1e-5 * size);
        unpack_row(spec, packed.data(), static_cast<int64_t>(r), row.data());
        for (size_t c = 0; c < 320; ++c) EXPECT_NEAR(row[c], weight[r * 320 + c], 1e-5);
      }
    }
  }
}

}  // namespace
}  // namespace lighten
