#include "lighten/base/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "lighten/base/error.h"
#include "lighten/base/table.h"

namespace lighten {
namespace {

template <typename T>
std::string join_words(const std::vector<T>& items) {
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) text += i + 1 == items.size() ? " or " : ", ";
    text += fmt::format("{}", items[i]);
  }
  return text;
}

[[noreturn]] void refuse(const Option& option, const std::string& value) {
  throw_error<OptionError>("--{} {}: must be {}", option.name, value,
                           option.allowed.text.empty() ? "a valid value" : option.allowed.text);
}

template <typename T>
T parse_number(const Option& option, const std::string& text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) refuse(option, "'" + text + "'");
  return value;
}

void check_allowed(const Option& option) {
  std::visit(
      [&](auto* target) {
        using T = std::remove_pointer_t<decltype(target)>;
        if constexpr (std::is_same_v<T, std::string>) {
          const auto& names = option.allowed.names;
          if (!names.empty() && std::find(names.begin(), names.end(), *target) == names.end())
            throw_error<OptionError>("--{}: {}", option.name, unknown_name_message("value", *target, names));
        } else if constexpr (!std::is_same_v<T, bool>) {
          const double value = static_cast<double>(*target);
          if (!std::isfinite(value) || (option.allowed.number && !option.allowed.number(value)))
            refuse(option, option.value_text());
        }
      },
      option.target);
}

}  // namespace

Allowed any_value() { return {"", {}, {}}; }

Allowed one_of(std::vector<int64_t> values) {
  std::string text = join_words(values);
  return {std::move(text), {}, [values](double v) {
            return std::any_of(values.begin(), values.end(), [&](int64_t a) { return v == static_cast<double>(a); });
          }};
}

Allowed one_of(std::vector<std::string> words) {
  std::string text = join_words(words);
  return {std::move(text), std::move(words), {}};
}

Allowed range(double low, double high) {
  return {fmt::format("{:g} to {:g}", low, high), {}, [=](double v) { return v >= low && v <= high; }};
}

Allowed above(double low) {
  return {fmt::format("above {:g}", low), {}, [=](double v) { return v > low; }};
}

Option::Option(std::string name, Target target, Allowed allowed, std::string doc, std::string source, std::string unit)
    : name(std::move(name)),
      target(target),
      allowed(std::move(allowed)),
      doc(std::move(doc)),
      source(std::move(source)),
      unit(std::move(unit)) {}

Option::Option(std::string name, bool& target, std::string doc, std::string source)
    : Option(std::move(name), Target(&target), {"true or false", {}, {}}, std::move(doc), std::move(source)) {}

Json Option::value() const {
  return std::visit([](auto* target) { return Json(*target); }, target);
}

std::string Option::value_text() const {
  return std::visit(
      [](auto* target) {
        using T = std::remove_pointer_t<decltype(target)>;
        if constexpr (std::is_same_v<T, bool>)
          return std::string(*target ? "true" : "false");
        else if constexpr (std::is_same_v<T, std::string>)
          return *target;
        else
          return fmt::format("{}", *target);
      },
      target);
}

void Option::set(const std::string& text) {
  std::visit(
      [&](auto* value) {
        using T = std::remove_pointer_t<decltype(value)>;
        if constexpr (std::is_same_v<T, std::string>)
          *value = text;
        else if constexpr (std::is_same_v<T, bool>) {
          if (text.empty() || text == "true" || text == "1" || text == "yes" || text == "on")
            *value = true;
          else if (text == "false" || text == "0" || text == "no" || text == "off")
            *value = false;
          else
            refuse(*this, "'" + text + "'");
        } else
          *value = parse_number<T>(*this, text);
      },
      target);
  check_allowed(*this);
}

void Option::set_json(const Json& json) {
  if (json.is_string()) return set(json.get<std::string>());
  std::visit(
      [&](auto* value) {
        using T = std::remove_pointer_t<decltype(value)>;
        if constexpr (std::is_same_v<T, std::string>)
          refuse(*this, json_text(json));
        else if constexpr (std::is_same_v<T, bool>) {
          if (!json.is_boolean()) refuse(*this, json_text(json));
          *value = json.get<bool>();
        } else if constexpr (std::is_floating_point_v<T>) {
          if (!json.is_number()) refuse(*this, json_text(json));
          *value = json.get<T>();
        } else {
          if (!json.is_number_integer()) refuse(*this, json_text(json));
          const bool negative = !json.is_number_unsigned() && json.get<int64_t>() < 0;
          if constexpr (std::is_unsigned_v<T>) {
            if (negative) refuse(*this, json_text(json));
          }
          const int64_t wide = json.get<int64_t>();
          if constexpr (std::is_same_v<T, int>) {
            if (wide < std::numeric_limits<int>::min() || wide > std::numeric_limits<int>::max())
              refuse(*this, json_text(json));
          }
          *value = static_cast<T>(wide);
        }
      },
      target);
  check_allowed(*this);
}

void validate(const OptionList& options) {
  for (const Option& option : options) check_allowed(option);
}

Json to_json(const OptionList& options) {
  Json json = Json::object();
  for (const Option& option : options) json[option.name] = option.value();
  return json;
}

void set_from_json(const OptionList& options, const Json& values) {
  std::vector<std::string> names;
  for (const Option& option : options) names.push_back(option.name);
  for (const auto& [name, value] : values.items()) {
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) throw OptionError(unknown_name_message("option", name, names));
    Option option = options[static_cast<size_t>(found - names.begin())];
    option.set_json(value);
  }
}

std::string to_markdown(const OptionList& options) {
  Table table({"option", "default", "allowed", "meaning", "source of the default"});
  for (const Option& o : options)
    table.row({"`--" + o.name + "`", o.value_text() + (o.unit.empty() ? "" : " " + o.unit), o.allowed.text, o.doc, o.source});
  return table.markdown();
}

std::string nearest_name(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::numeric_limits<size_t>::max();
  for (const std::string& candidate : candidates) {
    // Damerau-Levenshtein (adjacent swaps count once).
    const size_t n = word.size(), m = candidate.size();
    std::vector<std::vector<size_t>> d(n + 1, std::vector<size_t>(m + 1));
    for (size_t i = 0; i <= n; ++i) d[i][0] = i;
    for (size_t j = 0; j <= m; ++j) d[0][j] = j;
    for (size_t i = 1; i <= n; ++i)
      for (size_t j = 1; j <= m; ++j) {
        d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (word[i - 1] != candidate[j - 1])});
        if (i > 1 && j > 1 && word[i - 1] == candidate[j - 2] && word[i - 2] == candidate[j - 1])
          d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    if (d[n][m] < best_distance) {
      best_distance = d[n][m];
      best = candidate;
    }
  }
  const size_t longest = std::max(word.size(), best.size());
  return best_distance < longest && best_distance <= std::max<size_t>(2, longest / 3) ? best : "";
}

std::string unknown_name_message(const std::string& kind, const std::string& word, const std::vector<std::string>& candidates) {
  std::string text = fmt::format("unknown {} '{}'", kind, word);
  if (const std::string nearest = nearest_name(word, candidates); !nearest.empty())
    text += fmt::format("; did you mean '{}'?", nearest);
  if (candidates.size() <= 30) {
    text += " (known: ";
    for (size_t i = 0; i < candidates.size(); ++i) text += (i ? ", " : "") + candidates[i];
    text += ")";
  }
  return text;
}

}  // namespace lighten
