#include "lighten/formats/json_fields.h"

#include <unordered_set>

#include "lighten/base/error.h"

namespace lighten::formats {
namespace {

constexpr int kDeepestNesting = 64;
constexpr size_t kLongestPrinted = 120;

/// Length of the UTF-8 character that starts at `text[i]`, 0 if it is broken or a control character.
size_t printable_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned lead = byte(i);
  if (lead < 0x80) return lead >= 0x20 && lead != 0x7f ? 1 : 0;
  const size_t length = lead >= 0xf0 && lead <= 0xf4  ? 4
                        : lead >= 0xe0 && lead < 0xf0 ? 3
                        : lead >= 0xc2 && lead < 0xe0 ? 2
                                                      : 0;
  if (length == 0 || i + length > text.size()) return 0;
  for (size_t k = 1; k < length; ++k)
    if ((byte(i + k) & 0xc0) != 0x80) return 0;
  return lead == 0xc2 && byte(i + 1) < 0xa0 ? 0 : length;
}

}  // namespace

std::string printable(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    if (result.size() > kLongestPrinted) return result + "...";
    const size_t length = printable_length(text, i);
    if (length > 0)
      result.append(text.substr(i, length));
    else
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
    i += length > 0 ? length : 1;
  }
  return result;
}

template <typename Map>
Map parse_json(std::string_view text, const std::string& where) {
  std::vector<std::unordered_set<std::string>> keys;
  const auto watch = [&](int depth, nlohmann::detail::parse_event_t event, Map& value) {
    using Event = nlohmann::detail::parse_event_t;
    if (depth > kDeepestNesting)
      throw_error<FormatError>("{}: the JSON is nested deeper than {} levels", where, kDeepestNesting);
    if (event == Event::object_start)
      keys.emplace_back();
    else if (event == Event::object_end)
      keys.pop_back();
    else if (event == Event::key && !keys.back().insert(value.template get_ref<const std::string&>()).second)
      throw_error<FormatError>("{}: the key \"{}\" stands twice; keep one of them", where,
                               printable(value.template get_ref<const std::string&>()));
    return true;
  };
  try {
    return Map::parse(text, watch);
  } catch (const nlohmann::json::exception& error) {
    throw_error<FormatError>("{}: not valid JSON: {}", where, printable(error.what()));
  }
}

template Json parse_json<Json>(std::string_view, const std::string&);
template nlohmann::json parse_json<nlohmann::json>(std::string_view, const std::string&);

Fields::Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) throw_error<FormatError>("{}: expected a JSON object, found {}", where_, object.type_name());
}

const Json* Fields::find(const std::string& name) const {
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

const Json& Fields::require(const std::string& name) const {
  const Json* value = find(name);
  if (value == nullptr) throw_error<FormatError>("{}: field \"{}\" is missing", where_, name);
  return *value;
}

int64_t Fields::integer(const std::string& name) const {
  const Json& value = require(name);
  const bool fits = value.is_number_integer() && !(value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX);
  if (!fits)
    throw_error<FormatError>("{}: field \"{}\" must be a whole number, found {}", where_, name,
                             printable(value.dump(-1, ' ', true, Json::error_handler_t::replace)));
  return value.get<int64_t>();
}

double Fields::number(const std::string& name) const {
  const Json& value = require(name);
  if (!value.is_number())
    throw_error<FormatError>("{}: field \"{}\" must be a number, found {}", where_, name, value.type_name());
  return value.get<double>();
}

bool Fields::boolean(const std::string& name, bool missing) const {
  const Json* value = find(name);
  if (value == nullptr) return missing;
  if (!value->is_boolean())
    throw_error<FormatError>("{}: field \"{}\" must be true or false, found {}", where_, name, value->type_name());
  return value->get<bool>();
}

std::string Fields::text(const std::string& name) const {
  const Json& value = require(name);
  if (!value.is_string())
    throw_error<FormatError>("{}: field \"{}\" must be a text, found {}", where_, name, value.type_name());
  return value.get<std::string>();
}

std::vector<int64_t> Fields::integers(const std::string& name) const {
  const Json* value = find(name);
  if (value == nullptr) return {};
  if (!value->is_array()) return {integer(name)};
  std::vector<int64_t> numbers;
  for (const Json& item : *value) {
    if (!item.is_number_integer())
      throw_error<FormatError>("{}: field \"{}\" must hold whole numbers, found {}", where_, name, item.type_name());
    numbers.push_back(item.get<int64_t>());
  }
  return numbers;
}

std::vector<std::string> Fields::texts(const std::string& name) const {
  const Json* value = find(name);
  if (value == nullptr) return {};
  if (!value->is_array())
    throw_error<FormatError>("{}: field \"{}\" must be a list of texts, found {}", where_, name, value->type_name());
  std::vector<std::string> texts;
  for (const Json& item : *value) {
    if (!item.is_string())
      throw_error<FormatError>("{}: field \"{}\" must hold texts, found {}", where_, name, item.type_name());
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

Fields Fields::object(const std::string& name) const { return Fields(require(name), where_ + ": " + name); }

}  // namespace lighten::formats
