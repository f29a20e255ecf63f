#include "lighten/data/graph_files.h"

#include <algorithm>
#include <map>

#include "lighten/base/error.h"
#include "lighten/base/options.h"
#include "lighten/base/progress.h"
#include "lighten/data/deb_sets.h"
#include "lighten/data/label_census.h"
#include "lighten/formats/csv.h"

namespace lighten {
namespace {

int64_t node_of(const CsvTable& table, int64_t row, size_t column, int64_t nodes) {
  const int64_t node = table.integer(row, column);
  if (node < 0 || node >= nodes)
    throw_error<FormatError>("{}: node {} does not exist; the features have {} rows (0 to {})", table.where(row), node, nodes,
                             nodes - 1);
  return node;
}

}  // namespace

EdgeList read_edges(const fs::path& file, int64_t nodes) {
  const CsvTable table = read_csv(file, {.separator = '\t', .header = false});
  if (table.rows[0].size() != 2)
    throw_error<FormatError>("{}: has {} columns; an edge is two node numbers separated by a tab", table.where(0),
                             table.rows[0].size());
  EdgeList list;
  std::vector<std::pair<int32_t, int32_t>> edges;
  for (int64_t i = 0; i < table.size(); ++i) {
    const int64_t a = node_of(table, i, 0, nodes), b = node_of(table, i, 1, nodes);
    if (a == b)
      ++list.self_loops;
    else
      edges.emplace_back(static_cast<int32_t>(std::min(a, b)), static_cast<int32_t>(std::max(a, b)));
  }
  std::sort(edges.begin(), edges.end());
  const auto given = std::ssize(edges);
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  list.repeats = given - std::ssize(edges);
  GraphSet graph;
  graph.nodes.texts.resize(static_cast<size_t>(nodes));
  set_edges(graph, std::move(edges));
  list.row_begin = std::move(graph.row_begin);
  list.neighbours = std::move(graph.neighbours);
  for (int64_t i = 0; i < nodes; ++i)
    list.isolated += list.row_begin[static_cast<size_t>(i)] == list.row_begin[static_cast<size_t>(i) + 1];
  return list;
}

NodeLabels read_node_labels(const fs::path& file, int64_t nodes) {
  const CsvTable table = read_table(file);
  const size_t id = table.column("id"), label = table.column("label");
  std::map<std::string, int32_t> classes;
  LabelCensus census;
  for (int64_t i = 0; i < table.size(); ++i) {
    if (table.text(i, label).empty()) throw_error<FormatError>("{}: the label is empty", table.where(i));
    classes[table.text(i, label)] = 0;
    census.add(table.text(i, label), table.file, table.lines[static_cast<size_t>(i)]);
  }
  for (const std::string& column : table.columns)
    if (column != "id" && column != "label" && column != "split")
      warn(fmt::format("{}: column '{}' is not used (id, label and split are)", file.string(), column));
  if (!table.has("split"))
    info(fmt::format("{}: no column split; a tenth of the labels, by hash of the id, is for validation, none for test",
                     file.string()));
  NodeLabels result;
  for (auto& [name, number] : classes) {
    number = static_cast<int32_t>(result.class_names.size());
    result.class_names.push_back(name);
  }
  if (classes.size() < 2)
    throw_error<FormatError>("{}: all labels are '{}'; at least two classes are needed", file.string(), result.class_names[0]);
  result.labels.assign(static_cast<size_t>(nodes), -1);
  result.splits.assign(static_cast<size_t>(nodes), Split::test);
  int64_t training = 0;
  for (int64_t i = 0; i < table.size(); ++i) {
    const auto node = static_cast<size_t>(node_of(table, i, id, nodes));
    if (result.labels[node] >= 0) throw_error<FormatError>("{}: node {} has a label already", table.where(i), node);
    result.labels[node] = classes[table.text(i, label)];
    Split split = split_of(table.text(i, id), {.validation = 0.1, .test = 0});
    if (table.has("split")) {
      const std::string& name = table.text(i, table.column("split"));
      const std::vector<std::string> names = {"train", "validation", "test"};
      const auto it = std::find(names.begin(), names.end(), name);
      if (it == names.end()) throw_error<FormatError>("{}: {}", table.where(i), unknown_name_message("split", name, names));
      split = static_cast<Split>(it - names.begin());
    }
    result.splits[node] = split;
    training += split == Split::train;
  }
  census.warn_of_rare_classes();
  if (training == 0)
    throw_error<FormatError>("{}: no label is for training; column `split` must hold \"train\"", file.string());
  return result;
}

}  // namespace lighten
