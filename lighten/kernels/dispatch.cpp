#include "lighten/kernels/cpu.h"
#include "lighten/kernels/kernel_table.h"

namespace lighten::kernels {

const KernelTable& table() {
  static const KernelTable scalar = scalar_table();
#if defined(__x86_64__)
  static const KernelTable avx2 = avx2_table();
  static const KernelTable avx512 = avx512_table(cpu_has_avx512_bf16());
  switch (current_isa()) {
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx512;
    default:
      break;
  }
#elif defined(__aarch64__)
  static const KernelTable neon = cpu_has_i8mm() ? neon_i8mm_table() : cpu_has_dotprod() ? neon_dotprod_table() : neon_table();
  if (current_isa() == Isa::neon) return neon;
#endif
  return scalar;
}

}  // namespace lighten::kernels
