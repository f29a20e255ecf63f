#include "lighten/formats/pretokenizer.h"

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/unicode.h"

namespace lighten::formats {
namespace {

constexpr int kDeepest = 16;

/// Turns the pieces of a pattern (match or not, covering the text in order) into the words that a behaviour makes of them.
template <typename Emit>
class Joiner {
 public:
  Joiner(SplitBehaviour behaviour, Emit emit) : behaviour_(behaviour), emit_(emit) {}
  ~Joiner() = default;

  void piece(size_t start, size_t end, bool match) {
    switch (behaviour_) {
      case SplitBehaviour::isolated:
        return emit_(start, end);
      case SplitBehaviour::removed:
        return match ? void() : emit_(start, end);
      case SplitBehaviour::contiguous:
        return join(start, end, match == last_match_, match);
      case SplitBehaviour::merged_with_previous:
        return join(start, end, match && !last_match_, match);
      case SplitBehaviour::merged_with_next:
        return join(start, end, last_match_ && !match, match);
    }
  }
  void finish() {
    if (held_) emit_(start_, end_);
  }

 private:
  void join(size_t start, size_t end, bool extends, bool match) {
    if (held_ && !extends) emit_(start_, end_);
    if (!held_ || !extends) start_ = start;
    end_ = end;
    held_ = true;
    last_match_ = match;
  }

  SplitBehaviour behaviour_;
  Emit emit_;
  bool held_ = false, last_match_ = false;
  size_t start_ = 0, end_ = 0;
};

/// Pieces of a text around matches that are reported in order.
template <typename J>
struct Cover {
  J& joiner;
  bool invert;
  size_t done = 0;

  void match(size_t start, size_t end) {
    if (done != start) joiner.piece(done, start, invert);
    joiner.piece(start, end, !invert);
    done = end;
  }
  void finish(size_t size) {
    if (done != size) joiner.piece(done, size, invert);
    joiner.finish();
  }
};

template <typename Match>
void each_of_class(std::string_view text, int classes, Match&& match) {
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    if (is_class(next_character(text, at), classes)) match(start, at);
  }
}

/// \w+|[^\w\s]+
template <typename Match>
void each_whitespace_word(std::string_view text, Match&& match) {
  const auto kind = [](char32_t c) { return is_class(c, kWord) ? 1 : is_class(c, kSpace) ? 0 : 2; };
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const int wanted = kind(next_character(text, at));
    if (wanted == 0) continue;
    for (size_t next = at; at < text.size() && kind(next_character(text, next)) == wanted; at = next) {
    }
    match(start, at);
  }
}

template <typename Match>
void each_literal(std::string_view text, std::string_view literal, Match&& match) {
  for (size_t at = text.find(literal); at != std::string_view::npos; at = text.find(literal, at + literal.size()))
    match(at, at + literal.size());
}

}  // namespace

/// One split() under way: pieces go depth first through the steps, so words come out in order and little is kept.
struct PreTokenizer::Run {
  const std::vector<Step>& steps;
  WordSink& sink;
  std::vector<std::string> rewritten;  // per step: texts that it had to change, alive while later steps read them

  void piece(size_t i, std::string_view text, bool first) {
    if (text.empty()) return;
    if (i == steps.size()) return sink.word(text);
    const Step& step = steps[i];
    switch (step.kind) {
      case Kind::byte_level:
        return byte_level(i, step, text, first);
      case Kind::metaspace:
        return metaspace(i, step, text, first);
      case Kind::bert:
        return cover(
            text, SplitBehaviour::removed, false, [&](auto&& match) { each_of_class(text, kSpace, match); },
            [&](size_t start, size_t end) {
              const std::string_view word = text.substr(start, end - start);
              matches(i, word, SplitBehaviour::isolated, false, first && start == 0,
                      [&](auto&& match) { each_of_class(word, kPunctuation, match); });
            });
      case Kind::digits:
        return matches(i, text, step.behaviour, false, first, [&](auto&& match) { each_of_class(text, kDigit, match); });
      case Kind::punctuation:
        return matches(i, text, step.behaviour, false, first, [&](auto&& match) { each_of_class(text, kPunctuation, match); });
      case Kind::whitespace_split:
        return matches(i, text, SplitBehaviour::removed, false, first,
                       [&](auto&& match) { each_of_class(text, kSpace, match); });
      case Kind::whitespace:
        return matches(i, text, SplitBehaviour::removed, true, first, [&](auto&& match) { each_whitespace_word(text, match); });
      case Kind::split:
        return matches(i, text, step.behaviour, step.invert, first, [&](auto&& match) {
          if (step.known != KnownPattern::none) {
            known_words(step.known, text, match);
          } else if (step.regex) {
            step.regex->for_each_match(text, match);
          } else {
            each_literal(text, step.literal, match);
          }
        });
    }
  }

 private:
  template <typename Find, typename Emit>
  static void cover(std::string_view text, SplitBehaviour behaviour, bool invert, Find&& find, Emit&& emit) {
    Joiner joiner(behaviour, [&](size_t start, size_t end) {
      if (start != end) emit(start, end);
    });
    Cover<decltype(joiner)> pieces{joiner, invert};
    find([&](size_t start, size_t end) { pieces.match(start, end); });
    pieces.finish(text.size());
  }

  template <typename Find>
  void matches(size_t i, std::string_view text, SplitBehaviour behaviour, bool invert, bool first, Find&& find) {
    cover(text, behaviour, invert, find,
          [&](size_t start, size_t end) { piece(i + 1, text.substr(start, end - start), first && start == 0); });
  }

  template <typename Match>
  static void known_words(KnownPattern pattern, std::string_view text, Match&& match) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = word_end(pattern, text, at);
      match(at, end);
      at = end;
    }
  }

  void byte_level(size_t i, const Step& step, std::string_view text, bool first) {
    std::string prefixed;
    if (step.prefix_space && text[0] != ' ') {
      prefixed.assign(" ").append(text);
      text = prefixed;
    }
    const auto hand_on = [&](size_t start, size_t end) {
      rewritten[i].clear();
      append_byte_characters(rewritten[i], text.substr(start, end - start));
      piece(i + 1, rewritten[i], first && start == 0);
    };
    if (step.splits) {
      known_words(KnownPattern::gpt2, text, hand_on);
    } else {
      hand_on(0, text.size());
    }
  }

  void metaspace(size_t i, const Step& step, std::string_view text, bool first) {
    std::string& marked = rewritten[i];
    marked.clear();
    for (const char c : text) c == ' ' ? marked += step.literal : marked += c;
    if ((step.prefix_always || (step.prefix_space && first)) && !std::string_view(marked).starts_with(step.literal))
      marked.insert(0, step.literal);
    if (!step.splits) return piece(i + 1, marked, first);
    matches(i, marked, SplitBehaviour::merged_with_next, false, first,
            [&](auto&& match) { each_literal(marked, step.literal, match); });
  }
};

void PreTokenizer::split(std::string_view text, bool first, WordSink& sink) const {
  Run run{steps_, sink, std::vector<std::string>(steps_.size())};
  run.piece(0, text, first);
}

PreTokenizer::PreTokenizer(const Json& json, const std::string& where) { parse(json, where, 0); }

void PreTokenizer::parse(const Json& json, const std::string& where, int depth) {
  if (json.is_null()) return;
  if (depth > kDeepest)
    throw_error<FormatError>("{}: pre-tokenizers are nested deeper than {}; flatten the list", where, kDeepest);
  const Fields fields(json, where);
  const std::string type = fields.text("type");
  if (type == "Sequence") {
    const Json* list = fields.find("pretokenizers");
    if (!list || !list->is_array()) throw_error<FormatError>("{}: field \"pretokenizers\" must be a list", where);
    for (size_t i = 0; i < list->size(); ++i) parse((*list)[i], fmt::format("{}.pretokenizers[{}]", where, i), depth + 1);
    return;
  }
  Step step;
  if (type == "ByteLevel") {
    step.kind = Kind::byte_level;
    step.prefix_space = fields.boolean("add_prefix_space", false);
    step.splits = fields.boolean("use_regex", true);
  } else if (type == "Split") {
    step = parse_split(json, where);
  } else if (type == "Digits") {
    step.kind = Kind::digits;
    step.behaviour = fields.boolean("individual_digits", false) ? SplitBehaviour::isolated : SplitBehaviour::contiguous;
  } else if (type == "Metaspace") {
    step = parse_metaspace(json, where);
  } else if (type == "Punctuation") {
    step.kind = Kind::punctuation;
    step.behaviour = fields.has("behavior") ? parse_behaviour(json, "behavior", where) : SplitBehaviour::isolated;
  } else if (type == "Whitespace") {
    step.kind = Kind::whitespace;
  } else if (type == "WhitespaceSplit") {
    step.kind = Kind::whitespace_split;
  } else if (type != "BertPreTokenizer") {
    throw_error<FormatError>(
        "{}: pre-tokenizer \"{}\" is not supported; supported are BertPreTokenizer, ByteLevel, Digits, Metaspace, Punctuation, "
        "Sequence, Split, Whitespace and WhitespaceSplit",
        where, printable(type));
  }
  steps_.push_back(std::move(step));
}

PreTokenizer::Step PreTokenizer::parse_split(const Json& json, const std::string& where) {
  const Fields fields(json, where);
  Step step;
  step.kind = Kind::split;
  step.behaviour = parse_behaviour(json, "behavior", where);
  step.invert = fields.boolean("invert", false);
  const Json* pattern = fields.find("pattern");
  if (!pattern) throw_error<FormatError>("{}: field \"pattern\" is missing", where);
  parse_pattern(*pattern, where + ".pattern", step.literal, step.regex, &step.known);
  return step;
}

PreTokenizer::Step PreTokenizer::parse_metaspace(const Json& json, const std::string& where) {
  const Fields fields(json, where);
  Step step;
  step.kind = Kind::metaspace;
  step.literal = fields.text("replacement", "\u2581");
  if (step.literal.empty() || !is_valid_utf8(step.literal) || character_bytes(step.literal[0]) != step.literal.size())
    throw_error<FormatError>("{}: field \"replacement\" must be one character", where);
  std::string scheme = fields.text("prepend_scheme", "always");
  if (!fields.boolean("add_prefix_space", true)) scheme = "never";
  if (scheme != "always" && scheme != "first" && scheme != "never")
    throw_error<FormatError>("{}: field \"prepend_scheme\" must be always, first or never, found {}", where, printable(scheme));
  step.prefix_always = scheme == "always";
  step.prefix_space = scheme == "first";
  step.splits = fields.boolean("split", true);
  return step;
}

SplitBehaviour parse_behaviour(const Json& json, const std::string& name, const std::string& where) {
  const std::string text = Fields(json, where).text(name);
  if (text == "Removed") return SplitBehaviour::removed;
  if (text == "Isolated") return SplitBehaviour::isolated;
  if (text == "Contiguous") return SplitBehaviour::contiguous;
  if (text == "MergedWithPrevious") return SplitBehaviour::merged_with_previous;
  if (text == "MergedWithNext") return SplitBehaviour::merged_with_next;
  throw_error<FormatError>(
      "{}: field \"{}\" must be Removed, Isolated, Contiguous, MergedWithPrevious or MergedWithNext, found {}", where, name,
      printable(text));
}

void parse_pattern(const Json& json, const std::string& where, std::string& literal, std::optional<Regex>& regex,
                   KnownPattern* known) {
  const Fields fields(json, where);
  if (fields.has("String")) {
    literal = fields.text("String");
    if (literal.empty()) throw_error<FormatError>("{}: field \"String\" is empty; give the text to look for", where);
    return;
  }
  if (!fields.has("Regex")) throw_error<FormatError>("{}: needs the field \"String\" or \"Regex\"", where);
  const std::string pattern = fields.text("Regex");
  if (known && (*known = known_pattern(pattern)) != KnownPattern::none) return;
  regex.emplace(pattern, where + ".Regex");
}

const std::array<char16_t, 256>& byte_characters() {
  static const std::array<char16_t, 256> table = [] {
    std::array<char16_t, 256> out{};
    char16_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool prints = (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
      out[b] = prints ? static_cast<char16_t>(b) : next++;
    }
    return out;
  }();
  return table;
}

int byte_of_character(char32_t c) {
  static const std::array<int16_t, 0x144> table = [] {
    std::array<int16_t, 0x144> out;
    out.fill(-1);
    for (int b = 0; b < 256; ++b) out[byte_characters()[b]] = static_cast<int16_t>(b);
    return out;
  }();
  return c < table.size() ? table[c] : -1;
}

void append_byte_characters(std::string& out, std::string_view bytes) {
  const auto& characters = byte_characters();
  for (const char byte : bytes) {
    const char16_t c = characters[static_cast<unsigned char>(byte)];
    if (c < 0x80) {
      out.push_back(static_cast<char>(c));
    } else {
      out.push_back(static_cast<char>(0xC0 | c >> 6));
      out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
    }
  }
}

std::optional<std::string> bytes_of_characters(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const int byte = byte_of_character(next_character(text, at));
    if (byte < 0) return std::nullopt;
    out.push_back(static_cast<char>(byte));
  }
  return out;
}

}  // namespace lighten::formats
