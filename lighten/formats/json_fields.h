// Reading fields of JSON that came from outside: every wrong type or missing field is named.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "lighten/base/options.h"

namespace lighten::formats {

/// Parses text and refuses what the plain parser lets through: repeated keys in one object, nesting deeper than 64.
/// Throws FormatError that begins with `where`. `Map` chooses the object type: Json keeps the order, nlohmann::json has fast
/// look-up.
template <typename Map = Json>
Map parse_json(std::string_view text, const std::string& where);
extern template Json parse_json<Json>(std::string_view, const std::string&);
extern template nlohmann::json parse_json<nlohmann::json>(std::string_view, const std::string&);

/// Text safe to print: control bytes and bytes that are not UTF-8 become \xNN, long texts are cut.
std::string printable(std::string_view text);

/// The fields of one JSON object. Missing and null mean the same. All throw FormatError "<where>: field \"name\" ...".
class Fields {
 public:
  /// `where` names the file and, for nested objects, the way to this one. Throws if `object` is not an object.
  Fields(const Json& object, std::string where);

  bool has(const std::string& name) const { return find(name) != nullptr; }
  const Json* find(const std::string& name) const;  ///< nullptr: missing or null
  int64_t integer(const std::string& name) const;
  int64_t integer(const std::string& name, int64_t missing) const { return has(name) ? integer(name) : missing; }
  double number(const std::string& name) const;
  double number(const std::string& name, double missing) const { return has(name) ? number(name) : missing; }
  bool boolean(const std::string& name, bool missing) const;
  std::string text(const std::string& name) const;
  std::string text(const std::string& name, const std::string& missing) const { return has(name) ? text(name) : missing; }
  std::vector<int64_t> integers(const std::string& name) const;   ///< one number or a list; empty if missing
  std::vector<std::string> texts(const std::string& name) const;  ///< a list; empty if missing
  Fields object(const std::string& name) const;
  const std::string& where() const { return where_; }

 private:
  const Json& require(const std::string& name) const;
  const Json& object_;
  std::string where_;
};

}  // namespace lighten::formats
