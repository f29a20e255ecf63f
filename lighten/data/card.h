// The data card of a set: what is in it, counted from the set itself.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "lighten/data/dataset.h"

namespace lighten {

struct DataCard {
  std::vector<std::pair<std::string, std::string>> facts;  ///< "samples" -> "60,330 (train 42,301, ...)"
  std::vector<std::string> examples;                       ///< one line each
};

/// Of a data id whose files are in the cache; empty for models and plain texts.
DataCard data_card(const std::string& id);

/// The cards of the kinds of sets.
DataCard card_of(const TextSet& set);
DataCard card_of(const MultiLabelSet& set);
DataCard card_of(const GraphSet& set);
DataCard card_of(const PairSet& set);

}  // namespace lighten
