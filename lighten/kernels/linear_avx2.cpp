#include "lighten/kernels/scalar.h"
namespace lighten::kernels {
KernelTable avx2_table() { return scalar_table(); }
}  // namespace lighten::kernels
