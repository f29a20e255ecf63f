#define PCRE2_CODE_UNIT_WIDTH 8
#include "lighten/formats/pretokenizer_regex.h"

#include <fmt/format.h>
#include <pcre2.h>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/unicode.h"

namespace lighten::formats {
namespace {

constexpr size_t kLongestPattern = 1 << 16;
constexpr std::string_view kSpaceRanges =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
constexpr std::string_view kNotSpaceRanges =
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}";

bool pcre_is_older_than_reference() {
  char version[32] = "";
  pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
  return std::atoi(version) < 16;
}

/// What must stand in a class beside \p{category}.
std::string newer_ranges(std::string_view category) {
  static const bool needed = pcre_is_older_than_reference();
  std::string out;
  if (!needed || category.empty() || category.size() > 2) return out;
  for (const NewerCategory& range : newer_categories())
    if (std::string_view(range.name).starts_with(category))
      out += fmt::format("\\x{{{:x}}}-\\x{{{:x}}}", range.first, range.last);
  return out;
}

/// Members of a class that stands for \w, \d, \s, \h or a property.
std::string members(char letter) {
  switch (letter) {
    case 's':
      return std::string(kSpaceRanges);
    case 'd':
      return "\\p{Nd}" + newer_ranges("Nd");
    case 'h':
      return "0-9a-fA-F";
    default:
      return "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe" + newer_ranges("L") + newer_ranges("M") +
             newer_ranges("Nd") + newer_ranges("Nl") + newer_ranges("Pc");
  }
}

class Translator {
 public:
  Translator(const std::string& pattern, const std::string& where) : in_(pattern), where_(where) {}

  std::string run() {
    while (at_ < in_.size()) step();
    return std::move(out_);
  }

 private:
  void step() {
    const char c = in_[at_];
    if (c == '\\' && at_ + 1 < in_.size()) return escape();
    if (c == '[') {
      if (in_class_ && !in_.substr(at_).starts_with("[:")) refuse("a character class within a character class");
      if (in_class_) {  // [:alpha:]
        const size_t end = in_.find(":]", at_);
        if (end == std::string_view::npos) refuse("[: without :]");
        out_ += in_.substr(at_, end + 2 - at_);
        at_ = end + 2;
        return;
      }
      in_class_ = true;
      copy(1);
      if (at_ < in_.size() && in_[at_] == '^') copy(1);
      if (at_ < in_.size() && in_[at_] == ']') copy(1);
      return;
    }
    if (in_class_ && in_.substr(at_).starts_with("&&")) refuse("an intersection of character classes (&&)");
    if (in_class_ && c == ']') in_class_ = false;
    copy(1);
  }

  void escape() {
    const char letter = in_[at_ + 1];
    const bool negative = letter == 'S' || letter == 'W' || letter == 'D' || letter == 'H';
    if (letter == 's' || letter == 'w' || letter == 'd' || letter == 'h' || negative) {
      const std::string inner = members(negative ? static_cast<char>(letter + 32) : letter);
      at_ += 2;
      if (!in_class_) {
        out_ += (negative ? "[^" : "[") + inner + "]";
      } else if (!negative) {
        out_ += inner;
      } else if (letter == 'S') {
        out_ += kNotSpaceRanges;
      } else {
        refuse(fmt::format("\\{} within a character class", letter));
      }
      return;
    }
    if (letter == 'p' || letter == 'P') return property(letter == 'P');
    copy(2);
  }

  void property(bool negative) {
    const size_t open = at_ + 2;
    const size_t close = open < in_.size() && in_[open] == '{' ? in_.find('}', open) : std::string_view::npos;
    if (close == std::string_view::npos) refuse("\\p without {name}");
    std::string_view name = in_.substr(open + 1, close - open - 1);
    if (name.starts_with("^")) {
      negative = !negative;
      name.remove_prefix(1);
    }
    at_ = close + 1;
    const std::string newer = newer_ranges(name);
    const std::string plain = fmt::format("\\{}{{{}}}", negative ? 'P' : 'p', name);
    if (newer.empty()) {
      out_ += plain;
    } else if (!in_class_) {
      out_ += fmt::format("{}\\p{{{}}}{}]", negative ? "[^" : "[", name, newer);
    } else {
      out_ += negative ? plain : plain + newer;
    }
  }

  void copy(size_t count) {
    out_ += in_.substr(at_, count);
    at_ += count;
  }
  [[noreturn]] void refuse(const std::string& what) const {
    throw_error<FormatError>("{}: the pattern {} uses {}, which Lighten does not know; rewrite the pattern without it", where_,
                             printable(in_), what);
  }

  std::string_view in_;
  std::string where_, out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

struct Free {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
};

/// What matching needs besides the pattern: one per thread.
struct Workspace {
  std::unique_ptr<pcre2_match_data, Free> data{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, Free> context{pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, Free> stack{pcre2_jit_stack_create(32 << 10, 16 << 20, nullptr)};
  Workspace() {
    if (!data || !context || !stack) throw std::bad_alloc();
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

}  // namespace

struct Regex::Compiled {
  pcre2_code* code = nullptr;
  std::string where, pattern;
  ~Compiled() { pcre2_code_free(code); }
};

Regex::Regex(const std::string& pattern, const std::string& where) {
  if (pattern.size() > kLongestPattern)
    throw_error<FormatError>("{}: a pattern of {} bytes is not sensible", where, pattern.size());
  const std::string text = translate_pattern(pattern, where);
  auto compiled = std::make_shared<Compiled>();
  compiled->where = where;
  compiled->pattern = pattern;
  std::unique_ptr<pcre2_compile_context, Free> context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  size_t offset = 0;
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get());
  if (!compiled->code) {
    char message[256] = "";
    pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
    throw_error<FormatError>("{}: the pattern {} is not a valid regular expression ({}); fetch the file again or correct it",
                             where, printable(pattern), message);
  }
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);  // without JIT the interpreter gives the same matches
  compiled_ = std::move(compiled);
}

bool Regex::find(std::string_view text, size_t from, size_t& start, size_t& end) const {
  static thread_local Workspace workspace;
  const int rc = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, PCRE2_NO_UTF_CHECK,
                             workspace.data.get(), workspace.context.get());
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  if (rc < 0)
    throw_error<FormatError>("{}: the pattern {} needs too much time or memory on this text; simplify the pattern",
                             compiled_->where, printable(compiled_->pattern));
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(workspace.data.get());
  start = range[0];
  end = range[1];
  if (start > end) start = end;  // \K
  return true;
}

std::string translate_pattern(const std::string& pattern, const std::string& where) { return Translator(pattern, where).run(); }

}  // namespace lighten::formats
