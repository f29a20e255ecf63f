// How often each label stands in the tables that people bring: a misspelt one would become a class of its own.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace lighten {

class LabelCensus {
 public:
  /// A label at a line of a file.
  void add(const std::string& label, const std::string& file, int64_t line);
  /// One warning that lists the classes with fewer than three labels (of many the first ten), where these stand, and the more
  /// frequent class that each may be a misspelling of; nothing if there are none.
  void warn_of_rare_classes() const;
  /// The warning; "" if there is none.
  std::string rare_classes() const;

 private:
  struct Count {
    int64_t number = 0;
    std::vector<std::pair<std::string, int64_t>> first;  ///< file and line of the first two
  };
  std::map<std::string, Count> counts_;
};

}  // namespace lighten
