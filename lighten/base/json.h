// JSON as Lighten keeps it: keys stay in the order in which they were written.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace lighten {

using Json = nlohmann::ordered_json;

/// The text of a JSON value. `indent` spaces a level, -1: one line. Strings that are not UTF-8 (a path may be anything) do not
/// throw: bytes that belong to no character become U+FFFD.
std::string json_text(const Json& json, int indent = -1);

}  // namespace lighten
