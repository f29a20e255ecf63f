#include "lighten/evidence/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace lighten {
namespace {

constexpr double kFont = 13;
constexpr int kColours = 7;

double text_width(const std::string& text, double size = kFont) {
  size_t characters = 0;
  for (const char c : text) characters += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return 0.58 * size * static_cast<double>(characters);
}

std::string point(double v) { return fmt::format("{:.1f}", v); }

std::string text_at(double x, double y, const std::string& text, const std::string& anchor = "start",
                    const std::string& css = "") {
  return fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"{}\"{}>{}</text>\n", point(x), point(y), anchor,
                     css.empty() ? "" : " class=\"" + css + "\"", escape_html(text));
}

std::string line_from(double x1, double y1, double x2, double y2, const std::string& css) {
  return fmt::format("<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{}\"/>\n", point(x1), point(y1), point(x2),
                     point(y2), css);
}

/// Words broken into lines no wider than `width`.
std::vector<std::string> wrap(const std::string& text, double width, double size = kFont) {
  std::vector<std::string> lines;
  std::string line;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at), longer = line.empty() ? word : fmt::format("{} {}", line, word);
    if (!line.empty() && text_width(longer, size) > width) {
      lines.push_back(line);
      line = word;
    } else {
      line = longer;
    }
    at = end + 1;
  }
  if (!line.empty()) lines.push_back(line);
  return lines;
}

/// A value axis: maps values to pixels.
struct Axis {
  double low = 0, high = 1, from = 0, to = 1;
  bool logarithmic = false;
  std::vector<double> ticks;

  double forward(double v) const { return logarithmic ? std::log10(v) : v; }
  bool shows(double v) const { return std::isfinite(v) && (!logarithmic || v > 0); }
  double at(double v) const { return from + (forward(v) - forward(low)) / (forward(high) - forward(low)) * (to - from); }
};

Axis make_axis(const std::vector<double>& values, bool logarithmic, bool from_zero) {
  Axis axis;
  axis.logarithmic = logarithmic;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const double v : values) {
    if (!axis.shows(v)) continue;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  if (low > high) low = logarithmic ? 1 : 0, high = logarithmic ? 10 : 1;
  if (from_zero && !logarithmic) low = std::min(low, 0.0), high = std::max(high, 0.0);
  if (low == high) {
    if (logarithmic)
      low /= 2, high *= 2;
    else if (low == 0)
      high = 1;
    else
      low -= std::abs(low) * 0.1, high += std::abs(high) * 0.1;
  }
  const double margin = 0.06;
  if (logarithmic) {
    const double span = std::log10(high / low) * margin;
    low /= std::pow(10, span);
    high *= std::pow(10, span);
  } else {
    const double span = (high - low) * margin;
    if (!(from_zero && low == 0)) low -= span;
    if (!(from_zero && high == 0)) high += span;
  }
  axis.low = low;
  axis.high = high;
  axis.ticks = axis_ticks(low, high, logarithmic);
  return axis;
}

std::string marker(double x, double y, size_t series, const std::string& hint) {
  const std::string css = fmt::format("m s{}", series % kColours);
  const std::string title = "<title>" + escape_html(hint) + "</title>";
  const auto shape = [&](const std::string& body) { return body + title; };
  switch (series % 4) {
    case 0:
      return shape(fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"4.5\" class=\"{}\">", point(x), point(y), css)) + "</circle>\n";
    case 1:
      return shape(fmt::format("<rect x=\"{}\" y=\"{}\" width=\"8\" height=\"8\" class=\"{}\">", point(x - 4), point(y - 4),
                               css)) +
             "</rect>\n";
    case 2:
      return shape(fmt::format("<path d=\"M{} {}l5.5 9.5h-11z\" class=\"{}\">", point(x), point(y - 6), css)) + "</path>\n";
    default:
      return shape(fmt::format("<path d=\"M{} {}l5.5 5.5l-5.5 5.5l-5.5 -5.5z\" class=\"{}\">", point(x), point(y - 5.5), css)) +
             "</path>\n";
  }
}

/// Names and colours of the series in rows; returns its height.
double legend(std::string& out, const std::vector<Series>& series, Plot::Kind kind, double width, double top) {
  if (series.size() < 2 && kind != Plot::Kind::scatter) return 0;
  if (series.size() == 1 && series[0].name.empty()) return 0;
  double x = 4, y = top + 12;
  for (size_t i = 0; i < series.size(); ++i) {
    const double item = text_width(series[i].name) + 34;
    if (x > 4 && x + item > width) x = 4, y += 21;
    if (kind == Plot::Kind::bars)
      out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" rx=\"2\" class=\"m s{}\"/>\n", point(x),
                         point(y - 6), i % kColours);
    else if (kind == Plot::Kind::lines)
      out += fmt::format("<path d=\"M{0} {1}h18\" class=\"line l{2} d{3}\"/>\n", point(x - 3), point(y), i % kColours, i % 4);
    else
      out += marker(x + 6, y, i, series[i].name);
    out += text_at(x + 18, y + 4.5, series[i].name);
    x += item;
  }
  return y - top + 16;
}

std::string opening(const Plot& plot, double width, double height, const std::string& id) {
  return fmt::format(
      "<svg viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" role=\"img\" aria-labelledby=\"{2}\" "
      "font-size=\"{3}\">\n<title id=\"{2}\">{4}</title>\n",
      point(width), point(height), id, kFont, escape_html(plot.title));
}

struct Box {
  double x, y, w, h;
  bool overlaps(const Box& o) const { return x < o.x + o.w && o.x < x + w && y < o.y + o.h && o.y < y + h; }
};

/// Labels beside their points: each takes the nearest place where it covers nothing, with a thin line to its point if that is
/// far; a label that finds no place is left out (the point's tooltip and the legend still name it).
std::string place_labels(const std::vector<std::tuple<double, double, std::string>>& points, const Box& area) {
  std::vector<Box> taken;
  taken.reserve(2 * points.size());
  for (const auto& [x, y, label] : points) taken.push_back({x - 6, y - 6, 12, 12});
  std::string out;
  for (const auto& [x, y, label] : points) {
    if (label.empty()) continue;
    const double w = text_width(label), h = kFont + 2;
    const auto free = [&](const Box& box) {
      const bool inside = box.x >= area.x && box.x + w <= area.x + area.w && box.y >= area.y && box.y + h <= area.y + area.h;
      return inside && std::none_of(taken.begin(), taken.end(), [&](const Box& t) { return t.overlaps(box); });
    };
    bool placed = false;
    for (double distance = 8; distance < 110 && !placed; distance += 7)
      for (const auto& [dx, dy] :
           {std::pair{1.0, 0.0}, {-1.0, 0.0}, {0.0, -1.0}, {0.0, 1.0}, {0.8, -0.7}, {0.8, 0.7}, {-0.8, -0.7}, {-0.8, 0.7}}) {
        // The nearest edge of the box stands `distance` away from the point in direction (dx, dy).
        const double edge_x = x + dx * distance, edge_y = y + dy * distance;
        const Box box{dx > 0   ? edge_x
                      : dx < 0 ? edge_x - w
                               : x - w / 2,
                      dy > 0   ? edge_y
                      : dy < 0 ? edge_y - h
                               : y - h / 2,
                      w, h};
        if (!free(box)) continue;
        taken.push_back(box);
        if (distance > 15)
          out += line_from(x + 6 * dx, y + 6 * dy, dx == 0 ? x : edge_x,
                           dy == 0  ? y
                           : dy > 0 ? box.y + 2
                                    : box.y + h - 2,
                           "axis");
        out += text_at(dx > 0   ? box.x
                       : dx < 0 ? box.x + w
                                : x,
                       box.y + h - 4, label,
                       dx > 0   ? "start"
                       : dx < 0 ? "end"
                                : "middle",
                       "label");
        placed = true;
        break;
      }
  }
  return out;
}

std::string hint_of(const Series& s, size_t i) {
  std::string hint = s.name;
  if (i < s.labels.size() && !s.labels[i].empty()) hint += (hint.empty() ? "" : ": ") + s.labels[i];
  return fmt::format("{} ({}, {})", hint, axis_number(s.x[i]), axis_number(s.y[i]));
}

std::string xy_plot(const Plot& plot, double width, const std::string& id) {
  std::vector<double> xs, ys;
  for (const Series& s : plot.series)
    for (size_t i = 0; i < std::min(s.x.size(), s.y.size()); ++i) {
      xs.push_back(s.x[i]);
      const double e = i < s.error.size() && std::isfinite(s.error[i]) ? s.error[i] : 0;
      ys.push_back(s.y[i] - e);
      ys.push_back(s.y[i] + e);
    }
  Axis x = make_axis(xs, plot.log_x, false), y = make_axis(ys, plot.log_y, false);
  std::string body;
  double top = legend(body, plot.series, plot.kind, width, 4) + 6;
  body += text_at(2, top + 12, plot.y_label, "start", "quiet");
  top += 26;
  double tick_width = 0;
  for (const double t : y.ticks) tick_width = std::max(tick_width, text_width(axis_number(t)));
  const double left = tick_width + 12, right = width - 10, bottom = top + std::clamp(width * 0.45, 250.0, 340.0),
               height = bottom + 46;
  x.from = left;
  x.to = right;
  y.from = bottom;
  y.to = top;
  for (const double t : y.ticks) {
    body += line_from(left, y.at(t), right, y.at(t), "grid");
    body += text_at(left - 6, y.at(t) + 4.5, axis_number(t), "end", "quiet");
  }
  double last = -1e9;
  for (const double t : x.ticks) {
    const double w = text_width(axis_number(t)), at = std::clamp(x.at(t), left + w / 2 - 8, right - w / 2 + 4);
    if (at - w / 2 < last + 8) continue;
    last = at + w / 2;
    body += line_from(x.at(t), bottom, x.at(t), bottom + 4, "axis");
    body += text_at(at, bottom + 19, axis_number(t), "middle", "quiet");
  }
  body += line_from(left, bottom, right, bottom, "axis");
  body += text_at((left + right) / 2, bottom + 39, plot.x_label, "middle", "quiet");
  std::vector<std::tuple<double, double, std::string>> labels;
  std::string markers;
  for (size_t k = 0; k < plot.series.size(); ++k) {
    const Series& s = plot.series[k];
    std::string path;
    for (size_t i = 0; i < std::min(s.x.size(), s.y.size()); ++i) {
      if (!x.shows(s.x[i]) || !y.shows(s.y[i])) continue;
      const double px = x.at(s.x[i]), py = y.at(s.y[i]);
      path += fmt::format("{}{} {}", path.empty() ? "M" : "L", point(px), point(py));
      if (i < s.error.size() && s.error[i] > 0 && y.shows(s.y[i] - s.error[i]))
        markers +=
            line_from(px, y.at(s.y[i] - s.error[i]), px, y.at(s.y[i] + s.error[i]), fmt::format("whisker l{}", k % kColours));
      if (plot.kind == Plot::Kind::scatter || s.x.size() <= 16) markers += marker(px, py, k, hint_of(s, i));
      labels.emplace_back(px, py, i < s.labels.size() ? s.labels[i] : "");
    }
    if (plot.kind == Plot::Kind::lines && !path.empty())
      body += fmt::format("<path d=\"{}\" class=\"line l{} d{}\"/>\n", path, k % kColours, k % 4);
  }
  body += markers + place_labels(labels, {left, top, right - left, bottom - top});
  return opening(plot, width, height, id) + body + "</svg>\n";
}

std::string bar_plot(const Plot& plot, double width, const std::string& id) {
  std::vector<std::string> categories;
  std::vector<double> values;
  for (const Series& s : plot.series)
    for (size_t i = 0; i < s.y.size(); ++i) {
      const std::string category = i < s.labels.size() ? s.labels[i] : "";
      if (std::find(categories.begin(), categories.end(), category) == categories.end()) categories.push_back(category);
      const double e = i < s.error.size() && std::isfinite(s.error[i]) ? s.error[i] : 0;
      values.push_back(s.y[i] + e);
      values.push_back(s.y[i] - e);
    }
  Axis axis = make_axis(values, plot.log_y, true);
  std::string body;
  double y = legend(body, plot.series, plot.kind, width, 4) + 6;
  body += text_at(2, y + 12, plot.y_label, "start", "quiet");
  y += 24;
  const double top = y, thickness = 17;
  axis.from = 4;
  axis.to = width - 74;  // room for the figure behind the bar
  std::string bars;
  for (const std::string& category : categories) {
    if (!category.empty()) {
      for (const std::string& line : wrap(category, width - 8)) bars += text_at(4, y + 14, line), y += 17;
      y += 3;
    }
    for (size_t k = 0; k < plot.series.size(); ++k) {
      const Series& s = plot.series[k];
      for (size_t i = 0; i < s.y.size(); ++i) {
        if ((i < s.labels.size() ? s.labels[i] : "") != category) continue;
        if (!axis.shows(s.y[i])) {
          bars += text_at(8, y + 13, "not finite", "start", "quiet");
          y += thickness + 3;
          continue;
        }
        const double zero = plot.log_y ? axis.from : axis.at(0), end = axis.at(s.y[i]), e = i < s.error.size() ? s.error[i] : 0;
        bars += fmt::format(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"2\" class=\"m s{}\"><title>{}</title></rect>\n",
            point(std::min(zero, end)), point(y), point(std::max(1.0, std::abs(end - zero))), point(thickness), k % kColours,
            escape_html(fmt::format("{} {}: {}", s.name, category, axis_number(s.y[i]))));
        double right = std::max(end, zero);
        if (e > 0 && axis.shows(s.y[i] - e)) {
          bars += line_from(axis.at(s.y[i] - e), y + thickness / 2, axis.at(s.y[i] + e), y + thickness / 2, "error");
          right = std::max(right, axis.at(s.y[i] + e));
        }
        bars += text_at(right + 6, y + thickness - 4, fmt::format("{}", axis_number(s.y[i])), "start", "label");
        y += thickness + 3;
      }
    }
    y += 8;
  }
  for (const double t : axis.ticks) body += line_from(axis.at(t), top, axis.at(t), y, "grid");
  double last = -1e9;
  for (const double t : axis.ticks) {
    const double w = text_width(axis_number(t)), at = std::max(axis.at(t), w / 2 + 1);
    if (at - w / 2 < last + 8) continue;
    last = at + w / 2;
    body += text_at(at, y + 15, axis_number(t), "middle", "quiet");
  }
  return opening(plot, width, y + 24, id) + body + bars + "</svg>\n";
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t')
      out += c;
  }
  return out;
}

std::string axis_number(double value) {
  if (!std::isfinite(value)) return std::string(std::isnan(value) ? "?" : value > 0 ? "infinite" : "-infinite");
  const double size = std::abs(value);
  if (size != 0 && (size < 1e-3 || size >= 1e7)) return fmt::format("{:.3g}", value);
  std::string text = size >= 1000  ? fmt::format("{:.0f}", value)
                     : size >= 100 ? fmt::format("{:.1f}", value)
                                   : fmt::format("{:.4g}", value);
  if (text.find('.') != std::string::npos) {
    while (text.back() == '0') text.pop_back();
    if (text.back() == '.') text.pop_back();
  }
  if (size >= 1000)
    for (int64_t at = static_cast<int64_t>(text.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3)
      text.insert(static_cast<size_t>(at), 1, ',');
  return text;
}

std::vector<double> axis_ticks(double low, double high, bool logarithmic, int wanted) {
  std::vector<double> ticks;
  if (logarithmic) {
    const double decades = std::log10(high / low);
    const std::vector<double> steps = decades > 4     ? std::vector<double>{1}
                                      : decades > 1.6 ? std::vector<double>{1, 3}
                                                      : std::vector<double>{1, 2, 5};
    const int stride = std::max(1, static_cast<int>(std::ceil(decades / 7)));
    for (int e = static_cast<int>(std::floor(std::log10(low))); e <= static_cast<int>(std::ceil(std::log10(high))); e += stride)
      for (const double s : steps)
        if (const double t = s * std::pow(10, e); t >= low && t <= high) ticks.push_back(t);
    if (ticks.size() >= 3) return ticks;
    ticks.clear();  // less than a decade: round numbers on the linear scale
  }
  const double raw = (high - low) / std::max(1, wanted), power = std::pow(10, std::floor(std::log10(raw)));
  double step = power * 10;
  for (const double s : {1.0, 2.0, 2.5, 5.0})
    if (s * power >= raw) {
      step = s * power;
      break;
    }
  for (int64_t i = static_cast<int64_t>(std::ceil(low / step - 1e-9)); static_cast<double>(i) * step <= high + step * 1e-9;
       ++i) {
    const double t = static_cast<double>(i) * step;
    if (!logarithmic || t > 0) ticks.push_back(t);
  }
  return ticks;
}

std::string to_svg(const Plot& plot, double width, const std::string& id) {
  return plot.kind == Plot::Kind::bars ? bar_plot(plot, width, id) : xy_plot(plot, width, id);
}

}  // namespace lighten
