#include "lighten/kernels/scalar.h"
namespace lighten::kernels {
KernelTable avx512_table(bool) { return scalar_table(); }
}  // namespace lighten::kernels
