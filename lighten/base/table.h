// Aligned text tables for people.
#pragma once
#include <string>
#include <vector>

namespace lighten {

/// Rows of cells, printed with aligned columns: the first column to the left, numbers to the right. UTF-8 widths are respected.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  std::string text() const;
  std::string markdown() const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace lighten
