// Loops of constant length that are written out by the compiler from the start, so that arrays indexed by their counter live in
// registers. (gcc unrolls ordinary loops too late for that: it keeps writing such arrays to the stack.)
#pragma once
#include <utility>

#define LIGHTEN_INLINE __attribute__((always_inline))

namespace lighten::kernels {
namespace {

template <int n>
inline constexpr std::integral_constant<int, n> constant{};

/// f(0), f(1), ... f(n - 1), each argument a constant.
template <int n, class F>
LIGHTEN_INLINE inline void repeat(F f) {
  [&]<int... i>(std::integer_sequence<int, i...>) LIGHTEN_INLINE { (f(std::integral_constant<int, i>{}), ...); }
  (std::make_integer_sequence<int, n>{});
}

}  // namespace
}  // namespace lighten::kernels
