// Element types of stored tensors.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lighten {

enum class DType : uint8_t { f64, f32, f16, bf16, f8_e4m3, f8_e5m2, i64, i32, i16, i8, u64, u32, u16, u8, boolean };

/// Bytes of one element.
size_t dtype_size(DType type);
/// safetensors' name: "F32", "BF16", "F8_E4M3", "BOOL"...
std::string_view dtype_name(DType type);
/// Throws FormatError on an unknown name; `where` (file and tensor) goes into the message.
DType dtype_from_name(std::string_view name, const std::string& where);

}  // namespace lighten
