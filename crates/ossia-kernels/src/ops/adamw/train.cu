// AdamW, element by element (adamw/mod.rs).
#include "../../cuda/common.cuh"

// Grid [n / 256].
extern "C" __global__ void __launch_bounds__(256) adamw(float* p, const float* g, float* m, float* v, u64 n, float lr, float b1, float b2, float eps, float decay, float scale, float c1, float c2) {
  after_others();
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i >= n) return;
  float own = g[i] * scale, first = fmaf(b1, m[i], (1.0f - b1) * own), second = fmaf(b2, v[i], (1.0f - b2) * own * own);
  m[i] = first;
  v[i] = second;
  float by = first * c1 / (sqrtf(second * c2) + eps);
  p[i] -= lr * fmaf(decay, p[i], by);
}
KERNEL(adamw)
