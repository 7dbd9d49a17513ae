// y = W x + b, and y += W x + b (linear/mod.rs), with W in bf16.
//
// `few`: one warp for each part of k, for 8 to 64 tokens at once, where reading the weights is all that takes time. `many`: a
// warp adds up all parts of two tiles of rows and eight of tokens. The bits are the same.
#include "../../cuda/products.cuh"

__device__ inline void out(float value, const float* bias, float* y, int rows, int tokens, int row, int token, int add) {
  if (row >= rows || token >= tokens) return;
  float* at = y + (u64)token * rows + row;
  float v = bias ? value + bias[row] : value;
  *at = add ? *at + v : v;
}

template <int RT, int NT, class Tokens>
__device__ inline void few(const uint4* w, const float* bias, const Tokens& x, float* y, int rows, int tokens, int steps, int add) {
  DYNAMIC_SHARED(memory);
  float* parts = (float*)memory;
  const int part = threadIdx.x / 32, first = blockIdx.x * RT, last = (rows + 15) / 16 - 1;
  float c[RT][NT][4];
  clear(c);
  // A second tile past the last is read as the first again, and not written.
  u64 stride = first + 1 <= last ? (u64)steps * 32 : 0;
  add_bf16(c, w + (u64)first * steps * 32, stride, part_start(part, steps), part_start(part + 1, steps), x);
  put_part<RT, NT>(parts, c);
  __syncthreads();
  for (int i = threadIdx.x; i < RT * 16 * NT * 8; i += PARTS * 32) {
    int row = i % 16, tile = i / 16 % RT, token = i / (16 * RT);
    out(sum_parts<RT, NT>(parts, tile, row, token), bias, y, rows, tokens, (first + tile) * 16 + row, blockIdx.y * NT * 8 + token, add);
  }
}

// Grid [tiles of rows, tiles of tokens], straight from the floats.
extern "C" __global__ void __launch_bounds__(256) linear_few_8(const uint4* w, const float* bias, const float* x, float* y, int rows, int cols, int tokens, int add) {
  int token = blockIdx.y * 8 + threadIdx.x % 32 / 4;
  Rows<1> tokens_of = {{token < tokens ? x + (u64)token * cols : nullptr}, cols};
  few<1, 1>(w, bias, tokens_of, y, rows, tokens, cols / 16, add);
}
KERNEL(linear_few_8)

#define FEW(name, RT, NT)                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) name(const uint4* w, const float* bias, const uint2* x, float* y, int rows, int cols, int tokens, int add) { \
    int steps = cols / 16;                                                                                                             \
    Packed tokens_of = {x + (u64)blockIdx.y * NT * steps * 32, steps};                                                                  \
    few<RT, NT>(w, bias, tokens_of, y, rows, tokens, steps, add);                                                                      \
  }                                                                                                                                    \
  KERNEL(name)
FEW(linear_few_16, 1, 2)
FEW(linear_few_32, 1, 4)
FEW(linear_few_64, 2, 8)

// Grid [tiles of rows / 8, tiles of tokens / 8], four warps.
extern "C" __global__ void __launch_bounds__(128) linear_many(const uint4* w, const float* bias, const uint2* x, float* y, int rows, int cols, int tokens, int add) {
  const int steps = cols / 16, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int first = (blockIdx.x * 4 + threadIdx.x / 32) * 2, last = (rows + 15) / 16 - 1;
  if (first > last) return;
  Packed tokens_of = {x + (u64)blockIdx.y * 8 * steps * 32, steps};
  float sum[2][8][4];
  for (int part = 0; part < PARTS; part++) {
    float c[2][8][4];
    clear(c);
    add_bf16(c, w + (u64)first * steps * 32, first + 1 <= last ? (u64)steps * 32 : 0, part_start(part, steps), part_start(part + 1, steps), tokens_of);
    if (part == 0) clear(sum);
    add_to(sum, c);
  }
#pragma unroll
  for (int r = 0; r < 2; r++)
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        out(sum[r][n][i], bias, y, rows, tokens, (first + r) * 16 + g + (i / 2) * 8, (blockIdx.y * 8 + n) * 8 + 2 * t + i % 2, add);
}
KERNEL(linear_many)

// x [T, K] to bf16 as `Packed` reads it. Grid [steps / 8, tiles of tokens], a warp a step; missing tokens are zeros.
extern "C" __global__ void __launch_bounds__(256) linear_pack(const float* x, uint2* packed, int cols, int tokens) {
  int steps = cols / 16, step = blockIdx.x * 8 + threadIdx.x / 32, token = blockIdx.y * 8 + threadIdx.x % 32 / 4;
  if (step >= steps) return;
  Rows<1> row = {{token < tokens ? x + (u64)token * cols : nullptr}, cols};
  packed[((u64)blockIdx.y * steps + step) * 32 + threadIdx.x % 32] = row.fragment(0, step);
}
KERNEL(linear_pack)
