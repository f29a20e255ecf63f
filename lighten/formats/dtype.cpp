#include "lighten/formats/dtype.h"

#include <array>
#include <utility>

#include "lighten/base/error.h"

namespace lighten {
namespace {

struct DTypeInfo {
  std::string_view name;
  size_t size;
};

// In the order of the enum.
constexpr std::array<DTypeInfo, 15> kTypes = {{{"F64", 8},
                                               {"F32", 4},
                                               {"F16", 2},
                                               {"BF16", 2},
                                               {"F8_E4M3", 1},
                                               {"F8_E5M2", 1},
                                               {"I64", 8},
                                               {"I32", 4},
                                               {"I16", 2},
                                               {"I8", 1},
                                               {"U64", 8},
                                               {"U32", 4},
                                               {"U16", 2},
                                               {"U8", 1},
                                               {"BOOL", 1}}};

}  // namespace

size_t dtype_size(DType type) { return kTypes[static_cast<size_t>(type)].size; }

std::string_view dtype_name(DType type) { return kTypes[static_cast<size_t>(type)].name; }

DType dtype_from_name(std::string_view name, const std::string& where) {
  for (size_t i = 0; i < kTypes.size(); ++i)
    if (kTypes[i].name == name) return static_cast<DType>(i);
  std::string known;
  for (const DTypeInfo& type : kTypes) known += (known.empty() ? "" : ", ") + std::string(type.name);
  throw_error<FormatError>("{}: unknown dtype \"{}\"; known are {}", where, name, known);
}

}  // namespace lighten
