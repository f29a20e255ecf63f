#include "lighten/kernels/cpu.h"

#include <algorithm>
#include <atomic>

#include "lighten/base/error.h"

namespace lighten {
namespace {

bool can_run(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return true;
#if defined(__x86_64__)
    // The builtins also ask whether the operating system saves the wide registers.
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    case Isa::avx512:
      return can_run(Isa::avx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
#endif
    default:
      return false;
  }
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> isa = available_isas().back();
  return isa;
}

}  // namespace

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon}) {
    if (can_run(isa)) isas.push_back(isa);
  }
  return isas;
}

Isa current_isa() { return chosen().load(std::memory_order_relaxed); }

void set_isa(Isa isa) {
  if (!can_run(isa)) {
    std::string names;
    for (const Isa available : available_isas()) names += (names.empty() ? "" : ", ") + isa_name(available);
    throw_error<OptionError>("this processor cannot run the {} kernels; it runs: {}", isa_name(isa), names);
  }
  chosen().store(isa, std::memory_order_relaxed);
}

std::string isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::neon:
      return "neon";
  }
  return "unknown";
}

bool cpu_has_avx512_bf16() {
#if defined(__x86_64__)
  static const bool has = can_run(Isa::avx512) && __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

}  // namespace lighten
