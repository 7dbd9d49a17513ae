// y = x / sqrt(mean(x^2) + eps) * g (rms_norm/mod.rs).
#include "../../cuda/common.cuh"

// Grid [T]; row t of y comes from row rows[t] of x, where rows are given.
extern "C" __global__ void __launch_bounds__(256) rms_norm(const float* x, const float* weight, const u32* rows, float* y, int cols, float eps) {
  __shared__ float parts[NORM_PARTS];
  after_others();
  const float* from = x + (u64)(rows ? rows[blockIdx.x] : blockIdx.x) * cols;
  float* to = y + (u64)blockIdx.x * cols;
  put_square(parts, from, cols);
  __syncthreads();
  float scale = norm_scale(parts, cols, eps);
  for (int i = threadIdx.x; i < cols; i += 256) to[i] = from[i] * scale * weight[i];
}
KERNEL(rms_norm)

// Sets *bad where a number of x [n] is not finite.
extern "C" __global__ void __launch_bounds__(256) find_bad(const float* x, u64 n, u32* bad) {
  after_others();
  bool found = false;
  for (u64 i = (u64)blockIdx.x * 256 + threadIdx.x; i < n; i += (u64)gridDim.x * 256) found |= !(fabsf(x[i]) < INF);
  if (found) atomicOr(bad, 1u);
}
KERNEL(find_bad)
