#include "lighten/formats/tokenizer_normalizer.h"

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/pretokenizer.h"

namespace lighten::formats {
namespace {

constexpr int kDeepest = 16;

template <typename Erase>
std::string erase_characters(std::string_view text, Erase&& erase) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    if (!erase(next_character(text, at))) out.append(text, start, at - start);
  }
  return out;
}

/// BERT's list of ideographs; U+2B820..U+2B91F are missing from the reference as well.
bool is_chinese(char32_t c) {
  const auto in = [c](char32_t first, char32_t last) { return c >= first && c <= last; };
  return in(0x4E00, 0x9FFF) || in(0x3400, 0x4DBF) || in(0x20000, 0x2A6DF) || in(0x2A700, 0x2B73F) || in(0x2B740, 0x2B81F) ||
         in(0x2B920, 0x2CEAF) || in(0xF900, 0xFAFF) || in(0x2F800, 0x2FA1F);
}

std::string clean(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t c = next_character(text, at);
    if (is_class(c, kUnprintable)) continue;
    if (is_class(c, kSpace)) {
      out.push_back(' ');
    } else {
      out.append(text, start, at - start);
    }
  }
  return out;
}

std::string space_chinese(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const bool chinese = is_chinese(next_character(text, at));
    if (chinese) out.push_back(' ');
    out.append(text, start, at - start);
    if (chinese) out.push_back(' ');
  }
  return out;
}

std::string strip_spaces(std::string_view text, bool left, bool right) {
  size_t start = 0, end = text.size();
  for (size_t at = start; left && start < end; start = at)
    if (!is_class(next_character(text, at), kSpace)) break;
  while (right && end > start) {
    const size_t last = previous_character(text, end);
    size_t at = last;
    if (!is_class(next_character(text, at), kSpace)) break;
    end = last;
  }
  return std::string(text.substr(start, end - start));
}

}  // namespace

std::string replace_all(std::string_view text, std::string_view literal, std::string_view content) {
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (size_t at; (at = text.find(literal, done)) != std::string_view::npos; done = at + literal.size())
    out.append(text, done, at - done).append(content);
  return out.append(text, done);
}

std::string replace_all(std::string_view text, const Regex& regex, std::string_view content) {
  std::string out;
  size_t done = 0;
  regex.for_each_match(text, [&](size_t start, size_t end) {
    out.append(text, done, start - done).append(content);
    done = end;
  });
  return out.append(text, done);
}

std::string Normalizer::apply_step(const Step& step, std::string text) {
  switch (step.kind) {
    case Kind::form:
      return normalize(text, step.form);
    case Kind::lowercase:
      return lowercase(text);
    case Kind::strip_accents:
      return erase_characters(text, [](char32_t c) { return is_class(c, kCombining); });
    case Kind::bert:
      if (step.clean_text) text = clean(text);
      if (step.chinese_characters) text = space_chinese(text);
      if (step.strip_accents)
        text = erase_characters(normalize(text, NormalForm::nfd), [](char32_t c) { return is_class(c, kNonspacing); });
      return step.lower ? lowercase(text) : text;
    case Kind::replace:
      if (text.empty()) return text;
      return step.regex ? replace_all(text, *step.regex, step.content) : replace_all(text, step.literal, step.content);
    case Kind::prepend:
      return text.empty() ? text : step.content + text;
    case Kind::strip:
      return strip_spaces(text, step.left, step.right);
    case Kind::byte_level: {
      std::string out;
      append_byte_characters(out, text);
      return out;
    }
  }
  return text;
}

std::string Normalizer::apply(std::string text) const {
  for (const Step& step : steps_) text = apply_step(step, std::move(text));
  return text;
}

Normalizer::Normalizer(const Json& json, const std::string& where) { parse(json, where, 0); }

void Normalizer::parse(const Json& json, const std::string& where, int depth) {
  if (json.is_null()) return;
  if (depth > kDeepest)
    throw_error<FormatError>("{}: normalizers are nested deeper than {}; flatten the list", where, kDeepest);
  const Fields fields(json, where);
  const std::string type = fields.text("type");
  if (type == "Sequence") {
    const Json* list = fields.find("normalizers");
    if (!list || !list->is_array()) throw_error<FormatError>("{}: field \"normalizers\" must be a list", where);
    for (size_t i = 0; i < list->size(); ++i) parse((*list)[i], fmt::format("{}.normalizers[{}]", where, i), depth + 1);
    return;
  }
  Step step;
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    const bool composed = type.back() == 'C';
    step.form =
        type.size() == 3 ? (composed ? NormalForm::nfc : NormalForm::nfd) : (composed ? NormalForm::nfkc : NormalForm::nfkd);
  } else if (type == "Lowercase") {
    step.kind = Kind::lowercase;
  } else if (type == "StripAccents") {
    step.kind = Kind::strip_accents;
  } else if (type == "BertNormalizer") {
    step.kind = Kind::bert;
    step.clean_text = fields.boolean("clean_text", true);
    step.chinese_characters = fields.boolean("handle_chinese_chars", true);
    step.lower = fields.boolean("lowercase", true);
    step.strip_accents = fields.boolean("strip_accents", step.lower);
  } else if (type == "Replace") {
    step.kind = Kind::replace;
    const Json* pattern = fields.find("pattern");
    if (!pattern) throw_error<FormatError>("{}: field \"pattern\" is missing", where);
    parse_pattern(*pattern, where + ".pattern", step.literal, step.regex);
    step.content = fields.text("content");
  } else if (type == "Prepend") {
    step.kind = Kind::prepend;
    step.content = fields.text("prepend");
  } else if (type == "Strip") {
    step.kind = Kind::strip;
    step.left = fields.boolean("strip_left", true);
    step.right = fields.boolean("strip_right", true);
  } else if (type == "ByteLevel") {
    step.kind = Kind::byte_level;
  } else {
    throw_error<FormatError>(
        "{}: normalizer \"{}\" is not supported; supported are BertNormalizer, ByteLevel, Lowercase, NFC, NFD, NFKC, NFKD, "
        "Prepend, "
        "Replace, Sequence, Strip and StripAccents",
        where, printable(type));
  }
  steps_.push_back(std::move(step));
}

}  // namespace lighten::formats
