#include "lighten/kernels/scan.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/kernels/isa_fixture.h"
#include "lighten/kernels/scan_table.h"

namespace lighten {
namespace {

struct Free {
  void operator()(void* p) const { std::free(p); }
};
template <typename T>
using Aligned = std::unique_ptr<T, Free>;
template <typename T = std::byte>
Aligned<T> aligned(size_t bytes) {
  return Aligned<T>(static_cast<T*>(std::aligned_alloc(64, std::max<size_t>(64, (bytes + 63) / 64 * 64))));
}

std::vector<uint8_t> random_bytes(int64_t count, int below, Random& random) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random.below(static_cast<uint64_t>(below)));
  return bytes;
}

struct Case {
  int64_t count, queries, k;
  std::vector<int64_t> ids;       // empty: positions
  std::vector<uint32_t> removed;  // empty: none
  std::vector<int32_t> which;     // empty: all queries
};

Case random_case(Random& random) {
  Case c;
  c.count = 1 + static_cast<int64_t>(random.below(random.below(8) == 0 ? 700 : 100));
  c.queries = 1 + static_cast<int64_t>(random.below(19));
  c.k = 1 + static_cast<int64_t>(random.below(random.below(4) == 0 ? 120 : 12));
  if (random.below(2) == 0) {
    for (int64_t i = 0; i < c.count; ++i) c.ids.push_back(i * 3 - 50);
    random.shuffle(c.ids);
  }
  if (random.below(2) == 0) {
    c.removed.resize(static_cast<size_t>((c.count + 31) / 32));
    for (auto& word : c.removed) word = static_cast<uint32_t>(random.next() & random.next());
  }
  if (random.below(3) == 0)
    for (int64_t i = 0; i < c.queries; ++i)
      if (random.below(2) == 0) c.which.push_back(static_cast<int32_t>(i));
  return c;
}

/// All costs of one query sorted by (cost, id), cut to k: what a scan must return.
std::vector<Hit> expected_hits(const Case& c, const std::vector<int32_t>& costs) {
  std::vector<Hit> hits;
  for (int64_t i = 0; i < c.count; ++i) {
    const bool gone = !c.removed.empty() && (c.removed[static_cast<size_t>(i / 32)] >> (i % 32) & 1) != 0;
    if (!gone) hits.push_back({costs[static_cast<size_t>(i)], c.ids.empty() ? i : c.ids[static_cast<size_t>(i)]});
  }
  std::stable_sort(hits.begin(), hits.end());
  if (static_cast<int64_t>(hits.size()) > c.k) hits.resize(static_cast<size_t>(c.k));
  return hits;
}

/// Scans in two runs of blocks, as threads would, and compares with the expected hits of every query.
template <typename Scan>
void check_scan(const Case& c, const std::vector<std::vector<int32_t>>& costs, Random& random, Scan scan) {
  const auto chosen = c.which.empty() ? static_cast<size_t>(c.queries) : c.which.size();
  std::vector<TopK> best(chosen, TopK(c.k, c.ids.empty()));
  std::vector<TopK*> pointers;
  for (TopK& one : best) pointers.push_back(&one);
  ScanSink sink{pointers, c.ids.empty() ? nullptr : c.ids.data(), c.removed.empty() ? nullptr : c.removed.data()};
  const int64_t blocks = (c.count + kScanBlock - 1) / kScanBlock;
  const auto middle = static_cast<int64_t>(random.below(static_cast<uint64_t>(blocks) + 1));
  scan(0, middle, sink);
  scan(middle, blocks, sink);
  for (size_t q = 0; q < chosen; ++q) {
    const size_t original = c.which.empty() ? q : static_cast<size_t>(c.which[q]);
    ASSERT_EQ(best[q].sorted(), expected_hits(c, costs[original])) << "query " << q << " of " << chosen;
  }
}

class Scan : public ForEachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, Scan, testing::ValuesIn(available_isas()), name_of_isa);

TEST_P(Scan, HammingFindsWhatCountingBitsOneByOneFinds) {
  Random random(1);
  for (int trial = 0; trial < 2000; ++trial) {
    const Case c = random_case(random);
    // mostly short codes with many equal distances; now and then more words than a byte's sum can hold
    const auto bytes = static_cast<int64_t>(1 + random.below(random.below(20) == 0 ? 600 : 40));
    const int below = random.below(2) == 0 ? 256 : 2;
    const auto codes = random_bytes(c.count * bytes, below, random), queries = random_bytes(c.queries * bytes, below, random);
    std::vector<std::vector<int32_t>> costs;
    for (int64_t q = 0; q < c.queries; ++q) {
      auto& row = costs.emplace_back();
      for (int64_t i = 0; i < c.count; ++i) {
        int32_t distance = 0;
        for (int64_t b = 0; b < bytes; ++b)
          distance += std::popcount(
              static_cast<unsigned>(codes[static_cast<size_t>(i * bytes + b)] ^ queries[static_cast<size_t>(q * bytes + b)]));
        row.push_back(distance);
      }
    }
    const int64_t words = hamming_words(bytes);
    const auto blocks = aligned(hamming_bytes(c.count, words));
    const auto cut = static_cast<int64_t>(random.below(static_cast<uint64_t>(c.count) + 1));  // packed in two goes
    pack_hamming(codes.data(), cut, bytes, blocks.get());
    pack_hamming(codes.data() + cut * bytes, c.count - cut, bytes, blocks.get(), cut);
    const HammingBlocks view{blocks.get(), c.count, words};
    const HammingQueries panel(queries.data(), c.queries, bytes, c.which);
    if (panel.count() == 0) continue;
    check_scan(c, costs, random,
               [&](int64_t begin, int64_t end, const ScanSink& sink) { scan_hamming(view, begin, end, panel, sink); });
    if (HasFatalFailure()) FAIL() << "trial " << trial << ", " << bytes << " bytes, " << c.count << " codes";
    std::vector<uint8_t> back(static_cast<size_t>(bytes));
    unpack_hamming(view, c.count - 1, bytes, back.data());
    ASSERT_EQ(0, std::memcmp(back.data(), codes.data() + (c.count - 1) * bytes, back.size()));
  }
}

/// The form in one parameter more would need a second fixture: every form that this instruction set has, in turn.
TEST_P(Scan, SdcFindsWhatFloatingPointFinds) {
  Random random(2);
  for (int trial = 0; trial < 2400; ++trial) {
    const Case c = random_case(random);
    const int loops = trial % 4;
    const SdcShape shape{
        static_cast<int64_t>(1 + random.below(random.below(15) == 0 ? 1100 : 90)) + (trial % 29 == 0 ? 140 : 0), loops};
    const int levels = shape.levels();
    auto codes = random_bytes(c.count * shape.dimensions, levels + 1, random);
    auto queries = random_bytes(c.queries * shape.dimensions, levels + 1, random);
    if (trial % 7 == 0) {  // the largest sums of all
      std::fill(codes.begin(), codes.end(), static_cast<uint8_t>(levels));
      std::fill(queries.begin(), queries.end(), static_cast<uint8_t>(trial / 28 % 2 == 0 ? levels : 0));
    }
    std::vector<std::vector<int32_t>> costs;
    for (int64_t q = 0; q < c.queries; ++q) {
      auto& row = costs.emplace_back();
      for (int64_t i = 0; i < c.count; ++i) {
        double product = 0, square = 0;  // small whole numbers: exact
        for (int64_t d = 0; d < shape.dimensions; ++d) {
          const double x = 2.0 * codes[static_cast<size_t>(i * shape.dimensions + d)] - levels;
          product += x * (2.0 * queries[static_cast<size_t>(q * shape.dimensions + d)] - levels);
          square += x * x;
        }
        row.push_back(cost_of_score(static_cast<float>(product) * static_cast<float>(1.0 / std::sqrt(square))));
      }
    }
    const auto blocks = aligned(sdc_bytes(c.count, shape));
    std::vector<float> norms(static_cast<size_t>((c.count + kScanBlock - 1) / kScanBlock * kScanBlock));
    pack_sdc(shape, codes.data(), c.count, blocks.get(), norms.data());
    const SdcBlocks view{blocks.get(), norms.data(), c.count, shape};
    const auto planes = aligned(plane_bytes(c.count, shape));
    pack_planes(shape, codes.data(), c.count, planes.get(), norms.data());
    for (const SdcForm form : {SdcForm::scalar, SdcForm::table, SdcForm::dot, SdcForm::pairs, SdcForm::planes}) {
      const bool has_bytes = GetParam() == Isa::avx2 || GetParam() == Isa::avx512;
      if (form == SdcForm::table && !has_bytes) continue;
      if (form == SdcForm::pairs && (!has_bytes || loops < 2)) continue;
      if (form == SdcForm::dot && (GetParam() != Isa::avx512 || loops == 0)) continue;
      const SdcQueries panel(shape, queries.data(), c.queries, c.which, form);
      if (panel.count() == 0) continue;
      check_scan(c, costs, random, [&](int64_t begin, int64_t end, const ScanSink& sink) {
        const SdcBlocks of_form{form == SdcForm::planes ? planes.get() : blocks.get(), norms.data(), c.count, shape};
        scan_sdc(of_form, begin, end, panel, sink);
      });
      if (HasFatalFailure())
        FAIL() << "trial " << trial << ", form " << static_cast<int>(form) << ", u " << loops << ", m " << shape.dimensions
               << ", " << c.count << " codes, k " << c.k;
    }
    std::vector<uint8_t> back(static_cast<size_t>(shape.dimensions));
    unpack_sdc(view, c.count - 1, back.data());
    ASSERT_EQ(0, std::memcmp(back.data(), codes.data() + (c.count - 1) * shape.dimensions, back.size()));
  }
}

TEST(ScanLayout, BlocksStandAsFastScanHasThem) {
  // Two nibbles of 32 codes: code i has level i % 16 in the first and 15 - i % 16 in the second.
  std::vector<uint8_t> levels;
  for (int i = 0; i < 32; ++i) {
    levels.push_back(static_cast<uint8_t>(i % 16));
    levels.push_back(static_cast<uint8_t>(15 - i % 16));
  }
  const SdcShape shape{2, 3};
  const auto block = aligned<uint8_t>(32);
  float norms[32];
  pack_sdc(shape, levels.data(), 32, reinterpret_cast<std::byte*>(block.get()), norms);
  const int pi[16] = {0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15};
  for (int k = 0; k < 16; ++k) {
    EXPECT_EQ(block.get()[k], pi[k] | pi[k] << 4);
    EXPECT_EQ(block.get()[16 + k], (15 - pi[k]) | (15 - pi[k]) << 4);
  }
  // u = 1: two dimensions a nibble, the first in the high bits; u = 0: four.
  const uint8_t two[2] = {2, 1}, four[4] = {1, 0, 1, 1};
  pack_sdc({2, 1}, two, 1, reinterpret_cast<std::byte*>(block.get()), norms);
  EXPECT_EQ(block.get()[0], 0b1001);
  pack_sdc({4, 0}, four, 1, reinterpret_cast<std::byte*>(block.get()), norms);
  EXPECT_EQ(block.get()[0], 0b1011);
  EXPECT_FLOAT_EQ(norms[0], 0.5f);  // four dimensions of +-1
}

TEST(TopKOfScan, KeepsTheSmallestWithTiesBySmallerId) {
  Random random(3);
  for (int trial = 0; trial < 500; ++trial) {
    const auto k = static_cast<int64_t>(1 + random.below(60));
    std::vector<Hit> all;
    for (uint64_t i = random.below(400); i > 0; --i)
      all.push_back({static_cast<int32_t>(random.below(9)) - 4, static_cast<int64_t>(random.below(1000))});
    const bool ascending = trial % 2 == 0;
    if (ascending) std::stable_sort(all.begin(), all.end(), [](const Hit& a, const Hit& b) { return a.id < b.id; });
    TopK best(k, ascending);
    for (const Hit& hit : all) best.offer(hit.cost, hit.id);
    std::sort(all.begin(), all.end());
    if (static_cast<int64_t>(all.size()) > k) all.resize(static_cast<size_t>(k));
    ASSERT_EQ(best.sorted(), all);
  }
  EXPECT_THROW(TopK(0), OptionError);
}

TEST(TopKOfScan, CostsOrderScoresExactly) {
  Random random(4);
  const float fixed[] = {0.0f, 1e-38f, -1e-38f, 1.0f, -1.0f, 3e38f, -3e38f};
  for (int trial = 0; trial < 10000; ++trial) {
    const auto any = [&] { return random.below(3) == 0 ? fixed[random.below(7)] : static_cast<float>(random.normal()); };
    const float a = any(), b = any();
    EXPECT_EQ(a > b, cost_of_score(a) < cost_of_score(b)) << a << " " << b;
    EXPECT_EQ(score_of_cost(cost_of_score(a)), a);
  }
}

TEST(ScanShapes, BadOnesAreRefused) {
  EXPECT_THROW(check(SdcShape{64, 4}), OptionError);
  EXPECT_THROW(check(SdcShape{0, 3}), OptionError);
  const uint8_t code[8] = {};
  const HammingQueries one_word(code, 1, 8);
  TopK best(1);
  TopK* pointer = &best;
  EXPECT_THROW(scan_hamming({nullptr, 0, 2}, 0, 0, one_word, {{&pointer, 1}}), OptionError);
}

}  // namespace
}  // namespace lighten
