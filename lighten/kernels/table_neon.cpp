#include "lighten/kernels/table_neon.h"

namespace lighten::kernels {

KernelTable neon_table() { return table_of_lanes(); }

}  // namespace lighten::kernels
