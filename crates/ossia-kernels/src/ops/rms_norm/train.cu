// Gradients of a norm (rms_norm/backward.rs).
#include "../../cuda/columns.cuh"

// A sum over a block of 256 threads, known to all of them.
__device__ inline float block_sum(float* parts, float v) {
  v = warp_sum(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  float all = 0;
  for (int i = 0; i < 8; i++) all += parts[i];
  return all;
}

// Grid [R]: dx of row rows[i], or i, grows by what dy's row i says; r of each row is kept.
extern "C" __global__ void __launch_bounds__(256) rms_norm_backward(const float* x, const float* weight, float eps, const u32* rows, const float* dy, float* dx, float* scales, int cols) {
  __shared__ float parts[8];
  after_others();
  const u64 at = (u64)(rows ? rows[blockIdx.x] : blockIdx.x) * cols;
  const float *from = x + at, *back = dy + (u64)blockIdx.x * cols;
  float squares = 0, dots = 0;
  for (int i = threadIdx.x; i < cols; i += 256) {
    squares = fmaf(from[i], from[i], squares);
    dots = fmaf(back[i] * weight[i], from[i], dots);
  }
  float r = 1.0f / sqrtf(block_sum(parts, squares) / (float)cols + eps);
  float mean = r * r * block_sum(parts, dots) / (float)cols;
  if (threadIdx.x == 0) scales[blockIdx.x] = r;
  for (int i = threadIdx.x; i < cols; i += 256) dx[at + i] += r * (back[i] * weight[i] - from[i] * mean);
}
KERNEL(rms_norm_backward)

struct Term {
  const float *x, *dy, *scales;
  const u32* rows;
  int cols;
  __device__ inline float operator()(int row, int column) const {
    return dy[(u64)row * cols + column] * x[(u64)(rows ? rows[row] : row) * cols + column] * scales[row];
  }
};

// dg += the sum over rows of dy x r. Grid [D / 32].
extern "C" __global__ void __launch_bounds__(1024) rms_norm_weight(const float* x, const u32* rows, const float* dy, const float* scales, float* out, int count, int cols) {
  after_others();
  Term value = {x, dy, scales, rows, cols};
  add_columns(0, count, cols, out, value);
}
KERNEL(rms_norm_weight)
