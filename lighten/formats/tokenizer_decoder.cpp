#include "lighten/formats/tokenizer_decoder.h"

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/formats/pretokenizer.h"
#include "lighten/formats/tokenizer_normalizer.h"
#include "lighten/formats/unicode.h"

namespace lighten::formats {
namespace {

constexpr int kDeepest = 16;

/// English spacing that WordPiece lost; the order is the reference's.
std::string clean_up(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) text = replace_all(text, from, to);
  return text;
}

std::string bytes_or_text(const std::string& token) {
  std::optional<std::string> bytes = bytes_of_characters(token);
  return bytes ? *bytes : token;
}

/// Runs of <0xNN> tokens become the characters they spell; a run that is not UTF-8 becomes one U+FFFD a byte.
std::vector<std::string> join_bytes(const std::vector<std::string>& tokens) {
  std::vector<std::string> out;
  std::string run;
  const auto flush = [&] {
    if (run.empty()) return;
    if (is_valid_utf8(run)) {
      out.push_back(run);
    } else {
      out.insert(out.end(), run.size(), "\uFFFD");
    }
    run.clear();
  };
  for (const std::string& token : tokens) {
    if (const int byte = fallback_byte(token); byte >= 0) {
      run.push_back(static_cast<char>(byte));
    } else {
      flush();
      out.push_back(token);
    }
  }
  flush();
  return out;
}

void strip(std::string& token, const std::string& character, size_t start, size_t stop) {
  size_t begin = 0, end = token.size();
  for (size_t i = 0; i < start && token.compare(begin, character.size(), character) == 0; ++i) begin += character.size();
  for (size_t i = 0; i < stop && end >= begin + character.size(); ++i) {
    if (token.compare(end - character.size(), character.size(), character) != 0) break;
    end -= character.size();
  }
  token = token.substr(begin, end - begin);
}

}  // namespace

int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  const int high = digit(token[3]), low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

void Decoder::apply(const Step& step, std::vector<std::string>& tokens) {
  switch (step.kind) {
    case Kind::byte_level: {
      std::string bytes, text;
      for (const std::string& token : tokens) bytes += bytes_or_text(token);
      append_valid_utf8(text, bytes);
      tokens = {text};
      return;
    }
    case Kind::byte_fallback:
      tokens = join_bytes(tokens);
      return;
    case Kind::fuse: {
      std::string all;
      for (const std::string& token : tokens) all += token;
      tokens = {all};
      return;
    }
    case Kind::replace:
      for (std::string& token : tokens)
        if (!token.empty())
          token = step.regex ? replace_all(token, *step.regex, step.content) : replace_all(token, step.literal, step.content);
      return;
    case Kind::strip:
      for (std::string& token : tokens) strip(token, step.literal, step.start, step.stop);
      return;
    case Kind::word_piece:
      for (size_t i = 0; i < tokens.size(); ++i) {
        if (i > 0) tokens[i] = tokens[i].starts_with(step.literal) ? tokens[i].substr(step.literal.size()) : " " + tokens[i];
        if (step.flag) tokens[i] = clean_up(std::move(tokens[i]));
      }
      return;
    case Kind::metaspace:
      for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = replace_all(tokens[i], step.literal, i == 0 && step.flag ? "" : " ");
      return;
  }
}

std::string Decoder::decode(std::vector<std::string> tokens) const {
  if (tokens.empty()) return "";
  for (const Step& step : steps_) apply(step, tokens);
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && steps_.empty()) out += ' ';
    out += tokens[i];
  }
  return out;
}

std::string Decoder::piece(const std::string& token) const {
  if (steps_.empty()) return " " + token;
  std::string text = token;
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::byte_level:
        text = bytes_or_text(text);
        break;
      case Kind::byte_fallback:
        if (const int byte = fallback_byte(text); byte >= 0) return std::string(1, static_cast<char>(byte));
        break;
      case Kind::fuse:  // what follows works on the whole text: its start and end, not on a piece
        return text;
      case Kind::word_piece:
        if (text.starts_with(step.literal))
          text.erase(0, step.literal.size());
        else
          text.insert(0, 1, ' ');
        if (step.flag) text = clean_up(std::move(text));
        break;
      case Kind::metaspace:
        text = replace_all(text, step.literal, " ");
        break;
      default: {
        std::vector<std::string> one{std::move(text)};
        apply(step, one);
        text = std::move(one[0]);
      }
    }
  }
  return text;
}

Decoder::Decoder(const Json& json, const std::string& where) { parse(json, where, 0); }

void Decoder::parse(const Json& json, const std::string& where, int depth) {
  if (json.is_null()) return;
  if (depth > kDeepest) throw_error<FormatError>("{}: decoders are nested deeper than {}; flatten the list", where, kDeepest);
  const Fields fields(json, where);
  const std::string type = fields.text("type");
  if (type == "Sequence") {
    const Json* list = fields.find("decoders");
    if (!list || !list->is_array()) throw_error<FormatError>("{}: field \"decoders\" must be a list", where);
    for (size_t i = 0; i < list->size(); ++i) parse((*list)[i], fmt::format("{}.decoders[{}]", where, i), depth + 1);
    return;
  }
  Step step;
  if (type == "ByteLevel") {
    step.kind = Kind::byte_level;
  } else if (type == "ByteFallback") {
    step.kind = Kind::byte_fallback;
  } else if (type == "Replace") {
    step.kind = Kind::replace;
    const Json* pattern = fields.find("pattern");
    if (!pattern) throw_error<FormatError>("{}: field \"pattern\" is missing", where);
    parse_pattern(*pattern, where + ".pattern", step.literal, step.regex);
    step.content = fields.text("content");
  } else if (type == "Strip") {
    step.kind = Kind::strip;
    step.literal = fields.text("content");
    const int64_t start = fields.integer("start", 0), stop = fields.integer("stop", 0);
    if (step.literal.empty() || start < 0 || stop < 0)
      throw_error<FormatError>("{}: needs one character as \"content\" and \"start\", \"stop\" not below 0", where);
    step.start = static_cast<size_t>(start);
    step.stop = static_cast<size_t>(stop);
  } else if (type == "WordPiece") {
    step.kind = Kind::word_piece;
    step.literal = fields.text("prefix", "##");
    step.flag = fields.boolean("cleanup", true);
  } else if (type == "Metaspace") {
    step.kind = Kind::metaspace;
    step.literal = fields.text("replacement", "\u2581");
    if (step.literal.empty()) throw_error<FormatError>("{}: field \"replacement\" must be one character", where);
    step.flag = fields.boolean("add_prefix_space", true) && fields.text("prepend_scheme", "always") != "never";
  } else if (type != "Fuse") {
    throw_error<FormatError>(
        "{}: decoder \"{}\" is not supported; supported are ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence, Strip "
        "and "
        "WordPiece",
        where, printable(type));
  }
  steps_.push_back(std::move(step));
}

}  // namespace lighten::formats
