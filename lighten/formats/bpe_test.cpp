#include "lighten/formats/bpe.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"
#include "lighten/base/random.h"
#include "lighten/formats/tokenizer_parts.h"
#include "lighten/formats/unicode.h"
#include "lighten/formats/wordpiece.h"

namespace lighten::formats {
namespace {

Vocabulary vocabulary(const std::vector<std::string>& tokens) {
  TokenList list;
  for (size_t i = 0; i < tokens.size(); ++i) list.add(tokens[i], static_cast<int64_t>(i));
  return Vocabulary(std::move(list), "test");
}

template <typename Model>
std::vector<int32_t> encode(const Model& model, std::string_view word) {
  std::vector<int32_t> ids;
  model.encode(word, ids);
  return ids;
}

/// Straight from the definition: join the leftmost pair of the lowest rank until none is left.
std::vector<int32_t> merge_by_definition(std::vector<int32_t> ids, const std::vector<Merge>& merges) {
  for (;;) {
    size_t best = ids.size(), best_rank = merges.size();
    for (size_t i = 0; i + 1 < ids.size(); ++i)
      for (size_t r = 0; r < best_rank; ++r)
        if (merges[r].left == ids[i] && merges[r].right == ids[i + 1]) best = i, best_rank = r;
    if (best == ids.size()) return ids;
    ids[best] = merges[best_rank].whole;
    ids.erase(ids.begin() + best + 1);
  }
}

TEST(Bpe, JoinsInOrderOfRankAtAnyLength) {
  Random random(3);
  for (int trial = 0; trial < 60; ++trial) {
    std::vector<std::string> tokens = {"a", "b", "c"};
    std::vector<Merge> merges;
    while (merges.size() < 40) {
      const auto left = static_cast<int32_t>(random.below(tokens.size())),
                 right = static_cast<int32_t>(random.below(tokens.size()));
      const std::string whole = tokens[left] + tokens[right];
      auto found = std::find(tokens.begin(), tokens.end(), whole) - tokens.begin();
      if (found == static_cast<int64_t>(tokens.size())) tokens.push_back(whole);
      merges.push_back({left, right, static_cast<int32_t>(found)});
    }
    // A pair listed twice would have two ranks; keep the first for the plain definition.
    std::vector<Merge> unique;
    for (const Merge& merge : merges)
      if (std::none_of(unique.begin(), unique.end(),
                       [&](const Merge& m) { return m.left == merge.left && m.right == merge.right; }))
        unique.push_back(merge);
    const Vocabulary vocab = vocabulary(tokens);
    const Bpe bpe(vocab, unique, {});
    for (const size_t length : {0, 1, 2, 7, 39, 40, 41, 42, 150}) {
      std::string word;
      std::vector<int32_t> ids;
      for (size_t i = 0; i < length; ++i) {
        ids.push_back(static_cast<int32_t>(random.below(trial % 2 ? 3 : 2)));
        word += tokens[ids.back()];
      }
      ASSERT_EQ(encode(bpe, word), merge_by_definition(ids, unique)) << word;
    }
  }
}

TEST(Bpe, UnknownCharactersAreLeftOutMarkedOrSpelledInBytes) {
  const Vocabulary vocab = vocabulary({"<unk>", "a", "<0xC3>", "<0xA9>"});
  EXPECT_EQ(encode(Bpe(vocab, {}, {}), "a\u4e2d\u00e9a"), (std::vector<int32_t>{1, 1}));
  EXPECT_EQ(encode(Bpe(vocab, {}, {.unknown = 0}), "a\u4e2d\u00e9a"), (std::vector<int32_t>{1, 0, 0, 1}));
  EXPECT_EQ(encode(Bpe(vocab, {}, {.unknown = 0, .fuse_unknown = true}), "a\u4e2d\u00e9a"), (std::vector<int32_t>{1, 0, 1}));
  EXPECT_EQ(encode(Bpe(vocab, {}, {.unknown = 0, .byte_fallback = true}), "a\u4e2d\u00e9a"),
            (std::vector<int32_t>{1, 2, 3, 0, 1}));
}

TEST(Bpe, WholeWordsWinWhenMergesAreIgnored) {
  const Vocabulary vocab = vocabulary({"a", "b", "ab", "abb"});
  const std::vector<Merge> merges = {{0, 1, 2}};
  EXPECT_EQ(encode(Bpe(vocab, merges, {}), "abb"), (std::vector<int32_t>{2, 1}));
  EXPECT_EQ(encode(Bpe(vocab, merges, {.ignore_merges = true}), "abb"), (std::vector<int32_t>{3}));
}

TEST(Bpe, PrefixAndSuffixMarkThePlacesInAWord) {
  const Vocabulary vocab = vocabulary({"a", "##b", "##b</w>", "ab</w>", "##bb</w>"});
  const Bpe bpe(vocab, {{0, 2, 3}, {1, 2, 4}}, {.subword_prefix = "##", .word_suffix = "</w>"});
  EXPECT_EQ(encode(bpe, "ab"), (std::vector<int32_t>{3}));
  EXPECT_EQ(encode(bpe, "abb"), (std::vector<int32_t>{0, 4}));
}

TEST(Bpe, CutsBeforeMarksOnlyIfNoMergeReachesOverThem) {
  const std::string mark = "\u2581";
  const auto parts = [&](const Vocabulary& vocab, std::vector<Merge> merges) {
    std::vector<std::string> out;
    const Bpe bpe(vocab, std::move(merges), {});
    bpe.each_part("a" + mark + mark + "b" + mark + "a", [&](std::string_view part) { out.emplace_back(part); });
    return out;
  };
  const Vocabulary vocab = vocabulary({mark, "a", mark + mark, mark + "a", "a" + mark});
  EXPECT_EQ(parts(vocab, {{0, 0, 2}, {0, 1, 3}}), (std::vector<std::string>{"a", mark + mark + "b", mark + "a"}));
  EXPECT_EQ(parts(vocab, {{1, 0, 4}}).size(), 1u);
}

TEST(Bpe, MergesFromScoresTakeTheBestFirstAndSkipSpecialTokens) {
  const Vocabulary vocab = vocabulary({"<s>", "a", "b", "ab", "aab", "aa"});
  const std::vector<float> scores = {0, -9, -9, -2, -1, -3};
  const std::vector<Merge> merges = merges_from_scores(vocab, scores, {false, true, true, true, true, true});
  // aab = aa + b before a + ab (the longer left part first), then ab, then aa.
  ASSERT_EQ(merges.size(), 4u);
  EXPECT_EQ(merges[0].left, 5);
  EXPECT_EQ(merges[1].right, 3);
  EXPECT_EQ(merges[2].whole, 3);
  EXPECT_EQ(merges[3].whole, 5);
}

TEST(WordPiece, TakesTheLongestTokensFromTheLeft) {
  const Vocabulary vocab = vocabulary({"[UNK]", "un", "##aff", "##able", "##a", "una", "\u4e2d", "##\u4e2d"});
  const WordPiece model(vocab, {.unknown = 0});
  EXPECT_EQ(encode(model, "unaffable"), (std::vector<int32_t>{0}));  // "una" is longest, then nothing fits: the word is unknown
  EXPECT_EQ(encode(model, "unable"), (std::vector<int32_t>{0}));
  EXPECT_EQ(encode(model, "unaa\u4e2d"), (std::vector<int32_t>{5, 4, 7}));
  EXPECT_EQ(encode(model, "\u4e2d\u4e2d"), (std::vector<int32_t>{6, 7}));
}

TEST(WordPiece, LongWordsAreUnknown) {
  const Vocabulary vocab = vocabulary({"[UNK]", "a", "##a"});
  const WordPiece model(vocab, {.unknown = 0});
  EXPECT_EQ(encode(model, std::string(100, 'a')).size(), 100u);
  EXPECT_EQ(encode(model, std::string(101, 'a')), (std::vector<int32_t>{0}));
}

TEST(Vocabulary, RefusesRepeatedAndImpossibleEntries) {
  const auto make = [](std::vector<std::pair<std::string, int64_t>> entries) {
    TokenList list;
    for (const auto& [token, id] : entries) list.add(token, id);
    return Vocabulary(std::move(list), "v.json");
  };
  EXPECT_THROW(make({{"a", 0}, {"b", 0}}), FormatError);
  EXPECT_THROW(make({{"a", 0}, {"a", 1}}), FormatError);
  EXPECT_THROW(make({{"a", -1}}), FormatError);
  EXPECT_THROW(make({{"a", int64_t{1} << 40}}), FormatError);
  EXPECT_THROW(make({{"\xff", 0}}), FormatError);
  const Vocabulary gaps = make({{"a", 7}, {"", 2}});
  EXPECT_EQ(gaps.size(), 8);
  EXPECT_EQ(gaps.find("a"), 7);
  EXPECT_EQ(gaps.find(""), 2);
  EXPECT_EQ(gaps.find("b"), -1);
  EXPECT_FALSE(gaps.has(0));
}

}  // namespace
}  // namespace lighten::formats
