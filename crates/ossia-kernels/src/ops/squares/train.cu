// Sums of squares (squares/mod.rs).
#include "../../cuda/common.cuh"

struct Share { u64 first, count; };

// Grid [shares].
extern "C" __global__ void __launch_bounds__(256) squares(const float* x, const Share* shares, double* out) {
  __shared__ double parts[8];
  after_others();
  const Share share = shares[blockIdx.x];
  double sum = 0;
  for (u64 i = threadIdx.x; i < share.count; i += 256) {
    double v = x[share.first + i];
    sum += v * v;
  }
  for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(ALL, sum, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < 8; i++) sum += parts[i];
  out[blockIdx.x] = sum;
}
KERNEL(squares)
