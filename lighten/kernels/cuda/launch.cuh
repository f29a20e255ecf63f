// Chooses the kernel for a call.
#pragma once
#include <algorithm>
#include <type_traits>

#include "lighten/kernels/cuda/gemm.cuh"
#include "lighten/kernels/cuda/start.cuh"

namespace lighten::cuda {

/// Shared memory beyond 48 KB has to be asked for, once.
template <typename Kernel>
void allow_shared(Kernel kernel, size_t bytes) {
  if (bytes > 48 * 1024)
    expect_ok(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
              "shared memory");
}

template <int kBits, int kZeros, bool kWide, int kEights, bool kOne>
void start_gemv(const Call& call, const Launch& how) {
  const auto kernel = gemv<kBits, kZeros, kWide, kEights, kOne>;
  const size_t padded = static_cast<size_t>(call.blocks) * 64;
  size_t shared = kGemvWarps * (static_cast<size_t>(kRingSlots * Slot<kBits, kZeros, kWide>::bytes) +
                                2 * (kOne ? 1 : 8 * kEights) * 16 * sizeof(float));
  if (kOne) shared += padded * sizeof(__half) + padded / 32 * sizeof(float);
  allow_shared(kernel, shared);
  int resident = 0;
  expect_ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, kGemvThreads, shared), "occupancy");
  const int grid = std::min(call.work, how.processors * std::max(resident, 1));
  start(kernel, dim3(static_cast<unsigned>(grid)), kGemvThreads, shared, how, call);
}

template <int kBits, bool kMinimum, bool kWide, int kTokens>
void start_gemm(const Call& call, const Launch& how) {
  const auto kernel = gemm<kBits, kMinimum, kWide, kTokens>;
  constexpr size_t shared = static_cast<size_t>(kStages) * kTokens * 128;
  allow_shared(kernel, shared);
  start(kernel, dim3(static_cast<unsigned>(call.work), static_cast<unsigned>((call.tokens + kTokens - 1) / kTokens)),
        kGemmWarps * 32, shared, how, call);
}

template <int kBits, int kZeros, bool kWide>
void choose(const Call& call, const Launch& how) {
  if (call.tokens == 1) return start_gemv<kBits, kZeros, kWide, 1, true>(call, how);
  if (call.tokens <= 8) return start_gemv<kBits, kZeros, kWide, 1, false>(call, how);
  if (call.tokens <= 16) return start_gemv<kBits, kZeros, kWide, 2, false>(call, how);
  if (call.tokens <= kGemvTokens) return start_gemv<kBits, kZeros, kWide, 4, false>(call, how);
  constexpr bool minimum = kZeros == kMinimums;
  // Wide pieces reuse weights more, narrow ones fill the card.
  if (call.tokens > 64 && call.work * ((call.tokens + 127) / 128) >= how.processors)
    return start_gemm<kBits, minimum, kWide, 128>(call, how);
  start_gemm<kBits, minimum, kWide, 64>(call, how);
}

template <int kBits>
void launch(const Call& call, const Launch& how) {
  const auto with = [&](auto zeros) {
    constexpr int kind = decltype(zeros)::value;
    return call.group_shift > 0 ? choose<kBits, kind, true>(call, how) : choose<kBits, kind, false>(call, how);
  };
  if (call.minimum) return with(std::integral_constant<int, kMinimums>());
  if (call.zero_group_bytes > 0) return with(std::integral_constant<int, kCodeZeros>());
  with(std::integral_constant<int, kNoZeros>());
}

}  // namespace lighten::cuda
