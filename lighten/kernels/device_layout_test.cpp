#include "lighten/kernels/device_layout.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/kernels/random_weight_test.h"

namespace lighten {
namespace {

using kernels::device_codes;
using kernels::device_place;
using kernels::DeviceCodes;
using kernels::DevicePlace;

TEST(DeviceLayout, EveryCodeHasBitsOfItsOwn) {
  for (const int bits : {2, 3, 4, 8}) {
    std::set<std::tuple<int64_t, int>> taken;
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 64; ++column) {
        const DevicePlace place = device_place(bits, 0, row, column);
        EXPECT_GE(place.word, 0);
        EXPECT_LT(place.word, 32 * bits);
        if (place.spread) {
          for (int b = 0; b < bits; ++b) {
            const int64_t lane = place.word / 2, word = b < 2 ? lane * 2 + b : 64 + lane;
            EXPECT_TRUE(taken.emplace(word, place.bit).second) << bits << " bits, row " << row << ", column " << column;
          }
          continue;
        }
        for (int b = 0; b < bits; ++b)
          EXPECT_TRUE(taken.emplace(place.word, place.bit + b).second) << bits << " bits, row " << row << ", column " << column;
      }
    }
    EXPECT_EQ(taken.size(), 1024u * static_cast<unsigned>(bits)) << "every bit is used";
  }
}

TEST(DeviceLayout, HoldsTheSameNumbers) {
  Random random(3);
  ThreadPool pool(2);
  for (int i = 0; i < 300; ++i) {
    const LinearSpec spec = test::random_device_spec(random, 300);
    test::RandomWeight w(spec, random);
    const DeviceCodes codes = device_codes(spec, w.packed.data(), pool);
    std::vector<float> expected(static_cast<size_t>(spec.columns));
    for (int64_t row = 0; row < spec.rows; ++row) {
      unpack_row(spec, w.packed.data(), row, expected.data());
      const std::vector<float> found = device_row(codes, row);
      for (int64_t c = 0; c < spec.columns; ++c)
        ASSERT_FLOAT_EQ(found[static_cast<size_t>(c)], expected[static_cast<size_t>(c)])
            << spec.bits << " bits, kind " << static_cast<int>(spec.zero) << ", group " << spec.group_size << ", row " << row
            << ", column " << c;
    }
  }
}

TEST(DeviceLayout, RefusesWhatHasNoKernel) {
  ThreadPool pool(1);
  EXPECT_FALSE(kernels::has_device_layout({.bits = 16, .rows = 16, .columns = 64}));
  EXPECT_FALSE(kernels::has_device_layout({.bits = 1, .rows = 16, .columns = 64}));
  EXPECT_FALSE(kernels::has_device_layout(
      {.bits = 4, .zero = PackedZero::symmetric, .rows = 16, .columns = 64, .group_size = 32, .codes = PackedCodes::levels}));
  EXPECT_THROW(device_codes({.bits = 16, .rows = 16, .columns = 64}, nullptr, pool), ModelError);
}

}  // namespace
}  // namespace lighten
