// Gradients of the router in f32, as it decides (router/backward.rs).
#include "../../cuda/columns.cuh"

// dr [T, E] of one token a warp: balancing over all experts, then what the chosen ones' weights say. Grid [T / 8].
extern "C" __global__ void __launch_bounds__(256) router_logits(const float* logits, const u32* chosen, const float* weights, const float* d_weights, const float* load, float z, float* d, int tokens, int experts, int k) {
  after_others();
  const int token = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (token >= tokens) return;
  const float* mine = logits + (u64)token * experts;
  float* out = d + (u64)token * experts;
  float most = -INF;
  for (int e = lane; e < experts; e += 32) most = fmaxf(most, mine[e]);
  most = warp_max(most);
  float sum = 0, dots = 0;
  for (int e = lane; e < experts; e += 32) {
    float p = expf(mine[e] - most);
    sum += p;
    dots = fmaf(p, load[e], dots);
  }
  sum = warp_sum(sum);
  float mean = warp_sum(dots) / sum, lift = 2.0f * z * (most + logf(sum)), share = 0;
  const u64 first = (u64)token * k;
  for (int i = 0; i < k; i++) share = fmaf(weights[first + i], d_weights[first + i], share);
  for (int e = lane; e < experts; e += 32) {
    float v = expf(mine[e] - most) / sum * (load[e] - mean + lift);
    for (int i = 0; i < k; i++)
      if (chosen[first + i] == (u32)e) v += weights[first + i] * (d_weights[first + i] - share);
    out[e] = v;
  }
}
KERNEL(router_logits)

struct Outer {
  const float *d, *x;
  int experts, cols, expert;
  __device__ inline float operator()(int row, int column) const { return d[(u64)row * experts + expert] * x[(u64)row * cols + column]; }
};

// dW [E, D] += drᵀ t. Grid [D / 32, E].
extern "C" __global__ void __launch_bounds__(1024) router_weights(const float* d, const float* x, float* out, int tokens, int experts, int cols) {
  after_others();
  Outer value = {d, x, experts, cols, (int)blockIdx.y};
  add_columns(0, tokens, cols, out + (u64)blockIdx.y * cols, value);
}
KERNEL(router_weights)

// dt [T, D] += dr W. Grid [T].
extern "C" __global__ void __launch_bounds__(256) router_input(const float* d, const float* w, float* dt, int experts, int cols) {
  after_others();
  const float* mine = d + (u64)blockIdx.x * experts;
  for (int c = threadIdx.x; c < cols; c += 256) {
    float sum = 0;
    for (int e = 0; e < experts; e++) sum = fmaf(mine[e], w[(u64)e * cols + c], sum);
    dt[(u64)blockIdx.x * cols + c] += sum;
  }
}
KERNEL(router_input)
