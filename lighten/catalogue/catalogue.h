// The explicit tables: systems (systems.h), and the methods that `--method` accepts.
#pragma once
#include <string>
#include <vector>

#include "lighten/catalogue/systems.h"
#include "lighten/compress/method.h"

namespace lighten {

/// The methods that `--method` accepts, each with fresh default options.
std::vector<std::string> method_names();
/// "awq+gptq" -> entries in order. Throws OptionError with the nearest name; a transform must stand before a rounding, at most
/// one of each.
std::vector<MethodEntry> parse_method(const std::string& text);

}  // namespace lighten
