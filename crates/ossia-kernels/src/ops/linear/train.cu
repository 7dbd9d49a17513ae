// Products of training, and sums over rows (linear/cuda_train.rs). Where rows are grouped, as pairs are by expert, group e has
// the rows starts[e] to starts[e + 1], and what belongs to it lies e * `step` numbers on, its bias e * `bias_step`; without `starts` all are one group.
#include "../../cuda/columns.cuh"
#include "../../cuda/gemm.cuh"

#define PRODUCT(Left, Right) const Left *a, const Right *b, const float *bias, float *c, const u32 *starts, int groups, u64 step, u64 bias_step, int m, int n, int depth, int add

// Grid [N / 128, M / 128 + groups]: rows of C are grouped, and each group has its own B [N, depth] or [depth, N].
template <class Right, bool ALONG> __device__ inline void rows(PRODUCT(float, Right)) {
  after_others();
  int tile = blockIdx.y, first = 0, count = m, group = 0;
  if (starts) {
    for (; group < groups; group++) {
      first = starts[group], count = starts[group + 1] - first;
      int tiles = (count + TILE_SIDE - 1) / TILE_SIDE;
      if (tile < tiles) break;
      tile -= tiles;
    }
    if (group == groups) return;
  }
  if (tile * TILE_SIDE >= count) return;
  Operand<float, true> left = {a + (u64)first * depth, depth, count};
  Operand<Right, ALONG> right = {b + group * step, ALONG ? depth : n, n};
  Target out = {c + (u64)first * n, bias ? bias + group * bias_step : nullptr, n, add};
  product(left, right, depth, out, tile * TILE_SIDE, blockIdx.x * TILE_SIDE);
}

// y = x Wᵀ + b; dx = dy W; and the same of two matrices of floats.
extern "C" __global__ void __launch_bounds__(256) product_rows(PRODUCT(float, u16)) { rows<u16, true>(a, b, bias, c, starts, groups, step, bias_step, m, n, depth, add); }
KERNEL(product_rows)
extern "C" __global__ void __launch_bounds__(256) product_columns(PRODUCT(float, u16)) { rows<u16, false>(a, b, bias, c, starts, groups, step, bias_step, m, n, depth, add); }
KERNEL(product_columns)
extern "C" __global__ void __launch_bounds__(256) product_rows_f32(PRODUCT(float, float)) { rows<float, true>(a, b, bias, c, starts, groups, step, bias_step, m, n, depth, add); }
KERNEL(product_rows_f32)
extern "C" __global__ void __launch_bounds__(256) product_columns_f32(PRODUCT(float, float)) { rows<float, false>(a, b, bias, c, starts, groups, step, bias_step, m, n, depth, add); }
KERNEL(product_columns_f32)

// C [M, N] = Aᵀ B of A [rows, M], B [rows, N]: dW. Grid [N / 128, M / 128, groups]: each group of rows has its own C.
extern "C" __global__ void __launch_bounds__(256) product_outer(PRODUCT(float, float)) {
  after_others();
  int first = starts ? starts[blockIdx.z] : 0, count = (starts ? starts[blockIdx.z + 1] : depth) - first;
  if (count == 0 && add) return;
  Operand<float, false> left = {a + (u64)first * m, m, m}, right = {b + (u64)first * n, n, n};
  Target out = {c + blockIdx.z * step, nullptr, n, add};
  product(left, right, count, out, blockIdx.y * TILE_SIDE, blockIdx.x * TILE_SIDE);
}
KERNEL(product_outer)

struct Weighed {
  const float *x, *weights;
  int cols;
  __device__ inline float operator()(int row, int column) const {
    float v = x[(u64)row * cols + column];
    return weights ? v * weights[row] : v;
  }
};

// out [cols] of each group += the sum of its rows of x [rows, cols], times weights [rows] where there are some. Grid [cols / 32, groups].
extern "C" __global__ void __launch_bounds__(1024) add_rows(const float* x, const float* weights, const u32* starts, u64 step, float* out, int rows, int cols) {
  after_others();
  Weighed value = {x, weights, cols};
  add_columns(starts ? starts[blockIdx.y] : 0, starts ? starts[blockIdx.y + 1] : rows, cols, out + blockIdx.y * step, value);
}
KERNEL(add_rows)
