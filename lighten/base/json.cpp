#include "lighten/base/json.h"

namespace lighten {

std::string json_text(const Json& json, int indent) { return json.dump(indent, ' ', false, Json::error_handler_t::replace); }

}  // namespace lighten
