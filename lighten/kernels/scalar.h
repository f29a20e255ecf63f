// The scalar kernels: see KernelTable for what each one computes.
#pragma once
#include "lighten/kernels/kernel_table.h"

namespace lighten::kernels::scalar {

void quantize(const float* x, int64_t blocks, int block, int lanes, int fine_ratio, uint8_t flip, const CodeLane& to);
void expand(const Layout& l, const uint8_t* tile, int64_t first, int64_t blocks, const CodeTile& to);
void multiply_codes(int bits, const CodeTiles& w, int tiles, int block, int64_t blocks, const CodePanel& panel, int lanes,
                    float* y, int64_t y_stride);
void dequantize(const Layout& l, const uint8_t* tile, int64_t first, int64_t columns, float* w);
void multiply_floats(const float* w, const float* x, int64_t columns, int lanes, float* y);

void attend(const AttentionPart& part);
void rms_norm(const float* x, const float* weight, float epsilon, int64_t n, int64_t width, float* y);
void rope(float* heads, int64_t n_heads, int64_t head_dim, const float* cos, const float* sin);
void silu_mul(float* gate, const float* up, int64_t n);
void gelu_tanh_mul(float* gate, const float* up, int64_t n);
void add(float* out, const float* x, int64_t n);
void to_half(const float* x, Half* out, int64_t n);
double log_sum_exp(const float* x, int64_t n);
int64_t argmax(const float* x, int64_t n);

}  // namespace lighten::kernels::scalar
