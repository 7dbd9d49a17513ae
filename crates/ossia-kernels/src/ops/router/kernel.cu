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


#define ROUTE const float *w, const float *bias, const float *x, const float *norm, float eps, float *t, float *logits, u32 *chosen, float *weights, u32 *counters, int experts, int cols, int k, int tokens

// A row of weights times a row of a token: each of 256 threads has a chain over its pieces, a lane sums the chains of the
// threads that are it in each of eight warps, and the lanes of a warp are added. A block does that for one expert and token, or a
// warp for eight threads after each other.
__device__ inline void put_piece(float* at, const Eight& u) {
  ((float4*)at)[0] = make_float4(u.v[0], u.v[1], u.v[2], u.v[3]);
  ((float4*)at)[1] = make_float4(u.v[4], u.v[5], u.v[6], u.v[7]);
}
__device__ inline float chain(float sum, const Eight& a, const Eight& b) {
#pragma unroll
  for (int i = 0; i < 8; i++) sum = fmaf(a.v[i], b.v[i], sum);
  return sum;
}

// Grid [E, T], a block an expert for one token of up to 4,096 columns, all of which are asked for at once: every token waits
// for this. Weights in f32, so that near ties are decided as the reference decides them. A token's last block chooses for it.
extern "C" __global__ void __launch_bounds__(256) router_one(ROUTE) {
  const int PER = 2, tid = threadIdx.x;
  __shared__ float parts[NORM_PARTS], chains[8][32];
  const u64 token = blockIdx.y, expert = blockIdx.x;
  Eight a[PER], g[PER], b[PER];
#pragma unroll
  for (int u = 0; u < PER; u++) {
    a[u] = piece_at(w + expert * cols, tid + 256 * u, cols);
    if (norm) g[u] = piece_at(norm, tid + 256 * u, cols);
  }
  const float base = bias[expert];
  after_others();
  float sum = 0;
#pragma unroll
  for (int u = 0; u < PER; u++) {
    b[u] = piece_at(x + token * cols, tid + 256 * u, cols);
    sum = square_of(sum, b[u]);
  }
  if (norm) {
    put_square(parts, sum);
    __syncthreads();
    const float scale = norm_scale(parts, cols, eps);
#pragma unroll
    for (int u = 0; u < PER; u++) {
      b[u] = normed(b[u], scale, g[u]);
      if (expert == 0 && 8 * (tid + 256 * u) < cols) put_piece(t + token * cols + 8 * (tid + 256 * u), b[u]);
    }
  }
  sum = 0;
#pragma unroll
  for (int u = 0; u < PER; u++) sum = chain(sum, a[u], b[u]);
  chains[tid / 32][tid % 32] = sum;
  __syncthreads();
  if (tid < 32) {
    sum = 0;
#pragma unroll
    for (int p = 0; p < 8; p++) sum += chains[p][tid];
    sum = warp_sum(sum);
    if (tid == 0) logits[token * experts + expert] = sum + base;
  }
  if (comes_last(counters + token, gridDim.x) && tid < 32) choose(logits + token * experts, chosen + token * k, weights + token * k, experts, k);
}
KERNEL(router_one)

// Grid [T / N], eight warps that have four experts in turn for N tokens.
template <int N> __device__ inline void route(ROUTE) {
  const int EACH = 4, warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * N;
  __shared__ float parts[N][NORM_PARTS];
  // Rows, as the first halves of all pieces and the second.
  DYNAMIC_SHARED(memory);
  float4* rows = (float4*)memory;
  const int pieces = cols / 8;
  after_others();
  for (int n = 0; n < N && norm && first + n < tokens; n++) put_square(parts[n], x + (u64)(first + n) * cols, cols);
  __syncthreads();
#pragma unroll
  for (int n = 0; n < N; n++) {
    const bool real = first + n < tokens;
    const float scale = norm && real ? norm_scale(parts[n], cols, eps) : 0;
    for (int piece = threadIdx.x; piece < pieces; piece += 256) {
      const u64 row = (u64)(first + n) * cols;
      Eight u = {};
      if (real) u = piece_at(x + row, piece, cols);
      if (norm && real) {
        u = normed(u, scale, piece_at(norm, piece, cols));
        put_piece(t + row + 8 * piece, u);
      }
      rows[2 * n * pieces + piece] = make_float4(u.v[0], u.v[1], u.v[2], u.v[3]);
      rows[(2 * n + 1) * pieces + piece] = make_float4(u.v[4], u.v[5], u.v[6], u.v[7]);
    }
  }
  __syncthreads();
  for (int expert = warp * EACH; expert < experts; expert += 8 * EACH) {
    float sums[EACH][N] = {};
    for (int p = 0; p < 8; p++) {
      float chains[EACH][N] = {};
      for (int piece = p * 32 + lane; piece < pieces; piece += 256) {
        Eight a[EACH];
#pragma unroll
        for (int e = 0; e < EACH; e++) a[e] = piece_at(w + (u64)(expert + e < experts ? expert + e : expert) * cols, piece, cols);
#pragma unroll
        for (int n = 0; n < N; n++) {
          const float4 low = rows[2 * n * pieces + piece], high = rows[(2 * n + 1) * pieces + piece];
          const Eight b = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
#pragma unroll
          for (int e = 0; e < EACH; e++) chains[e][n] = chain(chains[e][n], a[e], b);
        }
      }
#pragma unroll
      for (int e = 0; e < EACH; e++)
#pragma unroll
        for (int n = 0; n < N; n++) sums[e][n] += chains[e][n];
    }
#pragma unroll
    for (int e = 0; e < EACH; e++)
#pragma unroll
      for (int n = 0; n < N; n++) {
        float sum = warp_sum(sums[e][n]);
        if (lane == 0 && first + n < tokens && expert + e < experts) logits[(u64)(first + n) * experts + expert + e] = sum + bias[expert + e];
      }
  }
  __syncthreads();
  const u64 token = first + warp;
  if (warp < N && token < tokens) choose(logits + token * experts, chosen + token * k, weights + token * k, experts, k);
}

#define ROUTED w, bias, x, norm, eps, t, logits, chosen, weights, counters, experts, cols, k, tokens
extern "C" __global__ void __launch_bounds__(256) router_1(ROUTE) { route<1>(ROUTED); }
KERNEL(router_1)
extern "C" __global__ void __launch_bounds__(256) router_2(ROUTE) { route<2>(ROUTED); }
KERNEL(router_2)
extern "C" __global__ void __launch_bounds__(256) router_4(ROUTE) { route<4>(ROUTED); }
KERNEL(router_4)

// The choice alone, where logits were changed. Grid [T / 8], a warp a token.
extern "C" __global__ void __launch_bounds__(256) router_choose(const float* logits, u32* chosen, float* weights, int experts, int k, int tokens) {
  after_others();
  const u64 token = blockIdx.x * 8 + threadIdx.x / 32;
  if (token < tokens) choose(logits + token * experts, chosen + token * k, weights + token * k, experts, k);
}
KERNEL(router_choose)
