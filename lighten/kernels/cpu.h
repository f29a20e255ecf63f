// Which instruction sets the kernels may use: found once, can be lowered for tests and by users.
#pragma once
#include <string>
#include <vector>

namespace lighten {

enum class Isa { scalar, avx2, avx512, neon };  ///< avx512 means F+BW+VL+DQ+VNNI; BF16 is asked for separately

/// The best one that this machine runs (or the one set by set_isa).
Isa current_isa();
/// All that this machine can run, scalar first.
std::vector<Isa> available_isas();
/// Throws OptionError if the machine cannot run it.
void set_isa(Isa isa);
std::string isa_name(Isa isa);
bool cpu_has_avx512_bf16();
/// AArch64: products of four bytes at once (SDOT).
bool cpu_has_dotprod();
/// AArch64: dotprod and matrix products of bytes (SMMLA).
bool cpu_has_i8mm();

}  // namespace lighten
