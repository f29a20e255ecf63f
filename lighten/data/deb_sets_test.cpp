#include "lighten/data/deb_sets.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "lighten/base/error.h"
#include "lighten/data/packages.h"

namespace lighten {
namespace {

constexpr const char* kAvailable = R"(Package: libfoo1
Source: foo (1.2-3)
Section: contrib/libs
Maintainer: A Person <a@b.c>
Depends: libc6 (>= 2.34), zlib1g [amd64] | zlib2, libfoo1
Recommends: foo-data:any
Suggests: bar
Description: reads foo files
 (only the synopsis counts here)
Description-md5: 11
Tag: role::shared-lib, works-with::image:raster,
 devel::lang:c

Package: bar
Section: games
Description: a game
Description-md5: 22

Package: no-long-text
Section: games
Description: nothing
Description-md5: 99
)";

constexpr const char* kTranslation = R"(Package: libfoo1
Description-md5: 11
Description-en: reads foo files
 Foo is a format
 of pictures.
 .
 It does:
  * one thing
 * another
 .
 libfoo2 differs.

Package: bar
Description-md5: 22
Description-en: a game
 Play Bar with	tabs \ and backslashes.
)";

TEST(Debian, ParsesStanzasAndJoinsLongDescriptions) {
  const auto records = parse_debian(kAvailable, {kTranslation});
  ASSERT_EQ(records.size(), 2u);  // by name; the one without a long description is left out
  EXPECT_EQ(records[0].name, "bar");
  EXPECT_EQ(records[0].source, "bar");
  const DebianRecord& foo = records[1];
  EXPECT_EQ(foo.source, "foo");
  EXPECT_EQ(foo.section, "libs");
  EXPECT_EQ(foo.maintainer, "A Person <a@b.c>");
  EXPECT_EQ(foo.synopsis, "reads foo files");
  EXPECT_EQ(foo.body, "Foo is a format of pictures.\n\nIt does:\n* one thing\n* another\n\nlibfoo2 differs.");
  EXPECT_EQ(foo.tags, (std::vector<std::string>{"devel::lang:c", "role::shared-lib", "works-with::image:raster"}));
  EXPECT_EQ(foo.depends, (std::vector<std::string>{"foo-data", "libc6", "zlib1g"}));  // itself left out, first alternatives
  EXPECT_EQ(foo.suggests, (std::vector<std::string>{"bar"}));
}

TEST(Debian, TsvComesBackUnchanged) {
  const auto records = parse_debian(kAvailable, {kTranslation});
  const auto again = debian_from_tsv(to_tsv(records), "t");
  ASSERT_EQ(again.size(), records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(again[i].name, records[i].name);
    EXPECT_EQ(again[i].body, records[i].body);
    EXPECT_EQ(again[i].tags, records[i].tags);
    EXPECT_EQ(again[i].depends, records[i].depends);
    EXPECT_EQ(again[i].suggests, records[i].suggests);
  }
  try {
    debian_from_tsv(to_tsv(records) + "a\tb\n", "file.tsv");
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("file.tsv: line 3"), std::string::npos) << error.what();
  }
}

TEST(DebSets, WordsOfTheNameGo) {
  DebianRecord record;
  record.name = "libfoo-bar2";
  record.source = "foo-x";
  EXPECT_EQ(name_tokens(record), (std::vector<std::string>{"bar", "bar2", "foo", "libfoo"}));
  EXPECT_EQ(without_words("Foo, food and libfoo; bar-Bar2.", name_tokens(record)), ", food and ; -.");
  EXPECT_EQ(tag_text("works-with::image:raster"), "works with: image raster");
}

DebianRecord record(const std::string& name, const std::string& source, const std::string& body,
                    const std::vector<std::string>& depends, const std::vector<std::string>& tags = {}) {
  DebianRecord r;
  r.name = name;
  r.source = source;
  r.section = "games";
  r.synopsis = "about " + name;
  r.body = body;
  r.depends = depends;
  r.tags = tags;
  return r;
}

TEST(DebSets, GraphLabelsAndTagsFromRecords) {
  // c2 repeats c's description: c stands for it, and inherits its edges.
  const std::vector<DebianRecord> records = {record("a", "a", "text a", {"b", "virtual"}), record("b", "b", "text b", {"a"}),
                                             record("c", "c", "text c", {}), record("c2", "c", "text c", {"b", "a"}),
                                             record("d", "d", "text d", {"b"})};
  const GraphSet graph = deb_graph_from(records, {});
  check_set(graph, "graph");
  EXPECT_EQ(graph.nodes.ids, (std::vector<std::string>{"a", "b", "c", "d"}));
  EXPECT_EQ(graph.row_begin, (std::vector<int64_t>{0, 2, 5, 7, 8}));
  EXPECT_EQ(graph.neighbours, (std::vector<int32_t>{1, 2, 0, 2, 3, 0, 1, 1}));
  const GraphSet without = without_hubs(graph, 2);
  EXPECT_EQ(without.neighbours, (std::vector<int32_t>{2, 0}));  // only a - c is left without b
  const GraphSet part = subgraph(graph, {1, 3});
  check_set(part, "part");
  EXPECT_EQ(part.nodes.ids, (std::vector<std::string>{"b", "d"}));
  EXPECT_EQ(part.neighbours, (std::vector<int32_t>{1, 0}));
  const MultiLabelSet xml = deb_xml_from(records, {});
  EXPECT_EQ(xml.label_names, (std::vector<std::string>{"b"}));  // the only one that two distinct texts need
  EXPECT_EQ(xml.label_texts, (std::vector<std::string>{"b: about b"}));
  EXPECT_EQ(xml.ids, (std::vector<std::string>{"a", "d"}));
  EXPECT_EQ(xml.texts[1], "about d.\ntext d");  // a name of one letter gives nothing away
}

TEST(DebSets, ALimitIsAFairSampleOfEverySide) {
  // Half of the ids are their own keys (as packages named like their source); a limit must not prefer either kind on any side.
  std::vector<std::string> ids, keys;
  std::vector<bool> own;
  for (int i = 0; i < 20000; ++i) {
    own.push_back(i % 2 == 0);
    keys.push_back(fmt::format("key{}", i));
    ids.push_back(own.back() ? keys.back() : fmt::format("another{}", i));
  }
  const std::vector<Split> splits = split_all(keys);
  const std::vector<int64_t> kept = limit_samples(ids, splits, 900);
  EXPECT_EQ(kept.size(), 2700u);
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    int64_t of_own = 0;
    for (const int64_t i : kept)
      if (splits[static_cast<size_t>(i)] == split) of_own += own[static_cast<size_t>(i)];
    EXPECT_NEAR(static_cast<double>(of_own), 450, 60) << split_name(split);  // four standard deviations of 15
  }
}

TEST(DebSets, KeepClassesRenumbers) {
  TextSet set;
  set.texts = {"x", "y", "z"};
  set.ids = {"1", "2", "3"};
  set.labels = {2, 0, 1};
  set.class_names = {"a", "b", "c"};
  const TextSet kept = keep_classes(set, {"c", "a"});
  EXPECT_EQ(kept.ids, (std::vector<std::string>{"1", "2"}));
  EXPECT_EQ(kept.labels, (std::vector<int32_t>{0, 1}));
  EXPECT_THROW(keep_classes(set, {"q"}), OptionError);
}

/// No source package on two sides, both with check_set and by hand.
template <typename Set>
void expect_split_by_source(const Set& set, const std::map<std::string, std::string>& source_of,
                            const std::vector<std::string>& ids, const std::vector<std::string>& keys,
                            const std::vector<Split>& splits, const char* name) {
  check_set(set, name);
  std::map<std::string, std::set<Split>> sides;
  std::array<int64_t, 3> count = {};
  for (size_t i = 0; i < ids.size(); ++i) {
    ASSERT_EQ(keys[i], source_of.at(ids[i])) << name;
    sides[keys[i]].insert(splits[i]);
    ++count[static_cast<size_t>(splits[i])];
  }
  for (const auto& [key, side] : sides) ASSERT_EQ(side.size(), 1u) << name << ": " << key;
  const auto total = static_cast<double>(ids.size());
  EXPECT_NEAR(static_cast<double>(count[2]) / total, 0.2, 0.02) << name;
  EXPECT_NEAR(static_cast<double>(count[1]) / total, 0.1, 0.02) << name;
}

TEST(DebSets, NoSourcePackageStandsOnBothSidesOfAnySet) {
  if (!data_present("deb-text")) GTEST_SKIP() << "lighten data get deb-text";
  const auto records = debian_records(false);
  std::map<std::string, std::string> source_of;
  for (const DebianRecord& r : records) source_of[r.name] = r.source;
  const TextSet text = deb_text_from(records, {});
  EXPECT_GT(text.size(), 50000);
  EXPECT_GT(text.class_names.size(), 50u);
  expect_split_by_source(text, source_of, text.ids, text.keys, text.splits, "deb-text");
  const MultiLabelSet tag = deb_tag_from(records, {});
  EXPECT_GT(tag.label_names.size(), 250u);
  expect_split_by_source(tag, source_of, tag.ids, tag.keys, tag.splits, "deb-tag");
  const MultiLabelSet xml = deb_xml_from(records, {});
  EXPECT_GT(xml.label_names.size(), 15000u);
  expect_split_by_source(xml, source_of, xml.ids, xml.keys, xml.splits, "deb-xml");
  const PairSet pairs = deb_pairs_from(records, {});
  expect_split_by_source(pairs, source_of, pairs.ids, pairs.keys, pairs.splits, "deb-pairs");
  const GraphSet graph = deb_graph_from(records, {});
  EXPECT_GT(graph.neighbours.size(), 400000u);
  expect_split_by_source(graph, source_of, graph.nodes.ids, graph.nodes.keys, graph.nodes.splits, "deb-graph");
  // A limit keeps the same samples on the same sides.
  const TextSet few = deb_text_from(records, {.limit = 100});
  EXPECT_EQ(few.size(), 300);
  const std::set<std::string> all(text.ids.begin(), text.ids.end());
  for (size_t i = 0; i < few.ids.size(); ++i) {
    EXPECT_TRUE(all.contains(few.ids[i]));
    EXPECT_EQ(few.splits[i], split_of(few.keys[i]));
  }
}

}  // namespace
}  // namespace lighten
