#include "lighten/base/table.h"

#include <algorithm>

namespace lighten {
namespace {

/// Code points, which is what a terminal shows for the texts we print.
size_t width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

bool looks_like_number(const std::string& text) {
  return !text.empty() && (std::isdigit(static_cast<unsigned char>(text[0])) || text[0] == '-' || text[0] == '+' ||
                           text[0] == '<' || text[0] == '~');
}

}  // namespace

std::string Table::text() const {
  const size_t columns = header_.size();
  std::vector<size_t> widths(columns);
  std::vector<bool> right(columns, true);
  for (size_t c = 0; c < columns; ++c) {
    widths[c] = width(header_[c]);
    for (const auto& row : rows_)
      if (c < row.size()) {
        widths[c] = std::max(widths[c], width(row[c]));
        if (!row[c].empty() && !looks_like_number(row[c])) right[c] = false;
      }
    if (c == 0) right[c] = false;
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& row) {
    std::string text;
    for (size_t c = 0; c < columns; ++c) {
      const std::string cell = c < row.size() ? row[c] : "";
      const std::string pad(widths[c] - width(cell), ' ');
      text += (c ? "  " : "") + (right[c] ? pad + cell : cell + pad);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  };
  line(header_);
  size_t total = 0;
  for (size_t c = 0; c < columns; ++c) total += widths[c] + (c ? 2 : 0);
  out += std::string(total, '-') + "\n";
  for (const auto& row : rows_) line(row);
  return out;
}

std::string Table::markdown() const {
  std::string out = "|";
  for (const auto& cell : header_) out += " " + cell + " |";
  out += "\n|";
  for (size_t c = 0; c < header_.size(); ++c) out += "---|";
  out += "\n";
  for (const auto& row : rows_) {
    out += "|";
    for (size_t c = 0; c < header_.size(); ++c) out += " " + (c < row.size() ? row[c] : std::string()) + " |";
    out += "\n";
  }
  return out;
}

}  // namespace lighten
