#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <optional>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/data/dataset.h"
#include "lighten/data/packages.h"
#include "lighten/features/bag_of_words.h"
#include "lighten/features/text_features.h"
#include "lighten/features/vector_store.h"
#include "lighten/nn/bert.h"

namespace lighten {
namespace {

/// A folder of its own that goes away.
struct TemporaryFolder {
  TemporaryFolder() : path(fs::temp_directory_path() / fmt::format("lighten-features-{}", ::getpid())) {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~TemporaryFolder() { fs::remove_all(path); }
  fs::path path;
};

/// LIGHTEN_DATA points elsewhere while this lives.
struct OtherCache {
  explicit OtherCache(const fs::path& folder) {
    if (const char* old = std::getenv("LIGHTEN_DATA")) before = old;
    ::setenv("LIGHTEN_DATA", folder.c_str(), 1);
  }
  ~OtherCache() {
    if (before)
      ::setenv("LIGHTEN_DATA", before->c_str(), 1);
    else
      ::unsetenv("LIGHTEN_DATA");
  }
  std::optional<std::string> before;
};

std::vector<float> row_of(const VectorStore& store, const std::string& text) {
  std::vector<float> row(3);
  EXPECT_TRUE(store.find(VectorStore::key_of(text), row)) << text;
  return row;
}

TEST(VectorStore, KeepsRowsAcrossObjectsAndProcesses) {
  const TemporaryFolder folder;
  VectorStore first(folder.path, "s", 3), second(folder.path, "s", 3);
  first.append({VectorStore::key_of("a"), VectorStore::key_of("b")}, std::vector<float>{1, 2, 3, 4, 5, 6});
  second.append({VectorStore::key_of("c")}, std::vector<float>{7, 8, 9});  // opened before the others were there
  EXPECT_EQ(second.size(), 3);
  const VectorStore again(folder.path, "s", 3);
  EXPECT_EQ(row_of(again, "a"), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(row_of(again, "b"), (std::vector<float>{4, 5, 6}));
  EXPECT_EQ(row_of(again, "c"), (std::vector<float>{7, 8, 9}));
  std::vector<float> none(3);
  EXPECT_FALSE(again.find(VectorStore::key_of("d"), none));
}

TEST(VectorStore, WhatAKillLeftHalfWrittenDoesNotCount) {
  const TemporaryFolder folder;
  VectorStore(folder.path, "s", 3).append({VectorStore::key_of("a")}, std::vector<float>{1, 2, 3});
  std::ofstream(folder.path / "s.values", std::ios::app | std::ios::binary) << "half a row and more";
  std::ofstream(folder.path / "s.keys", std::ios::app | std::ios::binary) << "half";
  VectorStore store(folder.path, "s", 3);
  EXPECT_EQ(store.size(), 1);
  store.append({VectorStore::key_of("b")}, std::vector<float>{4, 5, 6});
  const VectorStore again(folder.path, "s", 3);
  EXPECT_EQ(again.size(), 2);
  EXPECT_EQ(row_of(again, "a"), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(row_of(again, "b"), (std::vector<float>{4, 5, 6}));
}

TEST(TextFeatures, AreTheEncodersVectorsInOrderFromAnywhere) {
  if (!data_present("minilm-l6")) GTEST_SKIP() << "lighten data get minilm-l6";
  const fs::path model = data_path("minilm-l6", false);
  std::vector<std::string> texts = {"a web server", "", "a library that reads pictures", "a web server", "Japanese fonts", "x"};
  TextEncoder encoder = load_text_encoder(model);
  const torch::Tensor expected = embed_texts(encoder, texts);
  const TemporaryFolder folder;
  const OtherCache cache(folder.path);
  for (const char* how : {"computed", "from the cache"}) {
    const Features features = text_features(model, texts, "test");
    ASSERT_EQ(features.rows, 6);
    ASSERT_EQ(features.columns, 384);
    for (int64_t i = 0; i < 6; ++i)
      for (int64_t c = 0; c < 384; ++c)
        ASSERT_NEAR(features.row(i)[static_cast<size_t>(c)], expected[i][c].item<float>(), 2e-6) << how << ", row " << i;
  }
  // The second call added nothing: five distinct texts are kept.
  for (const auto& entry : fs::directory_iterator(folder.path / "features")) {
    if (entry.path().extension() != ".keys") continue;
    EXPECT_EQ(fs::file_size(entry.path()), 5 * sizeof(VectorStore::Key));
  }
  EXPECT_THROW(text_features(model, texts, "test", {.max_tokens = 2}), OptionError);
}

TEST(BagOfWords, WeighsRareWordsMoreAndFitsOnlyWhatItMay) {
  const Features features = bag_of_words({"the cat, the Cat", "the dog", "the"}, 1 << 20, {0, 1});
  const auto at = [&](int64_t row, const char* word) {
    return static_cast<double>(features.row(row)[static_cast<size_t>(stable_hash(word) % (1 << 20))]);
  };
  // Row 0: "the" and "cat" twice each; in 2 and 1 of the 2 fitted texts.
  const double the = (1 + std::log(2.0)) * (1 + std::log(3.0 / 3)), cat = (1 + std::log(2.0)) * (1 + std::log(3.0 / 2));
  EXPECT_NEAR(at(0, "the"), the / std::hypot(the, cat), 1e-6);
  EXPECT_NEAR(at(0, "cat"), cat / std::hypot(the, cat), 1e-6);
  EXPECT_NEAR(at(2, "the"), 1, 1e-6);
}

}  // namespace
}  // namespace lighten
