// What the machine can do at most, to say of a speed what share of that it is.
#pragma once
#include "lighten/base/threads.h"

namespace lighten {

/// With all threads of a pool: bytes read from memory (256 MB, best of nine passes), and two per multiply-add of u8 x s8 and of
/// float32 products on registers alone, with the widest instructions that current_isa() uses. 0 where there is no such loop.
struct Roofs {
  double read_gb_per_s = 0, integer_gops = 0, float_gflops = 0;
};
Roofs measure_roofs(ThreadPool& pool);

}  // namespace lighten
