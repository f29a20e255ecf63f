#include "lighten/kernels/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/kernels/isa_fixture.h"

namespace lighten {
namespace {

std::vector<float> random_floats(size_t n, double size, Random& random) {
  std::vector<float> v(n);
  for (auto& x : v) x = static_cast<float>((random.uniform() * 2 - 1) * size);
  return v;
}

/// Keys and values [positions, kv_heads, head_dim] as the kernels read them: pages at unrelated addresses.
struct Cache {
  std::vector<float> k, v;  ///< what the pages mean
  std::vector<std::vector<std::byte>> memory;
  std::vector<const std::byte*> pages;
  size_t values;
  KvFormat format;
  KvView view() const { return {.pages = pages.data(), .keys = 0, .values = values, .format = format}; }
};

/// The head that starts at element `at` of one side of a page, read by the layout's description.
std::vector<float> read_head(KvFormat format, const AttentionShape& s, const std::byte* page, int64_t slot, int64_t head) {
  const int64_t vector = head * kPagePositions + slot;
  std::vector<float> values;
  for (int64_t i = vector * s.head_dim; i < (vector + 1) * s.head_dim; ++i) {
    if (format == KvFormat::f32) {
      values.push_back(reinterpret_cast<const float*>(page)[i]);
    } else if (format == KvFormat::f16) {
      values.push_back(half_to_float(reinterpret_cast<const Half*>(page)[i]));
    } else {
      const auto* scales = reinterpret_cast<const float*>(page + kPagePositions * s.kv_heads * s.head_dim);
      values.push_back(static_cast<float>(reinterpret_cast<const int8_t*>(page)[i]) * scales[vector]);
    }
  }
  return values;
}

Cache random_cache(int64_t positions, const AttentionShape& s, KvFormat format, Random& random) {
  const auto n = static_cast<size_t>(positions * s.kv_heads * s.head_dim);
  Cache c{
      random_floats(n, 2, random), random_floats(n, 3, random), {}, {}, kv_page_bytes(format, s.kv_heads, s.head_dim), format};
  const int64_t width = s.kv_heads * s.head_dim;
  for (int64_t p = 0; p < positions; ++p) {
    const int64_t slot = p % kPagePositions;
    if (slot == 0) c.memory.emplace_back(2 * c.values + 64, std::byte{0xff});  // what was never stored is NaN
    std::byte* page = c.memory.back().data();
    for (auto& [side, values] : {std::pair(page, &c.k), std::pair(page + c.values, &c.v)}) {
      float* heads = values->data() + p * width;
      kv_store(format, s.kv_heads, s.head_dim, heads, slot, side);
      for (int64_t h = 0; h < s.kv_heads; ++h) {
        const std::vector<float> stored = read_head(format, s, side, slot, h);
        std::copy(stored.begin(), stored.end(), heads + h * s.head_dim);
      }
    }
  }
  for (const auto& page : c.memory) c.pages.push_back(page.data());
  return c;
}

KvFormat random_format(Random& random) { return static_cast<KvFormat>(random.below(3)); }

void attend(const AttentionShape& s, const std::vector<float>& q, const Cache& cache, int64_t first, int64_t tokens,
            std::vector<float>& out, ThreadPool& pool) {
  const AttentionTask task{q.data(), cache.view(), first, tokens, out.data()};
  attention(s, std::span(&task, 1), pool);
}

/// The definition in double: all scores, softmax, sum.
std::vector<double> naive(const AttentionShape& s, const std::vector<float>& q, const Cache& cache, int64_t first,
                          int64_t tokens) {
  std::vector<double> out;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < s.heads; ++h) {
      const int64_t position = first + t, kv = h / (s.heads / s.kv_heads);
      std::vector<double> weight(static_cast<size_t>(position + 1), 0.0);
      double sum = 0;
      for (int64_t p = 0; p <= position; ++p) {
        if (s.window > 0 && p <= position - s.window) continue;
        double dot = 0;
        for (int64_t d = 0; d < s.head_dim; ++d) {
          dot += static_cast<double>(q[static_cast<size_t>((t * s.heads + h) * s.head_dim + d)]) *
                 static_cast<double>(cache.k[static_cast<size_t>((p * s.kv_heads + kv) * s.head_dim + d)]);
        }
        dot *= static_cast<double>(s.scale);
        if (s.softcap > 0) dot = static_cast<double>(s.softcap) * std::tanh(dot / static_cast<double>(s.softcap));
        weight[static_cast<size_t>(p)] = std::exp(dot);
        sum += weight[static_cast<size_t>(p)];
      }
      for (int64_t d = 0; d < s.head_dim; ++d) {
        double value = 0;
        for (int64_t p = 0; p <= position; ++p) {
          value += weight[static_cast<size_t>(p)] *
                   static_cast<double>(cache.v[static_cast<size_t>((p * s.kv_heads + kv) * s.head_dim + d)]);
        }
        out.push_back(value / sum);
      }
    }
  }
  return out;
}

class Attention : public ForEachIsa {};
class Operations : public ForEachIsa {};
INSTANTIATE_TEST_SUITE_P(Cpu, Attention, testing::ValuesIn(available_isas()), name_of_isa);
INSTANTIATE_TEST_SUITE_P(Cpu, Operations, testing::ValuesIn(available_isas()), name_of_isa);

TEST_P(Attention, MatchesSoftmaxInDoubleOverRandomShapes) {
  Random random(1);
  ThreadPool pool(2);
  const int64_t dims[] = {8, 24, 40, 64, 64, 128, 72, 256, 5};
  const int64_t token_counts[] = {1, 1, 2, 4, 5, 17, 40, 70};
  for (int i = 0; i < 250; ++i) {
    AttentionShape s{};
    s.kv_heads = 1 + static_cast<int64_t>(random.below(3));
    s.heads = s.kv_heads * (1 + static_cast<int64_t>(random.below(4)));
    if (i % 50 == 49) s.heads = s.kv_heads * 66;  // more heads on one key than a part holds
    s.head_dim = dims[random.below(9)];
    s.scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    s.softcap = random.below(3) == 0 ? 3.0f : 0.0f;
    s.window = random.below(3) == 0 ? 1 + static_cast<int64_t>(random.below(90)) : 0;
    const int64_t tokens = s.heads > 60 ? 3 : token_counts[random.below(8)];
    const int64_t first = random.below(6) == 0 && tokens <= 4 ? 600 : static_cast<int64_t>(random.below(150));
    const Cache cache = random_cache(first + tokens, s, random_format(random), random);
    const std::vector<float> q = random_floats(static_cast<size_t>(tokens * s.heads * s.head_dim), 2, random);
    std::vector<float> out(q.size(), 99.0f);
    attend(s, q, cache, first, tokens, out, pool);
    const std::vector<double> expected = naive(s, q, cache, first, tokens);
    for (size_t j = 0; j < out.size(); ++j) {
      // Values lie in [-3, 3]; a float softmax over at most 604 keys keeps them to a few units of 2^-24 times the scores' size.
      ASSERT_NEAR(out[j], expected[j], 1e-5)
          << isa_name(current_isa()) << " heads " << s.heads << "/" << s.kv_heads << " dim " << s.head_dim << " tokens "
          << tokens << " first " << first << " window " << s.window << " at " << j;
    }
  }
}

TEST_P(Attention, DoesNotOverflowOnLargeScoresNorDependOnThreads) {
  Random random(2);
  ThreadPool one(1), three(3);
  const AttentionShape s{.heads = 6, .kv_heads = 2, .head_dim = 64, .scale = 40.0f};
  const Cache cache = random_cache(700, s, KvFormat::f16, random);
  for (const int64_t tokens : {1, 64}) {
    const std::vector<float> q = random_floats(static_cast<size_t>(tokens * 6 * 64), 2, random);
    std::vector<float> out1(q.size()), out3(q.size());
    attend(s, q, cache, 700 - tokens, tokens, out1, one);
    attend(s, q, cache, 700 - tokens, tokens, out3, three);
    ASSERT_EQ(std::memcmp(out1.data(), out3.data(), out1.size() * sizeof(float)), 0);
    for (const float x : out1) ASSERT_LE(std::fabs(x), 3.001f);  // a mean of values in [-3, 3]; NaN fails too
  }
}

TEST_P(Attention, ReadsNoKeyAfterTheLastQuery) {
  Random random(3);
  ThreadPool pool(1);
  const AttentionShape s{.heads = 2, .kv_heads = 1, .head_dim = 16, .scale = 0.25f};
  const Cache cache = random_cache(31, s, KvFormat::f32, random);  // the page's other slots are NaN
  const std::vector<float> q = random_floats(20 * 2 * 16, 2, random);
  std::vector<float> out(q.size());
  attend(s, q, cache, 11, 20, out, pool);
  for (const float x : out) ASSERT_TRUE(std::isfinite(x));
}

TEST_P(Attention, ManySequencesAtOnceEqualEachAlone) {
  Random random(9);
  ThreadPool pool(3);
  const AttentionShape s{.heads = 6, .kv_heads = 2, .head_dim = 40, .scale = 0.2f, .window = 300};
  std::vector<Cache> caches;
  std::vector<std::vector<float>> q, alone, together;
  std::vector<AttentionTask> tasks;
  const std::pair<int64_t, int64_t> shapes[] = {{700, 1}, {0, 70}, {5, 1}, {63, 2}, {0, 0}, {299, 5}, {1000, 3}};
  for (const auto& [first, tokens] : shapes) {
    caches.push_back(random_cache(first + tokens, s, random_format(random), random));
    q.push_back(random_floats(static_cast<size_t>(tokens * 6 * 40), 2, random));
    alone.emplace_back(q.back().size());
    together.emplace_back(q.back().size());
    attend(s, q.back(), caches.back(), first, tokens, alone.back(), pool);
  }
  for (size_t i = 0; i < caches.size(); ++i)
    tasks.push_back({q[i].data(), caches[i].view(), shapes[i].first, shapes[i].second, together[i].data()});
  attention(s, tasks, pool);
  EXPECT_EQ(together, alone);
}

TEST(KvStore, EightBitHeadsAreWithinHalfAStepAndZerosStayZeros) {
  Random random(10);
  const AttentionShape s{.heads = 3, .kv_heads = 3, .head_dim = 24, .scale = 1};
  std::vector<std::byte> page(kv_page_bytes(KvFormat::i8, 3, 24));
  std::vector<float> heads = random_floats(72, 5, random);
  std::fill(heads.begin() + 24, heads.begin() + 48, 0.0f);
  kv_store(KvFormat::i8, 3, 24, heads.data(), 63, page.data());
  for (int64_t h = 0; h < 3; ++h) {
    const auto begin = heads.begin() + h * 24;
    const float largest =
        std::fabs(*std::max_element(begin, begin + 24, [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
    const std::vector<float> stored = read_head(KvFormat::i8, s, page.data(), 63, h);
    for (int64_t i = 0; i < 24; ++i) ASSERT_NEAR(stored[static_cast<size_t>(i)], begin[i], largest / 127 * 0.5001f);
  }
}

TEST(AttentionShape, HeadsThatDoNotShareEvenlyAreRefused) {
  ThreadPool pool(1);
  EXPECT_THROW(attention({.heads = 3, .kv_heads = 2, .head_dim = 4, .scale = 1}, {}, pool), ModelError);
}

/// |actual - expected| in units of the last place of `expected`.
double ulps(float actual, double expected) {
  const float at = static_cast<float>(expected);
  const double unit =
      std::max<double>(std::nextafter(std::fabs(at), INFINITY) - std::fabs(at), std::numeric_limits<float>::denorm_min());
  return std::fabs(actual - expected) / unit;
}

TEST_P(Operations, SiluAndGeluAreWithinAFewUnitsOfTheLastPlace) {
  Random random(4);
  for (const int64_t n : {1, 15, 16, 17, 1000, 20011}) {
    std::vector<float> gate = random_floats(static_cast<size_t>(n), 30, random), up = random_floats(gate.size(), 2, random);
    for (size_t i = 0; i < gate.size(); i += 3) gate[i] *= 0.01f;
    std::vector<float> silu = gate, gelu = gate;
    silu_mul(silu.data(), up.data(), n);
    gelu_tanh_mul(gelu.data(), up.data(), n);
    for (size_t i = 0; i < gate.size(); ++i) {
      const double x = gate[i], u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
      ASSERT_LE(ulps(silu[i], x / (1 + std::exp(-x)) * up[i]), 5.0) << gate[i];
      const double expected = x / (1 + std::exp(-2 * u)) * up[i];
      // Six roundings in the argument 2u, whose absolute error exp turns into a relative one.
      ASSERT_LE(std::fabs(gelu[i] - expected), std::fabs(expected) * 1.2e-7 * (5 + 6 * std::fabs(u)) + 1e-37) << gate[i];
    }
  }
}

TEST_P(Operations, ActivationsOfExtremeInputsAreTheirLimits) {
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> gate = {1000, -1000, 0, -0.0f, inf, std::nanf("")}, up(6, 1.0f), gelu = gate;
  silu_mul(gate.data(), up.data(), 6);
  gelu_tanh_mul(gelu.data(), up.data(), 6);
  for (const auto& y : {gate, gelu}) {
    EXPECT_EQ(y[0], 1000);
    EXPECT_EQ(y[1], 0);
    EXPECT_EQ(y[2], 0);
    EXPECT_EQ(y[3], 0);
    EXPECT_EQ(y[4], inf);
    EXPECT_TRUE(std::isnan(y[5]));
  }
}

TEST_P(Operations, RmsNormMatchesTheFormulaInDouble) {
  Random random(5);
  for (const int64_t width : {1, 7, 16, 64, 576, 577}) {
    const int64_t n = 3;
    std::vector<float> x = random_floats(static_cast<size_t>(n * width), 5, random),
                       weight = random_floats(static_cast<size_t>(width), 2, random);
    std::vector<float> y(x.size());
    rms_norm(x.data(), weight.data(), 1e-5f, n, width, y.data());
    for (int64_t i = 0; i < n; ++i) {
      double squares = 0;
      for (int64_t j = 0; j < width; ++j) squares += std::pow(static_cast<double>(x[static_cast<size_t>(i * width + j)]), 2);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + 1e-5);
      for (int64_t j = 0; j < width; ++j) {
        const auto at = static_cast<size_t>(i * width + j);
        ASSERT_LE(ulps(y[at], x[at] * scale * weight[static_cast<size_t>(j)]), 6.0);
      }
    }
    rms_norm(x.data(), weight.data(), 1e-5f, n, width, x.data());  // in place
    EXPECT_EQ(x, y);
  }
}

TEST_P(Operations, RopeRotatesThePairsOfEachHead) {
  Random random(6);
  for (const int64_t dim : {2, 8, 40, 64, 128}) {
    const auto half = static_cast<size_t>(dim / 2);
    std::vector<float> x = random_floats(static_cast<size_t>(3 * dim), 2, random), y = x, c, s;
    for (size_t i = 0; i < half; ++i) {
      const double angle = random.uniform() * 100;
      c.push_back(static_cast<float>(std::cos(angle)));
      s.push_back(static_cast<float>(std::sin(angle)));
    }
    rope(y.data(), 3, dim, c.data(), s.data());
    for (size_t h = 0; h < 3; ++h) {
      for (size_t i = 0; i < half; ++i) {
        const size_t a = h * static_cast<size_t>(dim) + i, b = a + half;
        ASSERT_NEAR(y[a], static_cast<double>(x[a]) * c[i] - static_cast<double>(x[b]) * s[i], 5e-7);
        ASSERT_NEAR(y[b], static_cast<double>(x[b]) * c[i] + static_cast<double>(x[a]) * s[i], 5e-7);
      }
    }
  }
}

TEST_P(Operations, LogSumExpAndArgmaxAreRightForAnyLengthAndSize) {
  Random random(7);
  for (const int64_t n : {1, 3, 16, 31, 33, 49152}) {
    for (const double size : {0.1, 20.0, 1000.0}) {
      std::vector<float> x = random_floats(static_cast<size_t>(n), size, random);
      if (n > 3) x[2] = -std::numeric_limits<float>::infinity();
      const auto best = std::max_element(x.begin(), x.end());
      double sum = 0;
      for (const float v : x) sum += std::exp(static_cast<double>(v) - static_cast<double>(*best));
      ASSERT_NEAR(log_sum_exp(x.data(), n), *best + std::log(sum), 2e-7);
      ASSERT_EQ(argmax(x.data(), n), best - x.begin());
      const auto at = best - x.begin();
      x.push_back(*best);  // a tie further on does not win
      ASSERT_EQ(argmax(x.data(), n + 1), at);
    }
  }
}

TEST_P(Operations, AddAndHalfConversionAreExactForAnyLength) {
  Random random(8);
  for (const int64_t n : {1, 8, 15, 16, 17, 100}) {
    const std::vector<float> x = random_floats(static_cast<size_t>(n), 70000, random),
                             y = random_floats(x.size(), 1e-6, random);
    std::vector<float> sum = y;
    std::vector<Half> half(x.size()), small(x.size());
    add(sum.data(), x.data(), n);
    to_half(x.data(), half.data(), n);
    to_half(y.data(), small.data(), n);
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(sum[i], x[i] + y[i]);
      ASSERT_EQ(half[i], float_to_half(x[i]));
      ASSERT_EQ(small[i], float_to_half(y[i]));
    }
  }
}

}  // namespace
}  // namespace lighten
