#include "lighten/data/card.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "lighten/data/captions.h"
#include "lighten/data/deb_sets.h"
#include "lighten/data/image_sets.h"

namespace lighten {
namespace {

std::string sizes(const std::vector<Split>& splits) {
  std::string text = fmt::format("{}", splits.size());
  const char* before = " (";
  for (const Split split : {Split::train, Split::validation, Split::test}) {
    text += fmt::format("{}{} {}", before, split_name(split), samples_of(splits, split).size());
    before = ", ";
  }
  return text + ")";
}

std::string lengths(const std::vector<std::string>& texts) {
  std::vector<size_t> bytes;
  bytes.reserve(texts.size());
  for (const std::string& text : texts) bytes.push_back(text.size());
  std::sort(bytes.begin(), bytes.end());
  if (bytes.empty()) return "none";
  return fmt::format("median {} bytes, 90 % below {}, longest {}", bytes[bytes.size() / 2], bytes[bytes.size() * 9 / 10],
                     bytes.back());
}

/// "libs 6711, libdevel 5581, ... (58)".
std::string frequencies(const std::vector<std::string>& names, const std::vector<int64_t>& counts) {
  std::vector<size_t> order(names.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return counts[a] > counts[b]; });
  std::string text = fmt::format("{}: ", names.size());
  for (size_t i = 0; i < std::min<size_t>(order.size(), 5); ++i)
    text += fmt::format("{} {}, ", names[order[i]], counts[order[i]]);
  if (!order.empty()) text += fmt::format("... {} {}", names[order.back()], counts[order.back()]);
  return text;
}

/// The beginning of a text on one line.
std::string shortened(const std::string& text, size_t bytes = 100) {
  std::string line;
  for (const char c : text) {
    if (line.size() >= bytes && (static_cast<unsigned char>(c) & 0xC0) != 0x80)
      return line + "...";  // never inside a character
    line += c == '\n' ? ' ' : c;
  }
  return line;
}

/// Four samples spread over the set.
std::vector<size_t> some(int64_t size) {
  std::vector<size_t> places;
  for (int64_t i = 0; i < 4 && size > 0; ++i) places.push_back(static_cast<size_t>((2 * i + 1) * size / 8));
  return places;
}

}  // namespace

DataCard card_of(const TextSet& set) {
  std::vector<int64_t> counts(set.class_names.size());
  for (const int32_t label : set.labels)
    if (label >= 0) ++counts[static_cast<size_t>(label)];
  DataCard card{
      {{"samples", sizes(set.splits)}, {"texts", lengths(set.texts)}, {"classes", frequencies(set.class_names, counts)}}, {}};
  for (const size_t i : some(set.size()))
    card.examples.push_back(
        fmt::format("{}: {}", set.class_names[static_cast<size_t>(set.labels[i])], shortened(set.texts[i])));
  return card;
}

DataCard card_of(const MultiLabelSet& set) {
  std::vector<int64_t> counts(set.label_names.size());
  int64_t positives = 0;
  for (const auto& labels : set.labels) {
    positives += static_cast<int64_t>(labels.size());
    for (const int32_t label : labels) ++counts[static_cast<size_t>(label)];
  }
  DataCard card{{{"samples", sizes(set.splits)},
                 {"texts", lengths(set.texts)},
                 {"labels", frequencies(set.label_names, counts)},
                 {"labels a sample", fmt::format("{:.2f}", static_cast<double>(positives) /
                                                               static_cast<double>(std::max<int64_t>(set.size(), 1)))}},
                {}};
  for (const size_t i : some(set.size())) {
    std::string names;
    for (const int32_t label : set.labels[i])
      names += (names.empty() ? "" : ", ") + set.label_names[static_cast<size_t>(label)];
    card.examples.push_back(fmt::format("{{{}}}: {}", shortened(names), shortened(set.texts[i])));
  }
  return card;
}

DataCard card_of(const GraphSet& set) {
  DataCard card = card_of(set.nodes);
  std::vector<int64_t> degrees;
  int64_t alike = 0;
  for (size_t i = 0; i + 1 < set.row_begin.size(); ++i) {
    degrees.push_back(set.row_begin[i + 1] - set.row_begin[i]);
    for (int64_t at = set.row_begin[i]; at < set.row_begin[i + 1]; ++at)
      alike += set.nodes.labels[i] == set.nodes.labels[static_cast<size_t>(set.neighbours[static_cast<size_t>(at)])];
  }
  std::sort(degrees.begin(), degrees.end());
  const auto ends = static_cast<double>(std::max<size_t>(set.neighbours.size(), 1));
  card.facts.emplace_back("edges", fmt::format("{} undirected", set.neighbours.size() / 2));
  if (!degrees.empty())
    card.facts.emplace_back(
        "neighbours", fmt::format("mean {:.1f}, median {}, most {}; {} nodes have none",
                                  static_cast<double>(set.neighbours.size()) / static_cast<double>(degrees.size()),
                                  degrees[degrees.size() / 2], degrees.back(), std::count(degrees.begin(), degrees.end(), 0)));
  card.facts.emplace_back("neighbours of one class", fmt::format("{:.1f} %", 100 * static_cast<double>(alike) / ends));
  return card;
}

DataCard card_of(const PairSet& set) {
  DataCard card{{{"pairs", sizes(set.splits)}, {"queries", lengths(set.queries)}, {"documents", lengths(set.documents)}}, {}};
  for (const size_t i : some(set.size()))
    card.examples.push_back(fmt::format("{} -> {}", shortened(set.queries[i], 60), shortened(set.documents[i])));
  return card;
}

DataCard card_of(const CaptionedSet& set) {
  DataCard card = card_of(set.pictures);
  std::vector<int64_t> counts(set.keyword_names.size());
  int64_t total = 0, named = 0;
  for (const auto& keywords : set.keywords) {
    total += static_cast<int64_t>(keywords.size());
    for (const int32_t k : keywords) ++counts[static_cast<size_t>(k)];
  }
  for (const std::string& caption : set.captions) named += caption.empty() ? 0 : 1;
  const auto n = static_cast<double>(std::max<int64_t>(set.pictures.size(), 1));
  card.facts.emplace_back("with a caption", fmt::format("{}", named));
  card.facts.emplace_back("keywords", frequencies(set.keyword_names, counts));
  card.facts.emplace_back("keywords a picture", fmt::format("{:.2f}", static_cast<double>(total) / n));
  for (const size_t i : some(set.pictures.size())) {
    std::string names;
    for (const int32_t k : set.keywords[i]) names += (names.empty() ? "" : ", ") + set.keyword_names[static_cast<size_t>(k)];
    card.examples.push_back(fmt::format("{}: {{{}}}", shortened(set.captions[i], 60), shortened(names)));
  }
  return card;
}

DataCard data_card(const std::string& id) {
  const DataOptions here{.fetch = false};
  if (id == "deb-text") return card_of(deb_text_set(here));
  if (id == "deb-tag") return card_of(deb_tag_set(here));
  if (id == "deb-xml") return card_of(deb_xml_set(here));
  if (id == "deb-graph") return card_of(deb_graph_set(here));
  if (id == "deb-pairs") return card_of(deb_pairs_set(here));
  const auto& captioned = captioned_set_ids();
  if (std::find(captioned.begin(), captioned.end(), id) != captioned.end()) return card_of(captioned_set(id, here));
  if (is_image_set(id)) return card_of(image_set(id, here));
  return {};
}

}  // namespace lighten
