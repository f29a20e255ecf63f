// Graphs that people bring: edges as TSV, labels of nodes as a table.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/data/dataset.h"

namespace lighten {

/// An undirected graph in compressed rows, and what was left out of the file.
struct EdgeList {
  std::vector<int64_t> row_begin;
  std::vector<int32_t> neighbours;
  int64_t self_loops = 0;  ///< dropped: the nets add their own
  int64_t repeats = 0;     ///< the same pair again, in either direction: counted once
  int64_t isolated = 0;    ///< nodes without a neighbour; they are kept and classified by their features alone
};
/// Two node numbers a line, separated by a tab; a node's number is its row in the features. Throws FormatError that names the
/// line: no number, a node that does not exist.
EdgeList read_edges(const fs::path& file, int64_t nodes);

/// Labels of some nodes.
struct NodeLabels {
  std::vector<int32_t> labels;  ///< [nodes], -1: none given
  std::vector<std::string> class_names;
  std::vector<Split> splits;  ///< [nodes], of labelled ones; from the column `split`, else a tenth by hash is validation
};
/// A table `id,label` or `id,label,split` (train, validation, test), id a row of the features. Throws FormatError that names
/// the line: a node that does not exist, twice the same node, another split; or a file with one class only, or with a split of
/// which no sample is for training. Warns of classes with fewer than three labels.
NodeLabels read_node_labels(const fs::path& file, int64_t nodes);

}  // namespace lighten
