// Options, declared once: an aggregate and one describe() function give the flags, --help, validation, the JSON in results and
// the table in a README.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "lighten/base/json.h"

namespace lighten {

/// What values an option may take; `text` says it for people ("2, 3, 4 or 8", "1 to 100").
struct Allowed {
  std::string text;
  std::vector<std::string> names;  ///< the words of a choice, else empty
  std::function<bool(double)> number;
};
Allowed any_value();
Allowed one_of(std::vector<int64_t> values);
Allowed one_of(std::vector<std::string> words);
Allowed range(double low, double high);  ///< both ends included
Allowed above(double low);               ///< low excluded

/// One option bound to a field of the aggregate it was described from.
struct Option {
  using Target = std::variant<bool*, int*, int64_t*, uint64_t*, double*, std::string*>;
  Option(std::string name, Target target, Allowed allowed, std::string doc, std::string source, std::string unit = "");
  Option(std::string name, bool& target, std::string doc, std::string source);

  std::string name;  ///< as on the command line, without dashes: "group-size"
  Target target;
  Allowed allowed;
  std::string doc;     ///< one line
  std::string source;  ///< where the default comes from
  std::string unit;

  Json value() const;
  std::string value_text() const;
  /// Parses and stores. Throws OptionError that names the option, the value and what is allowed. Bare "" sets a bool to true.
  void set(const std::string& text);
  void set_json(const Json& value);
};

template <typename T>
Option option(std::string name, T& field, Allowed allowed, std::string doc, std::string source, std::string unit = "") {
  return Option(std::move(name), Option::Target(&field), std::move(allowed), std::move(doc), std::move(source),
                std::move(unit));
}

using OptionList = std::vector<Option>;

/// Throws OptionError for the first option whose present value is not allowed.
void validate(const OptionList& options);
/// {"group-size": 64, ...}
Json to_json(const OptionList& options);
/// Sets every option that `values` names. Throws OptionError on an unknown name (with the nearest one).
void set_from_json(const OptionList& options, const Json& values);
/// The Markdown table of a README: option, default, allowed, meaning, source.
std::string to_markdown(const OptionList& options);

/// The candidate with the smallest edit distance to `word`, or "" when none is near (distance above a third of the length).
std::string nearest_name(const std::string& word, const std::vector<std::string>& candidates);
/// "unknown method 'agw'; did you mean 'awq'? (known: ...)"
std::string unknown_name_message(const std::string& kind, const std::string& word, const std::vector<std::string>& candidates);

}  // namespace lighten
