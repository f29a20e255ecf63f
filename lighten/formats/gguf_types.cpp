#include <array>

#include "lighten/base/error.h"
#include "lighten/formats/gguf.h"

namespace lighten {
namespace {

struct Entry {
  uint32_t id;
  GgufTypeInfo info;
  bool read, write;
};

constexpr Entry kTypes[] = {{0, {"F32", 1, 4}, true, true},           {1, {"F16", 1, 2}, true, true},
                            {2, {"Q4_0", 32, 18}, true, true},        {3, {"Q4_1", 32, 20}, true, true},
                            {6, {"Q5_0", 32, 22}, true, true},        {7, {"Q5_1", 32, 24}, true, true},
                            {8, {"Q8_0", 32, 34}, true, true},        {10, {"Q2_K", 256, 84}, true, false},
                            {11, {"Q3_K", 256, 110}, true, false},    {12, {"Q4_K", 256, 144}, true, false},
                            {13, {"Q5_K", 256, 176}, true, false},    {14, {"Q6_K", 256, 210}, true, false},
                            {16, {"IQ2_XXS", 256, 66}, false, false}, {17, {"IQ2_XS", 256, 74}, false, false},
                            {18, {"IQ3_XXS", 256, 98}, false, false}, {19, {"IQ1_S", 256, 50}, false, false},
                            {20, {"IQ4_NL", 32, 18}, true, false},    {21, {"IQ3_S", 256, 110}, false, false},
                            {22, {"IQ2_S", 256, 82}, false, false},   {23, {"IQ4_XS", 256, 136}, false, false},
                            {24, {"I8", 1, 1}, false, false},         {25, {"I16", 1, 2}, false, false},
                            {26, {"I32", 1, 4}, false, false},        {27, {"I64", 1, 8}, false, false},
                            {28, {"F64", 1, 8}, true, false},         {29, {"IQ1_M", 256, 56}, false, false},
                            {30, {"BF16", 1, 2}, true, true},         {34, {"TQ1_0", 256, 54}, false, false},
                            {35, {"TQ2_0", 256, 66}, false, false},   {39, {"MXFP4", 32, 17}, false, false},
                            {40, {"NVFP4", 64, 36}, false, false}};

const Entry* find_type(GgufType type) {
  for (const Entry& entry : kTypes)
    if (entry.id == static_cast<uint32_t>(type)) return &entry;
  return nullptr;
}

}  // namespace

std::optional<GgufTypeInfo> gguf_type_info(GgufType type) {
  const Entry* entry = find_type(type);
  return entry == nullptr ? std::nullopt : std::optional(entry->info);
}

bool gguf_can_read(GgufType type) {
  const Entry* entry = find_type(type);
  return entry != nullptr && entry->read;
}

bool gguf_can_write(GgufType type) {
  const Entry* entry = find_type(type);
  return entry != nullptr && entry->write;
}

uint64_t gguf_bytes(GgufType type, int64_t count, const std::string& where) {
  const Entry* entry = find_type(type);
  if (entry == nullptr) throw_error<FormatError>("{}: tensor type {} is not known", where, static_cast<uint32_t>(type));
  if (count < 0 || count % entry->info.block_length != 0)
    throw_error<FormatError>("{}: {} numbers are not whole blocks of {} ({})", where, count, entry->info.block_length,
                             entry->info.name);
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(count / entry->info.block_length), entry->info.block_bytes, &bytes))
    throw_error<FormatError>("{}: {} numbers are more than any file can hold", where, count);
  return bytes;
}

}  // namespace lighten
