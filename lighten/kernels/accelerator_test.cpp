// The graphics card's kernels against linear() in float32. Without a card: that the message says what to do.
#include "lighten/kernels/accelerator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/kernels/cpu.h"
#include "lighten/kernels/random_weight_test.h"

namespace lighten {
namespace {

std::vector<float> random_floats(size_t n, Random& random) {
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>((random.uniform() * 2 - 1) * (random.below(50) ? 1.0 : 20.0));
  return values;
}

/// sum |x w| of an output: what rounding errors are measured by.
std::vector<double> magnitudes(const test::RandomWeight& w, const std::vector<float>& x, int64_t tokens) {
  std::vector<double> sums(static_cast<size_t>(tokens * w.spec.rows));
  std::vector<float> row(static_cast<size_t>(w.spec.columns));
  for (int64_t r = 0; r < w.spec.rows; ++r) {
    unpack_row(w.spec, const_cast<test::RandomWeight&>(w).packed.data(), r, row.data());
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t c = 0; c < w.spec.columns; ++c)
        sums[static_cast<size_t>(t * w.spec.rows + r)] +=
            std::fabs(static_cast<double>(x[static_cast<size_t>(t * w.spec.columns + c)]) * row[static_cast<size_t>(c)]);
  }
  return sums;
}

TEST(Accelerator, SaysWhatIsMissing) {
  if (has_accelerator()) GTEST_SKIP() << "there is a card: " << accelerator_name();
  ThreadPool pool(1);
  const LinearSpec spec{.bits = 4, .rows = 16, .columns = 64, .group_size = 32};
  test::Blob packed(packed_bytes(spec));
  try {
    to_device(spec, packed.data(), pool);
    FAIL() << "no error without a card";
  } catch (const OptionError& error) {
    EXPECT_NE(std::string(error.what()).find("--device at cpu"), std::string::npos) << error.what();
  }
}

class OnCard : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_accelerator()) GTEST_SKIP() << "no graphics card, or a build without CUDA";
  }
  ThreadPool pool_;
  Random random_{11};
};

/// Binary16 rounds an activation by at most 2^-11 of itself; the matrix kernel rounds weights by as much once more (and the
/// power of two keeps all but tiny ones normal). Sums are float.
TEST_F(OnCard, AgreesWithTheScalarKernels) {
  const int64_t tokens_of[] = {1, 1, 1, 2, 5, 8, 9, 16, 17, 32, 33, 64, 65, 100, 128, 131, 200};
  const Isa before = current_isa();
  set_isa(Isa::scalar);
  double worst = 0;
  for (int i = 0; i < 600; ++i) {
    const LinearSpec spec = test::random_device_spec(random_, i % 10 == 0 ? 3000 : 500);
    test::RandomWeight w(spec, random_);
    const int64_t tokens = tokens_of[random_.below(std::size(tokens_of))];
    const std::vector<float> x = random_floats(static_cast<size_t>(tokens * spec.columns), random_);
    std::vector<float> expected(static_cast<size_t>(tokens * spec.rows)), found(expected.size());
    linear(spec, w.packed.data(), x.data(), spec.columns, tokens, expected.data(), spec.rows, nullptr, Arithmetic::exact,
           pool_);
    const std::shared_ptr<const DeviceWeight> there = to_device(spec, w.packed.data(), pool_);
    const LinearTask task{
        .spec = spec, .packed = w.packed.data(), .y = found.data(), .y_stride = spec.rows, .device = there.get()};
    linear(std::span(&task, 1), {x.data(), spec.columns}, tokens, Arithmetic::adaptive, pool_);
    const std::vector<double> sizes = magnitudes(w, x, tokens);
    for (size_t j = 0; j < found.size(); ++j) {
      const double error = std::fabs(static_cast<double>(found[j]) - expected[j]) / (sizes[j] + 1e-6);
      worst = std::max(worst, error);
      ASSERT_LT(error, 1.1e-3) << spec.bits << " bits, kind " << static_cast<int>(spec.zero) << ", group " << spec.group_size
                               << ", " << spec.rows << " x " << spec.columns << ", " << tokens << " tokens, output " << j;
    }
  }
  set_isa(before);
  RecordProperty("worst_relative_error", std::to_string(worst));
}

TEST_F(OnCard, SeveralTasksBiasesAndSumsInOneCall) {
  for (const int64_t tokens : {1, 3, 40}) {
    const LinearSpec a{.bits = 4, .rows = 50, .columns = 256, .group_size = 64};
    const LinearSpec b{.bits = 4, .rows = 17, .columns = 256, .group_size = 64};
    const LinearSpec c{.bits = 3, .zero = PackedZero::minimum, .rows = 33, .columns = 256, .group_size = 32};
    std::vector<test::RandomWeight> weights;
    for (const LinearSpec& spec : {a, b, c}) weights.emplace_back(spec, random_);
    const std::vector<float> x = random_floats(static_cast<size_t>(tokens * 260), random_), bias = random_floats(50, random_);
    const std::vector<float> norm = random_floats(256, random_);
    const auto run = [&](bool there, std::vector<std::vector<float>>& y) {
      std::vector<LinearTask> tasks;
      std::vector<std::shared_ptr<const DeviceWeight>> copies;
      for (size_t i = 0; i < 3; ++i) {
        const LinearSpec& spec = weights[i].spec;
        y.emplace_back(static_cast<size_t>(tokens * (spec.rows + 3)), 2.0f);
        copies.push_back(there ? to_device(spec, weights[i].packed.data(), pool_) : nullptr);
        tasks.push_back({spec, weights[i].packed.data(), y[i].data(), spec.rows + 3, i == 0 ? bias.data() : nullptr, i == 1,
                         copies.back().get()});
      }
      linear(tasks, {x.data(), 260, norm.data(), 1e-5f}, tokens, there ? Arithmetic::adaptive : Arithmetic::exact, pool_);
    };
    std::vector<std::vector<float>> expected, found;
    run(false, expected);
    run(true, found);
    for (size_t i = 0; i < 3; ++i)
      for (size_t j = 0; j < found[i].size(); ++j)
        ASSERT_NEAR(found[i][j], expected[i][j], 0.05 + 2e-3 * std::fabs(expected[i][j])) << "task " << i << ", output " << j;
  }
}

TEST_F(OnCard, LargeSmallAndEmptyActivations) {
  const LinearSpec spec{.bits = 4, .rows = 32, .columns = 128, .group_size = 64};
  test::RandomWeight w(spec, random_);
  const std::shared_ptr<const DeviceWeight> there = to_device(spec, w.packed.data(), pool_);
  for (const float size : {1e-20f, 1e-5f, 1.0f, 3e5f, 1e12f, 0.0f}) {
    for (const int64_t tokens : {1, 4, 70}) {
      std::vector<float> x = random_floats(static_cast<size_t>(tokens * 128), random_);
      for (float& value : x) value *= size;
      std::vector<float> expected(static_cast<size_t>(tokens * 32)), found(expected.size(), 1.0f);
      linear(spec, w.packed.data(), x.data(), 128, tokens, expected.data(), 32, nullptr, Arithmetic::exact, pool_);
      const LinearTask task{.spec = spec, .packed = w.packed.data(), .y = found.data(), .y_stride = 32, .device = there.get()};
      linear(std::span(&task, 1), {x.data(), 128}, tokens, Arithmetic::adaptive, pool_);
      const std::vector<double> sizes = magnitudes(w, x, tokens);
      for (size_t j = 0; j < found.size(); ++j)
        ASSERT_NEAR(found[j], expected[j], 1.1e-3 * sizes[j]) << "activations of " << size << ", " << tokens << " tokens";
    }
  }
}

TEST_F(OnCard, OtherKindsStayOnTheProcessor) {
  const LinearSpec spec{.bits = 16, .rows = 16, .columns = 64};
  const std::vector<float> values(16 * 64, 0.5f);
  test::Blob packed(packed_bytes(spec));
  pack_float(spec, values.data(), packed.data());
  EXPECT_EQ(to_device(spec, packed.data(), pool_), nullptr);
}

}  // namespace
}  // namespace lighten
