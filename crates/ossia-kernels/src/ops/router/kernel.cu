// r = Wr t + br, the k largest of them, softmax over those (router/mod.rs), and t = rmsnorm(x) before, where a norm is given.
#include "../../cuda/common.cuh"

// A warp: the best k of one token's logits, at most 16 routes and 1024 experts; the lower index first where they tie. What is
// not a number is chosen last, so that ids are valid whatever the logits are, and stays visible in the weights.
__device__ inline void choose(const float* mine, u32* chosen, float* weights, int experts, int k) {
  const int lane = threadIdx.x % 32;
  u32 taken = 0;
  float best_of_all = 0, sum = 0, share = 0;
  for (int slot = 0; slot < k; slot++) {
    float best = -INF;
    int at = 1 << 30;
    for (int i = 0; i * 32 + lane < experts; i++) {
      float v = mine[i * 32 + lane];
      if (v != v) v = -INF;
      if (!(taken >> i & 1) && (v > best || at == 1 << 30)) { best = v; at = i * 32 + lane; }
    }
    for (int step = 16; step > 0; step >>= 1) {
      float other = __shfl_xor_sync(ALL, best, step);
      int other_at = __shfl_xor_sync(ALL, at, step);
      if (other_at != 1 << 30 && (at == 1 << 30 || other > best || (other == best && other_at < at))) { best = other; at = other_at; }
    }
    if (at % 32 == lane) taken |= 1u << (at / 32);
    const float logit = mine[at];
    if (slot == 0) best_of_all = logit;
    float e = expf(logit - best_of_all);
    sum = __fadd_rn(sum, e);
    if (slot == lane) {
      share = e;
      chosen[slot] = at;
    }
  }
  if (lane < k) weights[lane] = share / sum;
}

// Grid [E / 8, T / N], a warp an expert for N tokens; weights in f32, so that near ties are decided as the reference decides
// them. The last block of N tokens chooses for them.
template <int N> __device__ inline void route(const float* w, const float* bias, const float* x, const float* norm, float eps, float* t, float* logits, u32* chosen, float* weights, u32* counters, int experts, int cols, int k, int tokens) {
  __shared__ float parts[N][NORM_PARTS];
  DYNAMIC_SHARED(memory);
  float* rows = (float*)memory;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, expert = blockIdx.x * 8 + warp, first = blockIdx.y * N;
  const float* row = w + (u64)expert * cols;
  if (expert < experts) ask_for(row, (u64)cols * 4);
  after_others();
  for (int n = 0; n < N && norm && first + n < tokens; n++) put_square(parts[n], x + (u64)(first + n) * cols, cols);
  __syncthreads();
#pragma unroll
  for (int n = 0; n < N; n++) {
    const bool real = first + n < tokens;
    const float scale = norm && real ? norm_scale(parts[n], cols, eps) : 0;
    for (int i = threadIdx.x; i < cols; i += 256) {
      float v = real ? x[(u64)(first + n) * cols + i] : 0;
      if (norm && real) v = v * scale * norm[i];
      rows[n * cols + i] = v;
      if (norm && real && blockIdx.x == 0) t[(u64)(first + n) * cols + i] = v;
    }
  }
  __syncthreads();
  if (expert < experts) {
    float sums[N];
#pragma unroll
    for (int n = 0; n < N; n++) sums[n] = 0;
    for (int i = 2 * lane; i < cols; i += 64) {
      float2 a = *(const float2*)(row + i);
#pragma unroll
      for (int n = 0; n < N; n++) {
        float2 b = *(const float2*)(rows + n * cols + i);
        sums[n] = fmaf(a.y, b.y, fmaf(a.x, b.x, sums[n]));
      }
    }
#pragma unroll
    for (int n = 0; n < N; n++) {
      float sum = warp_sum(sums[n]);
      if (lane == 0 && first + n < tokens) logits[(u64)(first + n) * experts + expert] = sum + bias[expert];
    }
  }
  if (!comes_last(counters + blockIdx.y, gridDim.x)) return;
  const u64 token = first + warp;
  if (warp < N && token < tokens) choose(logits + token * experts, chosen + token * k, weights + token * k, experts, k);
}

#define ROUTE const float *w, const float *bias, const float *x, const float *norm, float eps, float *t, float *logits, u32 *chosen, float *weights, u32 *counters, int experts, int cols, int k, int tokens
extern "C" __global__ void __launch_bounds__(256) router_1(ROUTE) { route<1>(w, bias, x, norm, eps, t, logits, chosen, weights, counters, experts, cols, k, tokens); }
KERNEL(router_1)
extern "C" __global__ void __launch_bounds__(256, 2) router_4(ROUTE) { route<4>(w, bias, x, norm, eps, t, logits, chosen, weights, counters, experts, cols, k, tokens); }
KERNEL(router_4)

// The choice alone, where logits were changed. Grid [T / 8], a warp a token.
extern "C" __global__ void __launch_bounds__(256) router_choose(const float* logits, u32* chosen, float* weights, int experts, int k, int tokens) {
  after_others();
  const u64 token = blockIdx.x * 8 + threadIdx.x / 32;
  if (token < tokens) choose(logits + token * experts, chosen + token * k, weights + token * k, experts, k);
}
KERNEL(router_choose)
