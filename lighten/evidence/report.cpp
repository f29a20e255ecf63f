#include "lighten/evidence/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace lighten {
namespace {

constexpr const char* kStyle = R"css(
:root{color-scheme:light dark;--bg:#ffffff;--card:#f5f6f8;--ink:#1c2126;--quiet:#5b6670;--line:#d9dee3;--accent:#0b63b0;--good:#14713a;--bad:#b3261e;
--c0:#0b63b0;--c1:#c4500b;--c2:#14805a;--c3:#9a3b8f;--c4:#8a6a00;--c5:#5b6670;--c6:#b3264a}
@media (prefers-color-scheme:dark){:root{--bg:#14181c;--card:#1e2429;--ink:#e6eaee;--quiet:#9aa6b2;--line:#343c44;--accent:#6db3f2;--good:#63c58a;--bad:#ff8a80;
--c0:#6db3f2;--c1:#ff9d5c;--c2:#5fcfa2;--c3:#df93d6;--c4:#e0c04f;--c5:#a7b2bd;--c6:#ff8fa8}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
main{max-width:860px;margin:0 auto;padding:28px 18px 60px}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .4rem}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem}
p{margin:.6rem 0}
.lead{color:var(--quiet);font-size:1.05rem;margin-bottom:1.4rem}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.93rem}
caption{caption-side:top;text-align:left;font-weight:600;padding-bottom:.4rem}
th,td{padding:.42rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}
th{color:var(--quiet);font-weight:600;white-space:normal;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--bg);padding-left:0}
tr.on td{background:var(--card);font-weight:600}
figure{margin:1.4rem 0}
figcaption{color:var(--quiet);font-size:.9rem;margin-top:.3rem}
.plot{font-weight:600;margin-bottom:.3rem}
svg{display:block;max-width:100%;height:auto;font-family:inherit}
svg text{fill:var(--ink)}svg .quiet{fill:var(--quiet)}svg .label{fill:var(--ink);paint-order:stroke;stroke:var(--bg);stroke-width:3px;stroke-linejoin:round}
svg .grid{stroke:var(--line);stroke-width:1}svg .axis{stroke:var(--quiet);stroke-width:1}svg .error{stroke:var(--ink);stroke-width:1.6}
svg .whisker{stroke-width:1.6}svg .m{stroke:var(--bg);stroke-width:1}svg .line{fill:none;stroke-width:2.2;stroke-linejoin:round}
.s0{fill:var(--c0)}.s1{fill:var(--c1)}.s2{fill:var(--c2)}.s3{fill:var(--c3)}.s4{fill:var(--c4)}.s5{fill:var(--c5)}.s6{fill:var(--c6)}
.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}.l2{stroke:var(--c2)}.l3{stroke:var(--c3)}.l4{stroke:var(--c4)}.l5{stroke:var(--c5)}.l6{stroke:var(--c6)}
.d1{stroke-dasharray:7 4}.d2{stroke-dasharray:2 4}.d3{stroke-dasharray:9 3 2 3}
.narrow{display:none}
@media (max-width:640px){.wide{display:none}.narrow{display:block}main{padding:20px 14px 48px}h1{font-size:1.45rem}}
.claims{list-style:none;padding:0;margin:1rem 0}
.claims li{display:flex;gap:.8rem;padding:.65rem .9rem;margin:.5rem 0;background:var(--card);border-left:4px solid var(--good);border-radius:4px}
.claims li.no{border-color:var(--bad)}
.claims b{flex:none;color:var(--good)}.claims .no b{color:var(--bad)}
.claims small{display:block;color:var(--quiet)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.8rem;margin:1.2rem 0}
.figures div{background:var(--card);border-radius:6px;padding:.8rem 1rem}
.figures strong{display:block;font-size:1.5rem;line-height:1.25}
.figures span{color:var(--quiet);font-size:.9rem}
pre{background:var(--card);padding:.8rem 1rem;border-radius:6px;overflow-x:auto;font-size:.87rem;line-height:1.45}
.chat{background:var(--card);border-radius:6px;padding:.2rem 1rem;margin:1rem 0}
.chat .who{color:var(--quiet);font-size:.85rem;margin-bottom:-.4rem}
.chat .says{white-space:pre-wrap}
@media print{.claims li,.figures div,pre,.chat{border:1px solid var(--line)}}
)css";

/// Blank lines part paragraphs; `words` between backticks are set as code.
std::string inline_text(const std::string& text) {
  std::string out;
  bool code = false;
  for (const char c : escape_html(text)) {
    if (c != '`') {
      out += c;
      continue;
    }
    out += code ? "</code>" : "<code>";
    code = !code;
  }
  return code ? out + "</code>" : out;
}

}  // namespace

Report::Report(std::string title, std::string lead) : title_(std::move(title)), lead_(std::move(lead)) {}

Report& Report::heading(const std::string& text) {
  body_ += "<h2>" + inline_text(text) + "</h2>\n";
  return *this;
}

Report& Report::paragraph(const std::string& text) {
  body_ += "<p>" + inline_text(text) + "</p>\n";
  return *this;
}

Report& Report::code(const std::string& text) {
  body_ += "<pre tabindex=\"0\">" + escape_html(text) + "</pre>\n";
  return *this;
}

Report& Report::table(const std::string& caption, const std::vector<std::string>& header,
                      const std::vector<std::vector<std::string>>& rows, int highlight) {
  body_ += "<div class=\"scroll\" tabindex=\"0\"><table>\n";
  if (!caption.empty()) body_ += "<caption>" + inline_text(caption) + "</caption>\n";
  body_ += "<thead><tr>";
  for (const std::string& cell : header) body_ += "<th scope=\"col\">" + inline_text(cell) + "</th>";
  body_ += "</tr></thead>\n<tbody>\n";
  for (size_t i = 0; i < rows.size(); ++i) {
    body_ += static_cast<int>(i) == highlight ? "<tr class=\"on\">" : "<tr>";
    for (const std::string& cell : rows[i]) body_ += "<td>" + inline_text(cell) + "</td>";
    body_ += "</tr>\n";
  }
  body_ += "</tbody></table></div>\n";
  return *this;
}

Report& Report::claims(const std::vector<Claim>& claims) {
  body_ += "<ul class=\"claims\">\n";
  for (const Claim& claim : claims) {
    std::string detail = fmt::format("margin {:+.1f} %", 100 * claim.margin);
    if (claim.paired.size() > 1) {
      detail += "; by seed";
      for (const double m : claim.paired) detail += fmt::format(" {:+.1f}", 100 * m);
      detail += " %";
    }
    body_ += fmt::format("<li{}><b>{}</b><span>{}<small>{}</small></span></li>\n", claim.holds ? "" : " class=\"no\"",
                         claim.holds ? "holds" : "fails", inline_text(claim.text), detail);
  }
  body_ += "</ul>\n";
  return *this;
}

Report& Report::figures(const std::vector<std::pair<std::string, std::string>>& figures) {
  body_ += "<div class=\"figures\">\n";
  for (const auto& [value, what] : figures)
    body_ += "<div><strong>" + escape_html(value) + "</strong><span>" + inline_text(what) + "</span></div>\n";
  body_ += "</div>\n";
  return *this;
}

Report& Report::plot(const Plot& plot) {
  const std::string id = fmt::format("plot{}", ++plots_);
  body_ += "<figure>\n<div class=\"plot\">" + inline_text(plot.title) + "</div>\n<div class=\"wide\">" + to_svg(plot, 820, id) +
           "</div>\n<div class=\"narrow\">" + to_svg(plot, 362, id + "n") + "</div>\n";
  if (!plot.caption.empty()) body_ += "<figcaption>" + inline_text(plot.caption) + "</figcaption>\n";
  body_ += "</figure>\n";
  return *this;
}

Report& Report::question_and_answer(const std::string& question, const std::string& answer) {
  body_ += "<div class=\"chat\"><p class=\"who\">You</p><p class=\"says\">" + escape_html(question) +
           "</p><p class=\"who\">Model</p><p class=\"says\">" + escape_html(answer) + "</p></div>\n";
  return *this;
}

std::string Report::html() const {
  std::string page =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n<title>" +
      escape_html(title_) + "</title>\n<style>" + kStyle + "</style>\n</head>\n<body>\n<main>\n<h1>" + inline_text(title_) +
      "</h1>\n";
  if (!lead_.empty()) page += "<p class=\"lead\">" + inline_text(lead_) + "</p>\n";
  return page + body_ + "</main>\n</body>\n</html>\n";
}

void Report::write(const fs::path& path) const { write_file(path, html()); }

std::string svg_document(const Plot& plot, double width) {
  std::string svg = to_svg(plot, width, "plot");
  const std::string tag = "<svg ";
  svg.replace(svg.find(tag), tag.size(), "<svg xmlns=\"http://www.w3.org/2000/svg\" ");
  const size_t inside = svg.find('>', svg.find(tag)) + 1;
  return svg.insert(inside, "<style>svg{font-family:sans-serif;background:var(--bg)}" + std::string(kStyle) + "</style>\n") +
         "\n";
}

}  // namespace lighten
