// Muon (muon/mod.rs) but its products.
#include "../../cuda/common.cuh"

static const int SHARE = 4096;

// m = β m + g, u = g + β m, put to x as [rows, cols], or turned; and a sum of squares of each SHARE numbers. Grid [n / SHARE].
extern "C" __global__ void __launch_bounds__(256) muon_momentum(const float* g, float* m, float* x, double* squares, int rows, int cols, int turned, float beta, float scale) {
  __shared__ double parts[8];
  after_others();
  const u64 n = (u64)rows * cols, start = (u64)blockIdx.x * SHARE, end = start + SHARE < n ? start + SHARE : n;
  double sum = 0;
  for (u64 i = start + threadIdx.x; i < end; i += 256) {
    float own = scale * g[i], momentum = beta * m[i] + own, u = own + beta * momentum;
    m[i] = momentum;
    sum += (double)u * u;
    x[turned ? i % cols * rows + i / cols : i] = u;
  }
  for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(ALL, sum, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < 8; i++) sum += parts[i];
  squares[blockIdx.x] = sum;
}
KERNEL(muon_momentum)

// One over the length whose squares were added in `count` shares. One block.
extern "C" __global__ void __launch_bounds__(256) muon_length(const double* squares, int count, float* by) {
  __shared__ double parts[8];
  after_others();
  double sum = 0;
  for (int i = threadIdx.x; i < count; i += 256) sum += squares[i];
  for (int step = 16; step > 0; step >>= 1) sum += __shfl_xor_sync(ALL, sum, step);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < 8; i++) sum += parts[i];
  *by = (float)(1.0 / (sqrt(sum) + 1e-7));
}
KERNEL(muon_length)

// x *= by. Grid [n / 256].
extern "C" __global__ void __launch_bounds__(256) muon_scale(float* x, const float* by, u64 n) {
  after_others();
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i < n) x[i] *= *by;
}
KERNEL(muon_scale)

// out = a x + b y. Grid [n / 256].
extern "C" __global__ void __launch_bounds__(256) muon_mix(float* out, float a, const float* x, float b, const float* y, u64 n) {
  after_others();
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i < n) out[i] = y ? a * x[i] + b * y[i] : a * x[i];
}
KERNEL(muon_mix)

// p -= lr (scale o + decay p), o as `muon_momentum` has put it. Grid [n / 256].
extern "C" __global__ void __launch_bounds__(256) muon_apply(float* p, const float* o, int rows, int cols, int turned, float lr, float scale, float decay) {
  after_others();
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= (u64)rows * cols) return;
  float direction = o[turned ? i % cols * rows + i / cols : i];
  p[i] -= lr * (scale * direction + decay * p[i]);
}
KERNEL(muon_apply)
