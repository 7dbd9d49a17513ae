// r = Wr t + br, the k largest of them, softmax over those (router/mod.rs).
#include "../../cuda/common.cuh"

// Grid [E / 8, T], a warp an expert; weights in f32, so that near ties are decided as the reference decides them.
extern "C" __global__ void __launch_bounds__(256) router_logits(const float* w, const float* bias, const float* t, float* logits, int experts, int cols) {
  int expert = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (expert >= experts) return;
  const float *row = w + (u64)expert * cols, *x = t + (u64)blockIdx.y * cols;
  float sum = 0;
  for (int i = 2 * lane; i < cols; i += 64) {
    float2 a = *(const float2*)(row + i), b = *(const float2*)(x + i);
    sum = fmaf(a.y, b.y, fmaf(a.x, b.x, sum));
  }
  sum = warp_sum(sum);
  if (lane == 0) logits[(u64)blockIdx.y * experts + expert] = sum + bias[expert];
}
KERNEL(router_logits)

// Grid [T], a warp a token, at most 16 routes and 1024 experts: the best k, the lower index first where they tie.
extern "C" __global__ void __launch_bounds__(32) router_choose(const float* logits, u32* chosen, float* weights, int experts, int k) {
  const float* mine = logits + (u64)blockIdx.x * experts;
  int lane = threadIdx.x;
  u32 taken = 0;
  float best_of_all = 0, sum = 0, share = 0;
  for (int slot = 0; slot < k; slot++) {
    float best = -INF;
    int at = 1 << 30;
    for (int i = 0; i * 32 + lane < experts; i++) {
      float v = mine[i * 32 + lane];
      if (!(taken >> i & 1) && (v > best || at == 1 << 30)) { best = v; at = i * 32 + lane; }
    }
    for (int step = 16; step > 0; step >>= 1) {
      float other = __shfl_xor_sync(ALL, best, step);
      int other_at = __shfl_xor_sync(ALL, at, step);
      if (other_at != 1 << 30 && (at == 1 << 30 || other > best || (other == best && other_at < at))) { best = other; at = other_at; }
    }
    if (at % 32 == lane) taken |= 1u << (at / 32);
    if (slot == 0) best_of_all = best;
    float e = expf(best - best_of_all);
    sum += e;
    if (slot == lane) {
      share = e;
      chosen[(u64)blockIdx.x * k + slot] = at;
    }
  }
  if (lane < k) weights[(u64)blockIdx.x * k + lane] = share / sum;
}
KERNEL(router_choose)
