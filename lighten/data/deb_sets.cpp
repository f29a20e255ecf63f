#include "lighten/data/deb_sets.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "lighten/base/error.h"
#include "lighten/base/options.h"
#include "lighten/data/packages.h"

namespace lighten {
namespace {

using Records = std::vector<const DebianRecord*>;

/// The first record by name of every description.
Records distinct(const std::vector<DebianRecord>& records) {
  Records kept;
  std::unordered_set<std::string_view> seen;
  for (const DebianRecord& record : records)
    if (seen.insert(record.body).second) kept.push_back(&record);
  return kept;
}

std::vector<Split> splits_of(const Records& records, const DataOptions& options) {
  std::vector<Split> splits;
  for (const DebianRecord* record : records) splits.push_back(split_of(record->source, {}, options.split_seed));
  return splits;
}

/// At most options.limit records of each split.
Records limited(const Records& records, const DataOptions& options) {
  if (options.limit <= 0) return records;
  std::vector<std::string> names;
  for (const DebianRecord* record : records) names.push_back(record->name);
  Records kept;
  for (const int64_t i : limit_samples(names, splits_of(records, options), options.limit))
    kept.push_back(records[static_cast<size_t>(i)]);
  return kept;
}

std::string text_of(const DebianRecord& record) { return record.synopsis + ".\n" + record.body; }

TextSet text_set(const Records& records, const std::vector<std::string>& sections, const DataOptions& options) {
  TextSet set;
  set.class_names = sections;
  for (const DebianRecord* record : records) {
    const auto at = std::lower_bound(sections.begin(), sections.end(), record->section);
    set.labels.push_back(static_cast<int32_t>(at - sections.begin()));
    set.ids.push_back(record->name);
    set.texts.push_back(text_of(*record));
    set.keys.push_back(record->source);
  }
  set.splits = splits_of(records, options);
  return set;
}

std::vector<std::string> all_sections(const Records& records) {
  std::set<std::string> sections;
  for (const DebianRecord* record : records) sections.insert(record->section);
  return {sections.begin(), sections.end()};
}

/// Fills `set` with the records that have at least one of the labels; labels_of(record) lists names.
template <typename LabelsOf, typename TextOf>
void fill(MultiLabelSet& set, const Records& all, const DataOptions& options, const LabelsOf& labels_of,
          const TextOf& sample_text) {
  std::unordered_map<std::string_view, int32_t> index;
  for (size_t i = 0; i < set.label_names.size(); ++i) index[set.label_names[i]] = static_cast<int32_t>(i);
  Records labelled;
  for (const DebianRecord* record : all) {
    const auto& names = labels_of(*record);
    if (std::any_of(names.begin(), names.end(), [&](const std::string& name) { return index.contains(name); }))
      labelled.push_back(record);
  }
  const Records records = limited(labelled, options);
  for (const DebianRecord* record : records) {
    std::vector<int32_t> labels;
    for (const std::string& name : labels_of(*record))
      if (const auto it = index.find(name); it != index.end()) labels.push_back(it->second);
    std::sort(labels.begin(), labels.end());
    set.labels.push_back(std::move(labels));
    set.ids.push_back(record->name);
    set.texts.push_back(sample_text(*record));
    set.keys.push_back(record->source);
  }
  set.splits = splits_of(records, options);
}

bool word_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || (static_cast<unsigned char>(c) & 0x80) != 0;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

}  // namespace

std::vector<DebianRecord> debian_records(bool fetch) {
  const fs::path file = data_path("deb-text", fetch) / "packages.tsv";
  const MappedFile mapped(file);
  return debian_from_tsv({reinterpret_cast<const char*>(mapped.data()), mapped.size()}, file.string());
}

TextSet deb_text_from(const std::vector<DebianRecord>& records, const DataOptions& options) {
  const Records all = distinct(records);
  return text_set(limited(all, options), all_sections(all), options);
}

MultiLabelSet deb_tag_from(const std::vector<DebianRecord>& records, const DataOptions& options, int64_t least_samples) {
  const Records all = distinct(records);
  const std::vector<Split> splits = splits_of(all, options);
  std::map<std::string, int64_t> count;  // in training data alone
  for (size_t i = 0; i < all.size(); ++i)
    if (splits[i] == Split::train)
      for (const std::string& tag : all[i]->tags) ++count[tag];
  MultiLabelSet set;
  for (const auto& [tag, samples] : count)
    if (samples >= least_samples) {
      set.label_names.push_back(tag);
      set.label_texts.push_back(tag_text(tag));
    }
  fill(
      set, all, options, [](const DebianRecord& record) -> const auto& { return record.tags; }, text_of);
  return set;
}

MultiLabelSet deb_xml_from(const std::vector<DebianRecord>& records, const DataOptions& options) {
  const Records all = distinct(records);
  std::map<std::string, const DebianRecord*> by_name;
  for (const DebianRecord& record : records) by_name[record.name] = &record;
  std::map<std::string, int64_t> count;
  for (const DebianRecord* record : all)
    for (const std::string& name : record->depends)
      if (by_name.contains(name)) ++count[name];
  MultiLabelSet set;
  for (const auto& [name, samples] : count)
    if (samples >= 2) {
      set.label_names.push_back(name);
      set.label_texts.push_back(name + ": " + by_name[name]->synopsis);
    }
  fill(
      set, all, options, [](const DebianRecord& record) -> const auto& { return record.depends; },
      [](const DebianRecord& record) { return without_words(text_of(record), name_tokens(record)); });
  return set;
}

GraphSet deb_graph_from(const std::vector<DebianRecord>& records, const DataOptions& options) {
  const Records all = distinct(records), kept = limited(all, options);
  GraphSet graph;
  graph.nodes = text_set(kept, all_sections(all), options);
  std::unordered_map<std::string_view, int32_t> by_body, by_name;
  for (size_t i = 0; i < kept.size(); ++i) by_body[kept[i]->body] = static_cast<int32_t>(i);
  for (const DebianRecord& record : records)
    if (const auto it = by_body.find(record.body); it != by_body.end()) by_name[record.name] = it->second;
  std::vector<std::pair<int32_t, int32_t>> edges;
  for (const DebianRecord& record : records) {
    const auto from = by_name.find(record.name);
    if (from == by_name.end()) continue;
    for (const auto* names : {&record.depends, &record.suggests})
      for (const std::string& name : *names)
        if (const auto to = by_name.find(name); to != by_name.end()) edges.emplace_back(from->second, to->second);
  }
  set_edges(graph, std::move(edges));
  return graph;
}

PairSet deb_pairs_from(const std::vector<DebianRecord>& records, const DataOptions& options) {
  const Records kept = limited(distinct(records), options);
  PairSet set;
  for (const DebianRecord* record : kept) {
    set.ids.push_back(record->name);
    set.queries.push_back(record->synopsis);
    set.documents.push_back(record->body);
    set.keys.push_back(record->source);
  }
  set.splits = splits_of(kept, options);
  return set;
}

TextSet deb_text_set(const DataOptions& options) { return deb_text_from(debian_records(options.fetch), options); }
MultiLabelSet deb_tag_set(const DataOptions& options) { return deb_tag_from(debian_records(options.fetch), options); }
MultiLabelSet deb_xml_set(const DataOptions& options) { return deb_xml_from(debian_records(options.fetch), options); }
GraphSet deb_graph_set(const DataOptions& options) { return deb_graph_from(debian_records(options.fetch), options); }
PairSet deb_pairs_set(const DataOptions& options) { return deb_pairs_from(debian_records(options.fetch), options); }

std::vector<std::string> name_tokens(const DebianRecord& record) {
  std::set<std::string> tokens;
  for (const std::string* name : {&record.name, &record.source}) {
    for (size_t at = 0; at < name->size();) {
      size_t end = at;
      while (end < name->size() && word_character((*name)[end])) ++end;
      std::string token = lower(std::string_view(*name).substr(at, end - at));
      const auto add = [&](const std::string& word) {
        if (word.size() >= 2) tokens.insert(word);
      };
      add(token);
      if (token.starts_with("lib")) add(token.substr(3));
      while (!token.empty() && std::isdigit(static_cast<unsigned char>(token.back()))) token.pop_back();
      add(token);
      if (token.starts_with("lib")) add(token.substr(3));
      at = end + 1;
    }
  }
  return {tokens.begin(), tokens.end()};
}

std::string without_words(std::string_view text, const std::vector<std::string>& tokens) {
  const std::set<std::string> drop(tokens.begin(), tokens.end());
  std::string result;
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && word_character(text[end])) ++end;
    const std::string_view word = text.substr(at, end - at);
    if (!drop.contains(lower(word))) result += word;
    if (end < text.size()) result += text[end];
    at = end + 1;
  }
  return result;
}

std::string tag_text(std::string_view tag) {
  std::string text;
  for (size_t i = 0; i < tag.size(); ++i) {
    if (tag.substr(i, 2) == "::") {
      text += ": ";
      ++i;
    } else {
      text += tag[i] == '-' || tag[i] == ':' ? ' ' : tag[i];
    }
  }
  return text;
}

const std::vector<std::string>& topical_sections() {
  static const std::vector<std::string> sections = {"admin", "database", "electronics", "fonts", "games", "graphics", "mail",
                                                    "math",  "net",      "science",     "sound", "text",  "video",    "web"};
  return sections;
}

TextSet keep_classes(const TextSet& set, const std::vector<std::string>& names) {
  std::vector<int32_t> renamed(set.class_names.size(), -1);
  for (size_t i = 0; i < names.size(); ++i) {
    const auto at = std::find(set.class_names.begin(), set.class_names.end(), names[i]);
    if (at == set.class_names.end()) throw OptionError(unknown_name_message("class", names[i], set.class_names));
    renamed[static_cast<size_t>(at - set.class_names.begin())] = static_cast<int32_t>(i);
  }
  TextSet kept;
  kept.class_names = names;
  for (size_t i = 0; i < set.texts.size(); ++i) {
    const int32_t label = set.labels[i] < 0 ? -1 : renamed[static_cast<size_t>(set.labels[i])];
    if (label < 0) continue;
    kept.labels.push_back(label);
    kept.texts.push_back(set.texts[i]);
    if (!set.ids.empty()) kept.ids.push_back(set.ids[i]);
    if (!set.keys.empty()) kept.keys.push_back(set.keys[i]);
    if (!set.splits.empty()) kept.splits.push_back(set.splits[i]);
  }
  return kept;
}

void set_edges(GraphSet& graph, std::vector<std::pair<int32_t, int32_t>> edges) {
  const size_t given = edges.size();
  for (size_t i = 0; i < given; ++i) edges.emplace_back(edges[i].second, edges[i].first);
  std::erase_if(edges, [](const auto& edge) { return edge.first == edge.second; });
  std::sort(edges.begin(), edges.end());
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  graph.row_begin.assign(static_cast<size_t>(graph.nodes.size()) + 1, 0);
  graph.neighbours.clear();
  for (const auto& [from, to] : edges) {
    ++graph.row_begin[static_cast<size_t>(from) + 1];
    graph.neighbours.push_back(to);
  }
  for (size_t i = 1; i < graph.row_begin.size(); ++i) graph.row_begin[i] += graph.row_begin[i - 1];
}

namespace {

/// The edges i < j for which keep(i, j).
template <typename Keep>
std::vector<std::pair<int32_t, int32_t>> edges_of(const GraphSet& graph, const Keep& keep) {
  std::vector<std::pair<int32_t, int32_t>> edges;
  for (int64_t i = 0; i < graph.nodes.size(); ++i)
    for (int64_t at = graph.row_begin[static_cast<size_t>(i)]; at < graph.row_begin[static_cast<size_t>(i) + 1]; ++at) {
      const int32_t j = graph.neighbours[static_cast<size_t>(at)];
      if (i < j && keep(i, j)) edges.emplace_back(static_cast<int32_t>(i), j);
    }
  return edges;
}

}  // namespace

GraphSet subgraph(const GraphSet& graph, const std::vector<int64_t>& nodes) {
  std::vector<int32_t> place(static_cast<size_t>(graph.nodes.size()), -1);
  GraphSet result;
  const TextSet& from = graph.nodes;
  result.nodes.class_names = from.class_names;
  for (const int64_t node : nodes) {
    const auto i = static_cast<size_t>(node);
    place[i] = static_cast<int32_t>(result.nodes.texts.size());
    result.nodes.texts.push_back(from.texts[i]);
    if (!from.labels.empty()) result.nodes.labels.push_back(from.labels[i]);
    if (!from.ids.empty()) result.nodes.ids.push_back(from.ids[i]);
    if (!from.keys.empty()) result.nodes.keys.push_back(from.keys[i]);
    if (!from.splits.empty()) result.nodes.splits.push_back(from.splits[i]);
  }
  auto edges = edges_of(
      graph, [&](int64_t i, int64_t j) { return place[static_cast<size_t>(i)] >= 0 && place[static_cast<size_t>(j)] >= 0; });
  for (auto& [i, j] : edges) {
    i = place[static_cast<size_t>(i)];
    j = place[static_cast<size_t>(j)];
  }
  set_edges(result, std::move(edges));
  return result;
}

GraphSet without_hubs(const GraphSet& graph, int64_t degree) {
  const auto small = [&](int64_t i) {
    return graph.row_begin[static_cast<size_t>(i) + 1] - graph.row_begin[static_cast<size_t>(i)] <= degree;
  };
  GraphSet result = graph;
  set_edges(result, edges_of(graph, [&](int64_t i, int64_t j) { return small(i) && small(j); }));
  return result;
}

GraphSet deb_section_graph(const std::vector<DebianRecord>& records, const std::vector<std::string>& sections,
                           const DataOptions& options, int64_t hub_degree) {
  const GraphSet all = deb_graph_from(records, {.split_seed = options.split_seed});
  std::vector<int32_t> wanted;
  for (const std::string& name : all.nodes.class_names) {
    const auto at = std::find(sections.begin(), sections.end(), name);
    wanted.push_back(at == sections.end() ? -1 : static_cast<int32_t>(at - sections.begin()));
  }
  std::vector<std::string> ids;
  std::vector<Split> splits;
  std::vector<int64_t> members, kept;
  for (int64_t i = 0; i < all.nodes.size(); ++i) {
    const auto at = static_cast<size_t>(i);
    if (wanted[static_cast<size_t>(all.nodes.labels[at])] < 0) continue;
    members.push_back(i);
    ids.push_back(all.nodes.ids[at]);
    splits.push_back(all.nodes.splits[at]);
  }
  for (const int64_t i : limit_samples(ids, splits, options.limit)) kept.push_back(members[static_cast<size_t>(i)]);
  GraphSet graph = without_hubs(subgraph(all, kept), hub_degree);
  for (int32_t& label : graph.nodes.labels) label = wanted[static_cast<size_t>(label)];
  graph.nodes.class_names = sections;
  return graph;
}

}  // namespace lighten
