// Five data sets of one source, the descriptions of Debian's packages. All are split by source package.
#pragma once
#include <string>
#include <vector>

#include "lighten/data/dataset.h"
#include "lighten/data/debian.h"

namespace lighten {

/// The records in the cache; fetched and built if they are not there and `fetch`.
std::vector<DebianRecord> debian_records(bool fetch = true);

/// Synopsis and description -> section (58 classes). Of packages with the same description only the first by name.
TextSet deb_text_set(const DataOptions& options = {});
/// Synopsis and description -> debtags that at least 20 training samples carry. Only tagged packages.
MultiLabelSet deb_tag_set(const DataOptions& options = {});
/// Synopsis and description, without the words of the package's own name, -> the packages it depends on or recommends. Labels
/// are packages that at least two samples need; a label's text is its name and synopsis.
MultiLabelSet deb_xml_set(const DataOptions& options = {});
/// The nodes of deb_text_set, joined where one names the other in Depends, Pre-Depends, Recommends, Suggests or Enhances. A
/// package that was left out because of its description is stood for by the one that was kept.
GraphSet deb_graph_set(const DataOptions& options = {});
/// Synopsis (query) -> description (document).
PairSet deb_pairs_set(const DataOptions& options = {});

/// The same from records, without the cache.
TextSet deb_text_from(const std::vector<DebianRecord>& records, const DataOptions& options);
MultiLabelSet deb_tag_from(const std::vector<DebianRecord>& records, const DataOptions& options, int64_t least_samples = 20);
MultiLabelSet deb_xml_from(const std::vector<DebianRecord>& records, const DataOptions& options);
GraphSet deb_graph_from(const std::vector<DebianRecord>& records, const DataOptions& options);
PairSet deb_pairs_from(const std::vector<DebianRecord>& records, const DataOptions& options);

/// The words of a package's name, and of its source's, that would give it away: "libfoo-bar2" -> libfoo, foo, bar.
std::vector<std::string> name_tokens(const DebianRecord& record);
/// `text` without the words (letters and digits) that are in `tokens`, case ignored.
std::string without_words(std::string_view text, const std::vector<std::string>& tokens);
/// "works-with::image:raster" -> "works with: image raster".
std::string tag_text(std::string_view tag);

/// The fourteen sections whose packages share a topic and not just a language or a role.
const std::vector<std::string>& topical_sections();

/// The samples whose class is one of `names`, with these classes in this order. Throws OptionError on an unknown name.
TextSet keep_classes(const TextSet& set, const std::vector<std::string>& names);
/// The induced graph on `nodes` (ascending).
GraphSet subgraph(const GraphSet& graph, const std::vector<int64_t>& nodes);
/// Without the edges that touch a node of more than `degree` neighbours.
GraphSet without_hubs(const GraphSet& graph, int64_t degree);

/// The packages of `sections` as a graph of their own, with these classes in this order: at most `limit` of each split (0:
/// all), without the edges of hubs of more than `hub_degree` neighbours.
GraphSet deb_section_graph(const std::vector<DebianRecord>& records, const std::vector<std::string>& sections,
                           const DataOptions& options, int64_t hub_degree = 500);

/// From undirected edges in any order; repeats and self loops are dropped.
void set_edges(GraphSet& graph, std::vector<std::pair<int32_t, int32_t>> edges);

}  // namespace lighten
