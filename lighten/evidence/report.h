// A self-contained HTML page: text, tables, plots. Opens on a phone, in dark mode, on paper and without a network.
#pragma once
#include <string>
#include <vector>

#include "lighten/base/file.h"
#include "lighten/base/table.h"
#include "lighten/evidence/plot.h"

namespace lighten {

/// A statement that a run supports or not; margin is relative and positive where it holds.
struct Claim {
  std::string text;
  bool holds = false;
  double margin = 0;
  std::vector<double> paired;  ///< the margin of each seed, may be empty
};

/// Builds the page from top to bottom.
class Report {
 public:
  /// `lead`: one or two sentences under the title.
  Report(std::string title, std::string lead = "");
  Report& heading(const std::string& text);
  Report& paragraph(const std::string& text);
  Report& code(const std::string& text);
  /// First column to the left, numbers to the right. `highlight`: index of a row to set off, -1 for none.
  Report& table(const std::string& caption, const std::vector<std::string>& header,
                const std::vector<std::vector<std::string>>& rows, int highlight = -1);
  Report& claims(const std::vector<Claim>& claims);
  /// A row of large figures: {value, what it is}.
  Report& figures(const std::vector<std::pair<std::string, std::string>>& figures);
  Report& plot(const Plot& plot);
  Report& question_and_answer(const std::string& question, const std::string& answer);
  std::string html() const;
  void write(const fs::path& path) const;  ///< atomically

 private:
  std::string title_, lead_, body_;
  int plots_ = 0;
};

/// A plot as an SVG file that stands alone (with its own colours, light and dark), `width` CSS pixels wide: for documents.
std::string svg_document(const Plot& plot, double width);

}  // namespace lighten
