#include "lighten/index/index.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/random.h"
#include "lighten/formats/test_files.h"
#include "lighten/index/manifest.h"

namespace lighten {
namespace {

using formats::contains;
using formats::message_of;
using formats::TemporaryFolder;

ThreadPool& pool() {
  static ThreadPool threads(2);
  return threads;
}

std::vector<uint8_t> random_rows(const CodeFormat& format, int64_t count, Random& random) {
  std::vector<uint8_t> levels(static_cast<size_t>(format.shape.dimensions)),
      rows(static_cast<size_t>(count * format.row_bytes()));
  for (int64_t i = 0; i < count; ++i) {
    for (auto& level : levels) level = static_cast<uint8_t>(random.below(static_cast<uint64_t>(format.shape.levels()) + 1));
    row_of_levels(format, levels.data(), rows.data() + i * format.row_bytes());
  }
  return rows;
}

/// What an index must answer, from a plain map of id to row: all distances in floating point, sorted.
struct Reference {
  CodeFormat format;
  std::map<int64_t, std::vector<uint8_t>> rows;
  void put(int64_t first, const std::vector<uint8_t>& all) {
    for (size_t at = 0; at < all.size(); at += static_cast<size_t>(format.row_bytes()))
      rows[first++] = {all.begin() + static_cast<std::ptrdiff_t>(at),
                       all.begin() + static_cast<std::ptrdiff_t>(at) + format.row_bytes()};
  }
  double distance(const uint8_t* a, const uint8_t* b) const {
    const auto m = static_cast<size_t>(format.shape.dimensions);
    std::vector<float> x(m), y(m);
    unit_vector_of_row(format, a, x.data());
    unit_vector_of_row(format, b, y.data());
    double product = 0, differing = 0;
    for (size_t d = 0; d < m; ++d) {
      product += static_cast<double>(x[d]) * y[d];
      differing += x[d] * y[d] < 0 ? 1 : 0;
    }
    return format.kind == ScanKind::hamming ? differing : 1 - product;
  }
  void check(const Index& index, const std::vector<uint8_t>& queries, int64_t k) const {
    const int64_t n = static_cast<int64_t>(queries.size()) / format.row_bytes();
    const SearchResult found = index.search(queries.data(), n, {.k = k}, pool());
    ASSERT_EQ(index.count(), static_cast<int64_t>(rows.size()));
    for (int64_t q = 0; q < n; ++q) {
      std::vector<std::pair<double, int64_t>> all;
      for (const auto& [id, row] : rows) all.emplace_back(distance(queries.data() + q * format.row_bytes(), row.data()), id);
      std::sort(all.begin(), all.end());
      std::set<int64_t> seen;
      for (int64_t i = 0; i < k; ++i) {
        const auto at = static_cast<size_t>(q * k + i);
        if (i >= static_cast<int64_t>(all.size())) {
          ASSERT_EQ(found.ids[at], -1);
          ASSERT_TRUE(std::isinf(found.distances[at]));
          continue;
        }
        ASSERT_NEAR(found.distances[at], all[static_cast<size_t>(i)].first, 1e-5);
        ASSERT_TRUE(rows.contains(found.ids[at])) << found.ids[at];
        ASSERT_TRUE(seen.insert(found.ids[at]).second);
        ASSERT_NEAR(distance(queries.data() + q * format.row_bytes(), rows.at(found.ids[at]).data()), found.distances[at],
                    1e-5);
        if (format.kind == ScanKind::hamming) {
          ASSERT_EQ(found.ids[at], all[static_cast<size_t>(i)].second);
        }
      }
    }
  }
};

TEST(Index, FindsWhatFloatingPointFindsThroughAddsAndRemovals) {
  Random random(1);
  for (const auto& [dimensions, loops] : {std::pair<int64_t, int>{40, 0}, {256, 0}, {33, 1}, {20, 2}, {48, 3}}) {
    const TemporaryFolder folder;
    const fs::path path = folder / "index";
    Reference reference{code_format(dimensions, loops), {}};
    const auto first = random_rows(reference.format, 100, random), queries = random_rows(reference.format, 7, random);
    create_index(path, {.format = reference.format}, first.data(), 100, {}, false, pool());
    reference.put(0, first);
    reference.check(Index(path), queries, 5);
    for (int round = 0; round < 12; ++round) {
      const auto count = static_cast<int64_t>(1 + random.below(90));
      const auto more = random_rows(reference.format, count, random);
      reference.put(add_to_index(path, more.data(), count, {}, pool()), more);
      std::vector<int64_t> gone;
      for (const auto& [id, row] : reference.rows)
        if (random.below(round == 7 ? 2 : 9) == 0) gone.push_back(id);
      remove_from_index(path, gone, pool());
      for (const int64_t id : gone) reference.rows.erase(id);
      const Index index(path);
      reference.check(index, queries, round == 3 ? 2000 : 9);
      index.verify();
      ASSERT_LE(index.segments().size(), 8u);
      if (HasFatalFailure()) FAIL() << to_text(reference.format) << ", round " << round;
    }
  }
}

TEST(Index, OwnIdsKeepTiesBySmallerId) {
  const TemporaryFolder folder;
  const fs::path path = folder / "index";
  const CodeFormat format = code_format(8, 0);
  const std::vector<uint8_t> same(5, 0x0f);
  const std::vector<int64_t> ids{50, 7, 30, 9, 8};
  create_index(path, {.format = format}, same.data(), 5, ids, false, pool());
  const std::vector<int64_t> more{6, 40};
  add_to_index(path, same.data(), 2, more, pool());
  const SearchResult found = Index(path).search(same.data(), 1, {.k = 4}, pool());
  EXPECT_EQ(found.ids, (std::vector<int64_t>{6, 7, 8, 9}));
  EXPECT_EQ(found.distances, (std::vector<float>{0, 0, 0, 0}));
  // An id may come back after it was removed, and not before.
  const std::vector<int64_t> seven{7}, twice{60, 60}, unknown{7, 1234}, negative{-1};
  EXPECT_TRUE(contains(message_of<OptionError>([&] { add_to_index(path, same.data(), 1, seven, pool()); }), "id 7 is in"));
  EXPECT_TRUE(
      contains(message_of<OptionError>([&] { add_to_index(path, same.data(), 2, twice, pool()); }), "id 60 stands twice"));
  EXPECT_TRUE(contains(message_of<OptionError>([&] { add_to_index(path, same.data(), 1, negative, pool()); }), "negative"));
  EXPECT_TRUE(contains(message_of<OptionError>([&] { remove_from_index(path, unknown, pool()); }), "id 1234 is not in"));
  EXPECT_EQ(Index(path).count(), 7);
  remove_from_index(path, seven, pool());
  add_to_index(path, same.data(), 1, seven, pool());
  EXPECT_EQ(Index(path).count(), 7);
}

TEST(Index, ListsFindTheSameAsNoListsWhenAllAreProbed) {
  Random random(2);
  for (const int loops : {0, 3}) {
    const TemporaryFolder folder;
    const CodeFormat format = code_format(64, loops);
    const auto rows = random_rows(format, 1500, random), queries = random_rows(format, 40, random);
    create_index(folder / "flat", {.format = format}, rows.data(), 1000, {}, false, pool());
    create_index(folder / "lists", {.format = format, .lists = 13, .seed = 5}, rows.data(), 1000, {}, false, pool());
    for (const char* name : {"flat", "lists"}) {
      add_to_index(folder / name, rows.data() + 1000 * format.row_bytes(), 500, {}, pool());
      const std::vector<int64_t> gone{3, 500, 1400};
      remove_from_index(folder / name, gone, pool());
    }
    const Index flat(folder / "flat"), lists(folder / "lists");
    const SearchResult a = flat.search(queries.data(), 40, {.k = 11}, pool());
    const SearchResult b = lists.search(queries.data(), 40, {.k = 11, .probes = 13}, pool());
    EXPECT_EQ(a.ids, b.ids);
    EXPECT_EQ(a.distances, b.distances);
    // Shares put together find what one search finds.
    for (const Index* index : {&flat, &lists}) {
      std::vector<SearchResult> shares;
      for (int64_t share = 0; share < 3; ++share)
        shares.push_back(index->search(queries.data(), 40, {.k = 11, .probes = 13, .share = share, .shares = 3}, pool()));
      EXPECT_EQ(merge_shares(shares, 11).ids, a.ids);
      EXPECT_EQ(merge_shares(shares, 11).distances, a.distances);
    }
    // A code itself lies in the nearest list, and one thread finds what two find.
    const SearchResult self = lists.search(rows.data(), 3, {.k = 1, .probes = 1}, pool());
    EXPECT_EQ(self.ids, (std::vector<int64_t>{0, 1, 2}));
    ThreadPool one(1);
    EXPECT_EQ(lists.search(queries.data(), 40, {.k = 11, .probes = 4}, one).ids,
              lists.search(queries.data(), 40, {.k = 11, .probes = 4}, pool()).ids);
  }
}

TEST(Index, SurvivesAKillAtAnyMoment) {
  const TemporaryFolder folder;
  const fs::path path = folder / "index";
  const CodeFormat format = code_format(64, 0);
  Random random(3);
  const auto rows = random_rows(format, 400, random);
  create_index(path, {.format = format}, rows.data(), 400, {}, false, pool());
  int killed = 0;
  for (int trial = 0; trial < 60; ++trial) {
    const Index before(path);
    const int64_t count = before.count(), next = before.next_id();
    const pid_t child = ::fork();
    if (child == 0) {  // adds and removes until it is killed; nothing but a signal ends it
      ThreadPool own(1);
      for (;;) {
        const int64_t first = add_to_index(path, rows.data(), 200, {}, own);
        std::vector<int64_t> gone(200);
        std::iota(gone.begin(), gone.end(), first);
        remove_from_index(path, gone, own);
      }
    }
    ::usleep(static_cast<useconds_t>(500 + random.below(20000)));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    killed += WIFSIGNALED(status) ? 1 : 0;
    const Index after(path);
    after.verify();
    ASSERT_TRUE(after.count() == 400 || after.count() == 600) << after.count() << " from " << count;
    ASSERT_GE(after.next_id(), next);
    const SearchResult found = after.search(rows.data(), 400, {.k = 1}, pool());  // the first 400 are all there
    for (int64_t i = 0; i < 400; ++i) ASSERT_EQ(found.distances[static_cast<size_t>(i)], 0) << i;
    if (after.count() == 600) {  // the writer died between adding and removing: finish its work
      std::vector<int64_t> gone(200);
      std::iota(gone.begin(), gone.end(), after.next_id() - 200);
      remove_from_index(path, gone, pool());
    }
  }
  EXPECT_EQ(killed, 60);
  add_to_index(path, rows.data(), 1, {}, pool());  // a writer sweeps what killed ones left
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(path)) files += entry.is_regular_file() ? 1 : 0;
  EXPECT_LE(files, 3 + Index(path).segments().size());  // manifest, lock, removed
}

TEST(Index, RefusesDamagedFiles) {
  const TemporaryFolder folder;
  const CodeFormat format = code_format(64, 3);
  Random random(4);
  const auto rows = random_rows(format, 50, random);
  const fs::path path = folder / "index", segment = path / "segment-000001.bin";
  create_index(path, {.format = format}, rows.data(), 50, {}, false, pool());
  const std::string good = read_file(segment), manifest = read_file(path / "index.json");
  const auto refusal = [&](const std::string& bytes) {
    write_file(segment, bytes);
    return message_of<FormatError>([&] { Index index(path); });
  };
  EXPECT_TRUE(contains(refusal(good.substr(0, 100)), "truncated"));
  EXPECT_TRUE(contains(refusal(good.substr(0, good.size() - 1)), "truncated"));
  EXPECT_TRUE(contains(refusal("X" + good.substr(1)), "no segment"));
  for (const size_t at : {12u, 24u, 40u, 64u, 100u, 121u}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    EXPECT_TRUE(contains(refusal(bad), segment.string())) << at;
  }
  std::string lists = good;
  lists[good.size() - 8] = 77;  // codes of the only list
  EXPECT_TRUE(contains(refusal(lists), "lists"));
  std::string code = good;
  code[200] = static_cast<char>(code[200] ^ 4);  // found by reading all
  write_file(segment, code);
  EXPECT_TRUE(contains(message_of<FormatError>([&] { Index(path).verify(); }), "damaged"));
  write_file(segment, good);
  const auto bad_manifest = [&](const std::string& from, const std::string& to) {
    std::string text = manifest;
    text.replace(text.find(from), from.size(), to);
    write_file(path / "index.json", text);
    return message_of<FormatError>([&] { Index index(path); });
  };
  EXPECT_TRUE(contains(bad_manifest("\"format_version\": 1", "\"format_version\": 2"), "format version 2"));
  EXPECT_TRUE(contains(bad_manifest("segment-000001.bin", "../segment-1.bin"), "plain name"));
  EXPECT_TRUE(contains(bad_manifest("\"codes\": 50", "\"codes\": 51"), "holds 50 codes"));
  EXPECT_TRUE(contains(bad_manifest("\"sdc\"", "\"pq\""), "codes must be hamming"));
  EXPECT_TRUE(contains(bad_manifest("\"dimensions\": 64", "\"dimensions\": 65"), "another index"));
  EXPECT_TRUE(contains(message_of<FileError>([&] { Index index(folder / "none"); }), "there is no index here"));
}

TEST(Codes, RowsHoldLevelsPlaneByPlane) {
  const CodeFormat format = code_format(3, 3);
  const uint8_t levels[3] = {0b1010, 0b0111, 0b1100};
  uint8_t row[4], back[3];
  row_of_levels(format, levels, row);
  EXPECT_EQ(row[0], 0b101);
  EXPECT_EQ(row[1], 0b110);
  EXPECT_EQ(row[2], 0b011);
  EXPECT_EQ(row[3], 0b010);
  levels_of_row(format, row, back);
  EXPECT_TRUE(std::equal(levels, levels + 3, back));
  float unit[3];
  unit_vector_of_row(format, row, unit);  // v = 2c - 15 = 5, -1, 9; |v|^2 = 107
  EXPECT_NEAR(unit[0], 5 / std::sqrt(107.0), 1e-6);
  EXPECT_NEAR(unit[1], -1 / std::sqrt(107.0), 1e-6);
}

DenseLayer random_layer(int64_t inputs, int64_t outputs, Random& random) {
  DenseLayer layer{inputs, outputs, {}, {}};
  for (int64_t i = 0; i < inputs * outputs; ++i) layer.weight.push_back(static_cast<float>(random.normal() / 4));
  for (int64_t i = 0; i < outputs; ++i) layer.bias.push_back(static_cast<float>(random.normal() / 4));
  return layer;
}

std::vector<double> plain_net(const DenseNet& net, std::vector<double> x) {
  for (size_t k = 0; k < net.size(); ++k) {
    std::vector<double> y(net[k].bias.begin(), net[k].bias.end());
    for (size_t o = 0; o < y.size(); ++o)
      for (size_t i = 0; i < x.size(); ++i) y[o] += static_cast<double>(net[k].weight[o * x.size() + i]) * x[i];
    if (k + 1 < net.size())
      for (double& value : y) value = std::max(value, 0.0);
    x = y;
  }
  return x;
}

void normalise(std::vector<double>& x) {
  const double length = std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
  for (double& value : x) value /= length;
}

TEST(Encoder, FollowsTheRecurrenceAndSurvivesAFile) {
  Random random(6);
  CodeEncoder encoder{"test", 10, {7, 2}, true, {}, {}};
  for (int j = 0; j <= 2; ++j) {
    encoder.binarizers.push_back({random_layer(10, 12, random), random_layer(12, 7, random)});
    if (j > 0) encoder.reconstructors.push_back({random_layer(7, 9, random), random_layer(9, 10, random)});
  }
  const TemporaryFolder folder;
  save_encoder(folder / "e.safetensors", encoder);
  const CodeEncoder loaded = load_encoder(folder / "e.safetensors");
  const CodeWriter writer(loaded);
  std::vector<float> x;
  for (int i = 0; i < 50 * 10; ++i) x.push_back(static_cast<float>(random.normal()));
  std::vector<uint8_t> rows(static_cast<size_t>(50 * writer.format().row_bytes()));
  writer.encode(x.data(), 50, rows.data(), pool());
  int compared = 0;
  for (int i = 0; i < 50; ++i) {
    std::vector<double> f(x.begin() + i * 10, x.begin() + (i + 1) * 10), b(7, 0.0);
    normalise(f);
    uint8_t levels[7];
    levels_of_row(writer.format(), rows.data() + i * writer.format().row_bytes(), levels);
    for (int j = 0; j <= 2; ++j) {
      std::vector<double> residual = f;
      if (j > 0) {
        std::vector<double> guess = plain_net(encoder.reconstructors[static_cast<size_t>(j - 1)], b);
        normalise(guess);
        for (size_t d = 0; d < 10; ++d) residual[d] -= guess[d];
      }
      const std::vector<double> s = plain_net(encoder.binarizers[static_cast<size_t>(j)], residual);
      for (size_t d = 0; d < 7; ++d) b[d] += (s[d] >= 0 ? 1 : -1) * std::ldexp(1.0, -j);
    }
    for (size_t d = 0; d < 7; ++d) compared += 2 * levels[d] - 7 == 4 * b[d] ? 1 : 0;
  }
  EXPECT_EQ(compared, 350);  // no pre-activation of these lies within rounding of zero
  // sign(0) = +1
  const CodeWriter signs(sign_encoder(3));
  const float zero[3] = {0.0f, -1.0f, 2.0f};
  uint8_t row = 0;
  signs.encode(zero, 1, &row, pool());
  EXPECT_EQ(row, 0b101);

  CodeEncoder broken = encoder;
  broken.reconstructors[1][1] = random_layer(9, 11, random);
  save_encoder(folder / "b.safetensors", broken);
  EXPECT_TRUE(
      contains(message_of<FormatError>([&] { load_encoder(folder / "b.safetensors"); }), "reconstructor.1 does not end in 10"));
  broken = encoder;
  broken.binarizers[0][0].weight[3] = std::numeric_limits<float>::quiet_NaN();
  save_encoder(folder / "n.safetensors", broken);
  EXPECT_TRUE(contains(message_of<FormatError>([&] { load_encoder(folder / "n.safetensors"); }), "binarizer.0.0.weight"));
}

TEST(KMeans, FindsClustersThatAreThere) {
  Random random(7);
  std::vector<float> x;
  for (int i = 0; i < 300; ++i)
    for (int d = 0; d < 3; ++d) x.push_back((d == i % 3 ? 1.0f : 0.0f) + 0.05f * static_cast<float>(random.normal()));
  double best = 1e9;
  for (const uint64_t seed : {1, 2, 3, 4, 5}) {
    const Centroids centroids = kmeans(x, 3, 3, 10, seed, pool());
    const std::vector<int32_t> home = centroids.nearest(x.data(), 300, 2, pool());
    double loss = 0;
    for (int i = 0; i < 300; ++i)
      for (int d = 0; d < 3; ++d)
        loss += std::pow(x[static_cast<size_t>(i * 3 + d)] -
                             centroids.values()[static_cast<size_t>(home[static_cast<size_t>(i * 2)] * 3 + d)],
                         2);
    best = std::min(best, loss);
    for (int i = 0; i < 300; ++i) ASSERT_NE(home[static_cast<size_t>(i * 2)], home[static_cast<size_t>(i * 2 + 1)]);
  }
  EXPECT_NEAR(best, 300 * 3 * 0.05 * 0.05, 0.5);  // only the noise is left
  EXPECT_THROW(kmeans(x, 3, 301, 1, 0, pool()), OptionError);
}

TEST(Checksum, DependsOnEveryBit) {
  std::string bytes(77, 'x');
  const auto of = [](const std::string& text) { return checksum(std::as_bytes(std::span(text.data(), text.size()))); };
  std::set<uint64_t> seen{of(bytes)};
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    std::string changed = bytes;
    changed[i / 8] = static_cast<char>(changed[i / 8] ^ (1 << i % 8));
    EXPECT_TRUE(seen.insert(of(changed)).second) << i;
  }
  EXPECT_NE(of(bytes), of(bytes + '\0'));
}

}  // namespace
}  // namespace lighten
