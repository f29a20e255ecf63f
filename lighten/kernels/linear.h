// Linear layers on packed low-bit and plain float weights: the one place that knows the weight layout.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "lighten/base/half.h"
#include "lighten/base/threads.h"

namespace lighten {

/// Version of the packed layout below; written into light models. A reader refuses others.
inline constexpr int kLayoutVersion = 1;

enum class PackedZero : uint8_t {
  symmetric,
  integer,
  minimum
};  ///< as formats' ZeroKind: w = s (q - 2^(b-1)) | s (q - z) | s q + m

/// How codes become numbers.
enum class PackedCodes : uint8_t {
  plain,   ///< as PackedZero says
  levels,  ///< w = s level[q]: 2^bits free levels (bits 2, 3, 4), whole numbers of -127 .. 127, one table for the matrix: NF4,
           ///< FP4, IQ4_NL. Symmetric.
  trits    ///< w = s (q - 1) with q of 0, 1, 2, five to a byte: 1.6 bits. bits 2, symmetric.
};

/// What a weight is. bits 1, 2, 3, 4, 8: packed codes with groups along the inputs (1: planes of bits); 16 with `bfloat`: f16
/// or bf16; 32: float.
struct LinearSpec {
  int bits = 4;
  PackedZero zero = PackedZero::integer;
  bool bfloat = false;     ///< bits == 16: bfloat16 instead of binary16
  int64_t rows = 0;        ///< outputs
  int64_t columns = 0;     ///< inputs
  int64_t group_size = 0;  ///< 32, 64, 128, ...: any multiple of 32 that divides columns; 0: one group per row (any width)
  PackedCodes codes = PackedCodes::plain;
  int planes = 1;  ///< bits 1: so many matrices of bits, each with its own scales, whose products are summed:
                   ///< w = sum_p s_p (q_p - z_p) or sum_p (s_p q_p + m_p). They stand one behind the other.
};
/// Most planes that check() lets through.
inline constexpr int kMostPlanes = 8;

/// Throws ModelError if the kernels cannot run it (names the numbers and what would do).
void check(const LinearSpec& spec);
/// Bytes of the packed weight, a multiple of 64. Zero points are stored in `bits` bits when bits <= 4.
size_t packed_bytes(const LinearSpec& spec);

/// Codes (one per byte, [rows, columns]), scales [rows, groups], zero points or minimums, levels [2^bits] -> packed layout.
/// Of several planes all arrays are [planes, ...].
/// `out` holds packed_bytes(), 64-byte aligned.
void pack_linear(const LinearSpec& spec, const uint8_t* codes, const Half* scales, const uint8_t* zero_points,
                 const Half* minimums, std::byte* out, const int8_t* levels = nullptr);
/// The exact inverse; any output may be null.
void unpack_linear(const LinearSpec& spec, const std::byte* packed, uint8_t* codes, Half* scales, uint8_t* zero_points,
                   Half* minimums, int8_t* levels = nullptr);
/// Float weights [rows, columns] -> packed bits == 32 or 16.
void pack_float(const LinearSpec& spec, const float* weights, std::byte* out);

/// How activations enter the product.
enum class Arithmetic : uint8_t {
  exact,     ///< float32 activations, float32 accumulation; weights dequantized to float: what tests compare
  bits16,    ///< activations rounded per block of 32 or 64 inputs: to 16 bits (low-bit weights) or to bf16 (bf16 weights); f16
             ///< and f32 weights as exact
  adaptive,  ///< to 8 bits, and to 16 where a few inputs of a block tower over the others (kernel_table.h has the rule)
  bits8,     ///< to 8 bits
};

class DeviceWeight;  // kernels/accelerator.h

/// One of several linears that read the same input.
struct LinearTask {
  LinearSpec spec;
  const std::byte* packed = nullptr;
  float* y = nullptr;
  int64_t y_stride = 0;
  const float* bias = nullptr;           ///< [rows] or null
  bool add = false;                      ///< y += the product in place of y = it: the residual stream takes it up at once
  const DeviceWeight* device = nullptr;  ///< the weight's copy on a graphics card: there the product is made, if not `exact`
};

/// What linears read: x [tokens, columns], or, with `norm`, x / sqrt(mean(x^2) + epsilon) * norm of every row, which is never
/// written to memory as a whole.
struct LinearInput {
  const float* x = nullptr;
  int64_t stride = 0;           ///< of rows, in elements
  const float* norm = nullptr;  ///< [columns] or null
  float epsilon = 0;
};

/// linear() for weights that share x (q, k, v; gate, up): the activations are rounded once and one parallel loop does it all.
/// All have the same columns.
void linear(std::span<const LinearTask> tasks, const LinearInput& input, int64_t tokens, Arithmetic arithmetic,
            ThreadPool& pool);

/// y[t, r] = sum_c x[t, c] W[r, c] (+ bias[r]) for t < tokens. x [tokens, columns], y [tokens, rows] with row strides
/// `x_stride`, `y_stride` (elements). Uses current_isa(). Deterministic for a given isa whatever the number of threads.
void linear(const LinearSpec& spec, const std::byte* packed, const float* x, int64_t x_stride, int64_t tokens, float* y,
            int64_t y_stride, const float* bias, Arithmetic arithmetic, ThreadPool& pool);

/// Row `row` of the weight in float, [columns]: the embedding lookup.
void unpack_row(const LinearSpec& spec, const std::byte* packed, int64_t row, float* out);

}  // namespace lighten
