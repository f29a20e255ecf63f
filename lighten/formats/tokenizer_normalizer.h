// Text -> text before it is split: the "normalizer" of a tokenizer.json.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "lighten/base/options.h"
#include "lighten/formats/pretokenizer_regex.h"
#include "lighten/formats/unicode.h"

namespace lighten::formats {

/// A chain of rewritings. Immutable.
class Normalizer {
 public:
  Normalizer() = default;  ///< none: the text stays
  /// From the JSON of the field (null: none). Throws FormatError that begins with `where`.
  Normalizer(const Json& json, const std::string& where);

  /// `text` must be valid UTF-8.
  std::string apply(std::string text) const;
  bool empty() const { return steps_.empty(); }

 private:
  enum class Kind { form, lowercase, strip_accents, bert, replace, prepend, strip, byte_level };
  struct Step {
    Kind kind = Kind::form;
    NormalForm form = NormalForm::nfc;
    std::string literal, content;      // replace: what and by what; prepend: content
    std::optional<Regex> regex;        // replace
    bool left = false, right = false;  // strip
    bool clean_text = false, chinese_characters = false, strip_accents = false, lower = false;  // bert
  };
  void parse(const Json& json, const std::string& where, int depth);
  static std::string apply_step(const Step& step, std::string text);
  std::vector<Step> steps_;
};

/// Every occurrence of `literal` replaced by `content`.
std::string replace_all(std::string_view text, std::string_view literal, std::string_view content);
/// Every match of `regex` replaced by `content`, taken literally.
std::string replace_all(std::string_view text, const Regex& regex, std::string_view content);

}  // namespace lighten::formats
