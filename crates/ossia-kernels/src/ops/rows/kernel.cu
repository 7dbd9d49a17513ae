// y = the rows of x that want logits (rows/mod.rs).
#include "../../cuda/common.cuh"

// Grid [R].
extern "C" __global__ void __launch_bounds__(256) wanted_rows(const u32* rows, const float* x, float* y, int cols) {
  after_others();
  const float* from = x + (u64)rows[blockIdx.x] * cols;
  for (int i = threadIdx.x; i < cols; i += 256) y[(u64)blockIdx.x * cols + i] = from[i];
}
KERNEL(wanted_rows)
