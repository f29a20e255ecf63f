// Plots as inline SVG: lines, points with labels, bars with error bars. No script, no network, colours from CSS variables.
#pragma once
#include <string>
#include <vector>

namespace lighten {

/// One line, one kind of point, or one colour of bars.
struct Series {
  std::string name;
  std::vector<double> x, y;         ///< bars: x is not used
  std::vector<std::string> labels;  ///< of the points, may be empty; bars: the category of each value
  std::vector<double> error;        ///< half the length of the error bar of each y, may be empty
};

struct Plot {
  enum class Kind { lines, scatter, bars };
  Kind kind = Kind::lines;
  std::string title;    ///< one line above the plot
  std::string caption;  ///< below: what to see, where the data is from; may be empty
  std::string x_label, y_label;
  std::vector<Series> series;
  bool log_x = false, log_y = false;
};

/// The SVG element, `width` CSS pixels wide at its natural size. Values that are not finite (or not positive on a log axis) are
/// left out. `id` must be unique in the page (it names the title for screen readers).
std::string to_svg(const Plot& plot, double width, const std::string& id);

/// Positions of 3 to 8 round numbers (1, 2, 2.5 or 5 times a power of ten) that cover low..high; on a log axis powers of ten,
/// with 2 and 5 if few.
std::vector<double> axis_ticks(double low, double high, bool logarithmic, int wanted = 5);
/// "0.25", "1,500", "2e-05": short and unambiguous.
std::string axis_number(double value);
/// &, <, >, " replaced.
std::string escape_html(const std::string& text);

}  // namespace lighten
