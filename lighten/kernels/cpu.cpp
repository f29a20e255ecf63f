#include "lighten/kernels/cpu.h"

#include <algorithm>
#include <atomic>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "lighten/base/error.h"

namespace lighten {
namespace {

#if defined(__x86_64__)
// Clang before 15 does not know the name "f16c" in its builtin.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

bool can_run(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return true;
#if defined(__x86_64__)
    // The builtins also ask whether the operating system saves the wide registers.
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case Isa::avx512:
      return can_run(Isa::avx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__)
    case Isa::neon:  // every AArch64 processor has it
      return true;
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

bool cpu_has_dotprod() {
#if defined(__aarch64__) && defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return false;
#endif
}

bool cpu_has_i8mm() {
#if defined(__aarch64__) && defined(__linux__)
  return cpu_has_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#else
  return false;
#endif
}

}  // namespace lighten
