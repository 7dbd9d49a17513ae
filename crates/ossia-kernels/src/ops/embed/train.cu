// The gradient of the table (embed/mod.rs).
#include "../../cuda/common.cuh"

// Row ids[i] of the table grows by the rows order[starts[i]] to order[starts[i + 1]] of dx, in their order. Grid [different tokens].
extern "C" __global__ void __launch_bounds__(256) embed_backward(const u32* ids, const u32* starts, const u32* order, const float* dx, float* table, int cols) {
  after_others();
  float* to = table + (u64)ids[blockIdx.x] * cols;
  for (int c = threadIdx.x; c < cols; c += 256) {
    float sum = to[c];
    for (u32 at = starts[blockIdx.x]; at < starts[blockIdx.x + 1]; at++) sum += dx[(u64)order[at] * cols + c];
    to[c] = sum;
  }
}
KERNEL(embed_backward)
