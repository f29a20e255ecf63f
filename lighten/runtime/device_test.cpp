// A decoder whose matrices are multiplied on a graphics card, against the one that stays on the processor.
#include <gtest/gtest.h>

#include <cmath>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/kernels/accelerator.h"
#include "lighten/runtime/model.h"

namespace lighten {
namespace {

TEST(DecoderOnCard, SaysWhatIsMissing) {
  if (has_accelerator()) GTEST_SKIP() << "there is a card: " << accelerator_name();
  EXPECT_THROW(RuntimeModel::random("smollm2-135m", 4, 64, {.threads = 2, .device = Device::cuda}), OptionError);
  EXPECT_THROW(device("gpu"), OptionError);
  EXPECT_EQ(device("cuda"), Device::cuda);
}

TEST(DecoderOnCard, LogitsAreThoseOfTheProcessor) {
  if (!has_accelerator()) GTEST_SKIP() << "no graphics card, or a build without CUDA";
  EXPECT_THROW(RuntimeModel::random("smollm2-135m", 4, 64, {.exact = true, .device = Device::cuda}), OptionError);
  for (const int bits : {2, 3, 4, 8}) {
    const auto here = RuntimeModel::random("smollm2-135m", bits, 64, {.activations = Activations::bits16});
    const auto there = RuntimeModel::random("smollm2-135m", bits, 64, {.device = Device::cuda});
    const auto vocab = static_cast<size_t>(here->config().vocab_size);
    Random random(5);
    std::vector<int32_t> ids;
    for (int i = 0; i < 700; ++i) ids.push_back(static_cast<int32_t>(random.below(vocab)));
    const auto cache_here = here->new_cache(), cache_there = there->new_cache();
    const std::span<const int32_t> all(ids);
    // A prompt longer than a chunk, several tokens, and single ones.
    for (const auto& [first, count] : {std::pair{0, 690}, {690, 7}, {697, 1}, {698, 1}, {699, 1}}) {
      std::vector<float> want(vocab), got(vocab);
      const auto part = all.subspan(static_cast<size_t>(first), static_cast<size_t>(count));
      here->forward(*cache_here, part, want.data());
      there->forward(*cache_there, part, got.data());
      double difference = 0, norm = 0;
      for (size_t i = 0; i < vocab; ++i) {
        difference += std::pow(static_cast<double>(got[i]) - want[i], 2);
        norm += std::pow(static_cast<double>(want[i]), 2);
      }
      const double relative = std::sqrt(difference / norm);
      EXPECT_LT(relative, 3e-3) << bits << " bits, " << count << " tokens from " << first;
    }
  }
}

}  // namespace
}  // namespace lighten
