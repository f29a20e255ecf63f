#include "lighten/data/markup.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>

namespace lighten {
namespace {

bool starts(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }
bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }

void append_utf8(std::string& out, uint32_t c) {
  if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return;
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xc0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 63));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xe0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 63));
    out += static_cast<char>(0x80 | (c & 63));
  } else {
    out += static_cast<char>(0xf0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 63));
    out += static_cast<char>(0x80 | ((c >> 6) & 63));
    out += static_cast<char>(0x80 | (c & 63));
  }
}

/// White space (no-break space and soft hyphen too) collapsed to single spaces, ends trimmed.
std::string collapse(std::string_view text) {
  std::string out;
  bool space = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (starts(text.substr(i), "\xc2\xad")) {
      ++i;
      continue;
    }
    const bool no_break = starts(text.substr(i), "\xc2\xa0");
    if (no_break || is_space(text[i])) {
      space = true;
      i += no_break;
      continue;
    }
    if (static_cast<unsigned char>(text[i]) < 0x20) continue;
    if (space && !out.empty()) out += ' ';
    space = false;
    out += text[i];
  }
  return out;
}

void add_paragraph(Paragraphs& paragraphs, std::string& text) {
  std::string clean = collapse(text);
  if (!clean.empty()) paragraphs.push_back(std::move(clean));
  text.clear();
}

uint32_t named_character(std::string_view name) {
  static const std::map<std::string_view, uint32_t> table = {
      {"amp", '&'},       {"lt", '<'},        {"gt", '>'},        {"quot", '"'},     {"apos", '\''},    {"nbsp", ' '},
      {"mdash", 0x2014},  {"ndash", 0x2013},  {"hellip", 0x2026}, {"lsquo", 0x2018}, {"rsquo", 0x2019}, {"ldquo", 0x201c},
      {"rdquo", 0x201d},  {"copy", 0xa9},     {"reg", 0xae},      {"times", 0xd7},   {"eacute", 0xe9},  {"agrave", 0xe0},
      {"ouml", 0xf6},     {"uuml", 0xfc},     {"auml", 0xe4},     {"szlig", 0xdf},   {"ccedil", 0xe7},  {"minus", 0x2212},
      {"le", 0x2264},     {"ge", 0x2265},     {"rarr", 0x2192},   {"larr", 0x2190},  {"sol", '/'},      {"verbar", '|'},
      {"lchevron", 0xab}, {"rchevron", 0xbb}, {"deg", 0xb0},      {"micro", 0xb5},   {"para", 0xb6},    {"sect", 0xa7},
  };
  const auto found = table.find(name);
  return found == table.end() ? 0 : found->second;
}

/// Decodes "&name;" or "&#NN;" at text[i] ('&'), moves i to its end; an unknown entity stays as it is.
void append_entity(std::string& out, std::string_view text, size_t& i) {
  const size_t end = text.find(';', i);
  if (end == std::string_view::npos || end - i > 12) {
    out += '&';
    return;
  }
  std::string_view name = text.substr(i + 1, end - i - 1);
  uint32_t code = 0;
  if (!name.empty() && name[0] == '#') {
    name.remove_prefix(1);
    const bool hexadecimal = !name.empty() && (name[0] == 'x' || name[0] == 'X');
    if (hexadecimal) name.remove_prefix(1);
    std::from_chars(name.data(), name.data() + name.size(), code, hexadecimal ? 16 : 10);
  } else {
    code = named_character(name);
  }
  if (code == 0) {
    out += '&';
    return;
  }
  append_utf8(out, code);
  i = end;
}

struct Tag {
  std::string name;
  bool closing = false, empty = false;
  std::string_view attributes;
};

/// Parses the tag at text[i] ('<') and moves i to its '>'. Comments and declarations give an empty name.
Tag read_tag(std::string_view text, size_t& i) {
  Tag tag;
  if (starts(text.substr(i), "<!--")) {
    const size_t end = text.find("-->", i + 4);
    i = end == std::string_view::npos ? text.size() - 1 : end + 2;
    return tag;
  }
  size_t end = i + 1;
  char quote = 0;
  while (end < text.size() && (quote || text[end] != '>')) {
    if (quote ? text[end] == quote : (text[end] == '"' || text[end] == '\'')) quote = quote ? 0 : text[end];
    ++end;
  }
  std::string_view body = text.substr(i + 1, std::min(end, text.size()) - i - 1);
  i = std::min(end, text.size() - 1);
  if (!body.empty() && body[0] == '/') {
    tag.closing = true;
    body.remove_prefix(1);
  }
  tag.empty = !body.empty() && body.back() == '/';
  size_t n = 0;
  while (n < body.size() && (std::isalnum(static_cast<unsigned char>(body[n])) || body[n] == ':')) ++n;
  tag.name = body.substr(0, n);
  std::transform(tag.name.begin(), tag.name.end(), tag.name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  tag.attributes = body.substr(n);
  return tag;
}

bool contains(const std::vector<std::string_view>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

Paragraphs paragraphs_of_html(std::string_view html) {
  static const std::vector<std::string_view> skipped = {"pre",    "table", "nav",  "script", "style", "header",
                                                        "footer", "aside", "head", "button", "math",  "svg"};
  static const std::vector<std::string_view> blocks = {"p",       "div", "ul", "ol", "dl", "li",   "dd",        "dt",
                                                       "section", "h1",  "h2", "h3", "h4", "body", "blockquote"};
  Paragraphs paragraphs;
  std::string text;
  bool inside = false;
  for (size_t i = 0; i < html.size(); ++i) {
    if (html[i] == '<') {
      const Tag tag = read_tag(html, i);
      if (contains(skipped, tag.name) && !tag.closing && !tag.empty) {  // jump behind the matching end
        if (tag.name == "script" || tag.name == "style") {              // raw text: only its own end tag counts
          const size_t end = html.find("</" + tag.name, i);
          i = end == std::string_view::npos ? html.size() : end - 1;
          continue;
        }
        int depth = 1;
        while (depth > 0 && ++i < html.size()) {
          if (html[i] != '<') continue;
          const Tag inner = read_tag(html, i);
          if (inner.name == tag.name && !inner.empty) depth += inner.closing ? -1 : 1;
        }
        continue;
      }
      if (contains(blocks, tag.name)) {
        add_paragraph(paragraphs, text);
        inside = tag.name == "p" && !tag.closing && !tag.empty;
      } else if (tag.name == "br") {
        text += ' ';
      }
    } else if (inside && html[i] == '&') {
      append_entity(text, html, i);
    } else if (inside) {
      text += html[i];
    }
  }
  add_paragraph(paragraphs, text);
  return paragraphs;
}

namespace {

std::string resolve_pod(std::string_view text);

/// What X<inner> stands for.
std::string pod_code(char letter, std::string_view inner) {
  if (letter == 'X' || letter == 'Z') return "";
  if (letter == 'E') {
    std::string out;
    uint32_t code = named_character(inner);
    if (code == 0) std::from_chars(inner.data(), inner.data() + inner.size(), code);
    append_utf8(out, code);
    return out;
  }
  if (letter != 'L') return resolve_pod(inner);
  if (const size_t bar = inner.find('|'); bar != std::string_view::npos) return resolve_pod(inner.substr(0, bar));
  const size_t slash = starts(inner, "http") ? std::string_view::npos : inner.find('/');
  std::string_view target = slash == std::string_view::npos ? inner : inner.substr(slash + 1);
  if (slash != std::string_view::npos && target.size() > 1 && target.front() == '"' && target.back() == '"')
    target = target.substr(1, target.size() - 2);
  std::string out = resolve_pod(target);
  if (slash != std::string_view::npos && slash > 0) out += " in " + std::string(inner.substr(0, slash));
  return out;
}

std::string resolve_pod(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!(text[i] >= 'A' && text[i] <= 'Z' && i + 1 < text.size() && text[i + 1] == '<')) {
      out += text[i];
      continue;
    }
    size_t open = i + 1, brackets = 0;
    while (open < text.size() && text[open] == '<') ++open, ++brackets;
    if (brackets > 1 && open < text.size() && is_space(text[open])) {  // C<< a > b >>
      std::string close(brackets + 1, '>');
      close[0] = ' ';
      const size_t end = text.find(close, open);
      if (end == std::string_view::npos) return out + std::string(text.substr(i));
      out += pod_code(text[i], text.substr(open + 1, end > open ? end - open - 1 : 0));
      i = end + close.size() - 1;
      continue;
    }
    size_t end = i + 2;
    for (int depth = 1; end < text.size(); ++end) {
      if (text[end] == '<' && std::isupper(static_cast<unsigned char>(text[end - 1])))
        ++depth;
      else if (text[end] == '>' && --depth == 0)
        break;
    }
    if (end >= text.size()) return out + std::string(text.substr(i));
    out += pod_code(text[i], text.substr(i + 2, end - i - 2));
    i = end;
  }
  return out;
}

}  // namespace

Paragraphs paragraphs_of_pod(std::string_view pod) {
  Paragraphs paragraphs;
  bool in_pod = false, in_block = false;
  for (size_t at = 0; at < pod.size();) {
    size_t end = pod.find("\n\n", at);
    if (end == std::string_view::npos) end = pod.size();
    std::string_view chunk = pod.substr(at, end - at);
    at = end + 2;
    while (!chunk.empty() && chunk.front() == '\n') chunk.remove_prefix(1);
    if (chunk.empty()) continue;
    if (chunk[0] == '=') {
      in_pod = !starts(chunk, "=cut");
      if (starts(chunk, "=begin")) in_block = true;
      if (starts(chunk, "=end")) in_block = false;
      continue;
    }
    if (!in_pod || in_block || is_space(chunk[0])) continue;
    std::string text = resolve_pod(chunk);
    add_paragraph(paragraphs, text);
  }
  return paragraphs;
}

namespace {

/// \fB, \-, \(em, \[em], \*(lq, \e, \& ... -> text.
std::string resolve_roff(std::string_view text) {
  static const std::map<std::string_view, std::string_view> named = {
      {"em", "\u2014"}, {"en", "\u2013"}, {"hy", "-"},      {"aq", "'"},      {"dq", "\""},     {"cq", "\u2019"},
      {"oq", "\u2018"}, {"lq", "\u201c"}, {"rq", "\u201d"}, {"bu", "\u2022"}, {"co", "\u00a9"}, {"rs", "\\"},
      {"ti", "~"},      {"ha", "^"},      {"ga", "`"},      {"la", "<"},      {"ra", ">"},      {"->", "\u2192"},
      {"mu", "\u00d7"}, {"+-", "\u00b1"}, {"<=", "\u2264"}, {">=", "\u2265"}, {"!=", "\u2260"}, {"mc", "\u00b5"},
      {"at", "@"},      {"sh", "#"},      {"Do", "$"},
  };
  std::string out;
  const auto append_named = [&](std::string_view name) {
    if (const auto found = named.find(name); found != named.end()) out += found->second;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 >= text.size()) {
      if (text[i] != '\\') out += text[i];
      continue;
    }
    const char c = text[++i];
    const auto bracketed = [&](size_t from) {
      const size_t end = text.find(']', from);
      const std::string_view name = text.substr(from, end == std::string_view::npos ? 0 : end - from);
      i = end == std::string_view::npos ? text.size() : end;
      return name;
    };
    if (c == '"') break;  // a comment
    if (c == '(') {
      append_named(text.substr(i + 1, 2));
      i += 2;
    } else if (c == '[') {
      append_named(bracketed(i + 1));
    } else if (c == '*' || c == 'f' || c == 'n') {
      std::string_view name;
      if (i + 1 < text.size() && text[i + 1] == '[')
        name = bracketed(i + 2);
      else if (i + 1 < text.size() && text[i + 1] == '(')
        name = text.substr(i + 2, 2), i += 3;
      else
        i += 1;
      if (c == '*') append_named(name);
    } else if (c == 's') {  // point size: \s-1, \s0
      if (i + 1 < text.size() && (text[i + 1] == '+' || text[i + 1] == '-')) ++i;
      while (i + 1 < text.size() && std::isdigit(static_cast<unsigned char>(text[i + 1]))) ++i;
    } else if (c == '-' || c == '.' || c == '\'' || c == '`') {
      out += c;
    } else if (c == 'e' || c == '\\') {
      out += '\\';
    } else if (c == ' ' || c == '~' || c == '0') {
      out += ' ';
    }  // \& \| \^ \/ \, \: \% \c print nothing
  }
  return out;
}

/// The arguments of a macro line; quotes group words.
std::vector<std::string> macro_arguments(std::string_view line) {
  std::vector<std::string> arguments;
  for (size_t i = 0; i < line.size();) {
    if (line[i] == ' ') {
      ++i;
      continue;
    }
    std::string argument;
    if (line[i] == '"') {
      for (++i; i < line.size(); ++i) {
        if (line[i] == '"' && i + 1 < line.size() && line[i + 1] == '"')
          argument += line[i++];
        else if (line[i] == '"')
          break;
        else
          argument += line[i];
      }
      ++i;
    } else {
      for (; i < line.size() && line[i] != ' '; ++i) {
        argument += line[i];
        if (line[i] == '\\' && i + 1 < line.size()) argument += line[++i];
      }
    }
    arguments.push_back(std::move(argument));
  }
  return arguments;
}

}  // namespace

Paragraphs paragraphs_of_man(std::string_view roff) {
  static const std::vector<std::string_view> left_out = {"NAME",     "SYNOPSIS",  "LIBRARY",  "ATTRIBUTES",
                                                         "VERSIONS", "STANDARDS", "SEE ALSO", "COLOPHON",
                                                         "AUTHOR",   "AUTHORS",   "COPYRIGHT"};
  static const std::vector<std::string_view> fonts = {"B", "I", "SB", "SM"};
  static const std::vector<std::string_view> alternating = {"BR", "BI", "IR", "IB", "RB", "RI"};
  Paragraphs paragraphs;
  std::string text;
  bool skip_section = true;
  int no_fill = 0;
  for (size_t at = 0; at < roff.size();) {
    size_t end = roff.find('\n', at);
    if (end == std::string_view::npos) end = roff.size();
    const std::string_view line = roff.substr(at, end - at);
    at = end + 1;
    if (line.empty()) {
      add_paragraph(paragraphs, text);
      continue;
    }
    if (line[0] != '.' && line[0] != '\'') {
      if (no_fill == 0 && !skip_section) text += resolve_roff(line) + " ";
      continue;
    }
    std::string_view rest = line.substr(1);
    while (!rest.empty() && rest[0] == ' ') rest.remove_prefix(1);
    const size_t space = std::min(rest.find(' '), rest.size());
    const std::string_view macro = rest.substr(0, space);
    std::vector<std::string> arguments = macro_arguments(rest.substr(space));
    if (macro == "nf" || macro == "EX" || macro == "TS" || macro == "SY") {
      add_paragraph(paragraphs, text);
      no_fill = 1;
    } else if (macro == "fi" || macro == "EE" || macro == "TE" || macro == "YS") {
      no_fill = 0;
    } else if (macro == "SH") {
      add_paragraph(paragraphs, text);
      std::string title;
      for (const std::string& word : arguments) title += (title.empty() ? "" : " ") + word;
      skip_section = contains(left_out, title);
      no_fill = 0;
    } else if (contains(fonts, macro) || contains(alternating, macro)) {
      if (no_fill || skip_section) continue;
      const bool joined = contains(alternating, macro);
      for (size_t i = 0; i < arguments.size(); ++i) text.append(i > 0 && !joined ? " " : "").append(resolve_roff(arguments[i]));
      text += ' ';
    } else if (macro == "TP" || macro == "TQ") {  // the tag line that follows is not prose
      add_paragraph(paragraphs, text);
      const size_t tag_end = roff.find('\n', at);
      at = tag_end == std::string_view::npos ? roff.size() : tag_end + 1;
    } else if (!starts(macro, "\\\"") && !macro.empty()) {
      add_paragraph(paragraphs, text);  // PP, P, IP, HP, SS, RS, br ...: a break
    }
  }
  add_paragraph(paragraphs, text);
  return paragraphs;
}

Paragraphs paragraphs_of_osis(std::string_view osis) {
  Paragraphs paragraphs;
  std::string text;
  for (size_t i = 0; i < osis.size(); ++i) {
    if (osis[i] == '<') {
      const Tag tag = read_tag(osis, i);
      if ((tag.name == "note" || tag.name == "title") && !tag.closing && !tag.empty) {
        const size_t end = osis.find("</" + tag.name + ">", i);
        i = end == std::string_view::npos ? osis.size() : end + tag.name.size() + 2;
        text += ' ';
      } else if (tag.name == "div" && tag.attributes.find("x-p\"") != std::string_view::npos) {
        add_paragraph(paragraphs, text);
      } else if (tag.name == "l" || tag.name == "lg" || tag.name == "lb") {
        text += ' ';
      }
    } else if (osis[i] == '&') {
      append_entity(text, osis, i);
    } else {
      text += osis[i];
    }
  }
  add_paragraph(paragraphs, text);
  return paragraphs;
}

std::string decode_entities(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '&')
      append_entity(decoded, text, i);
    else
      decoded += text[i];
  }
  return decoded;
}

bool is_prose(std::string_view paragraph, size_t least_bytes) {
  if (paragraph.size() < least_bytes || paragraph.size() > 6000) return false;
  size_t letters = 0, symbols = 0, words = 0, other = 0;
  for (size_t i = 0; i < paragraph.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(paragraph[i]);
    if (std::isalpha(c))
      ++letters;
    else if (c == ' ')
      ++words;
    else if (c >= 0x80)
      ++other;
    else if (std::string_view("{}[]<>=_|\\$#@*~^+%&/`").find(paragraph[i]) != std::string_view::npos)
      ++symbols;
  }
  const double n = static_cast<double>(paragraph.size());
  const unsigned char first = static_cast<unsigned char>(paragraph[0]);
  const char last = paragraph.back();
  const bool ends =
      std::string_view(".!?:)\"").find(last) != std::string_view::npos || static_cast<unsigned char>(last) >= 0x80;
  return ends && (std::isupper(first) || first == '"' || first >= 0x80) && static_cast<double>(letters) > 0.72 * n &&
         static_cast<double>(symbols)<0.03 * n&& static_cast<double>(other) < 0.05 * n&& static_cast<double>(words)> n / 12;
}

}  // namespace lighten
