// What of the experts' training is no product (experts/train.rs): pairs (token * k + slot) sorted by expert, rows gathered and
// brought back, the activation and its gradient. Gates and ups lie interleaved, as weights and gradients do.
#include "../../cuda/common.cuh"

// One block. pairs [n] sorted by expert, ascending in each, the row of each pair, and where an expert's rows start [E + 1].
extern "C" __global__ void __launch_bounds__(1024) experts_sort(const u32* chosen, int n, int experts, u32* pairs, u32* places, u32* starts) {
  __shared__ u32 counts[1024];
  after_others();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int e = warp; e < experts; e += 32) {
    u32 count = 0;
    for (int i = 0; i < n; i += 32) count += __popc(__ballot_sync(ALL, i + lane < n && chosen[i + lane] == (u32)e));
    if (lane == 0) counts[e] = count;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    starts[0] = 0;
    for (int e = 0; e < experts; e++) starts[e + 1] = starts[e] + counts[e];
  }
  __syncthreads();
  for (int e = warp; e < experts; e += 32) {
    u32 at = starts[e];
    for (int i = 0; i < n; i += 32) {
      bool mine = i + lane < n && chosen[i + lane] == (u32)e;
      u32 who = __ballot_sync(ALL, mine);
      if (mine) {
        u32 row = at + __popc(who & ((1u << lane) - 1));
        pairs[row] = i + lane;
        places[i + lane] = row;
      }
      at += __popc(who);
    }
  }
}
KERNEL(experts_sort)

// Rows of tokens [T, cols], one for each pair. Grid [pairs].
extern "C" __global__ void __launch_bounds__(256) experts_gather(const float* x, const u32* pairs, float* rows, int k, int cols) {
  after_others();
  const float* from = x + (u64)(pairs[blockIdx.x] / k) * cols;
  for (int i = threadIdx.x; i < cols; i += 256) rows[(u64)blockIdx.x * cols + i] = from[i];
}
KERNEL(experts_gather)

// y (=, +=) the sum over a token's pairs of what their rows say, best first, times weights [T, k] where there are some. Grid [T].
extern "C" __global__ void __launch_bounds__(256) experts_bring(const float* rows, const u32* places, const float* weights, float* y, int k, int cols, int add) {
  after_others();
  const u64 first = (u64)blockIdx.x * k;
  for (int c = threadIdx.x; c < cols; c += 256) {
    float sum = 0;
    for (int slot = 0; slot < k; slot++) sum = fmaf(weights ? weights[first + slot] : 1.0f, rows[(u64)places[first + slot] * cols + c], sum);
    float* to = y + (u64)blockIdx.x * cols + c;
    *to = add ? *to + sum : sum;
  }
}
KERNEL(experts_bring)

struct Unit {
  float gate, up, s;
  // Comparisons that keep what is not a number.
  __device__ inline Unit(float2 h, float limit, float alpha) {
    gate = h.x > limit ? limit : h.x;
    up = h.y > limit ? limit : h.y < -limit ? -limit : h.y;
    s = 1.0f / (1.0f + expf(-alpha * gate));
  }
  __device__ inline float act() const { return gate * s * (up + 1.0f); }
};

// act [pairs, I] of h [pairs, 2 I]. Grid [pairs].
extern "C" __global__ void __launch_bounds__(256) experts_activate(const float2* h, float* act, int units, float limit, float alpha) {
  after_others();
  const u64 first = (u64)blockIdx.x * units;
  for (int i = threadIdx.x; i < units; i += 256) act[first + i] = Unit(h[first + i], limit, alpha).act();
}
KERNEL(experts_activate)

// h becomes its gradient, u [pairs, I] becomes w act; dw of each pair, and w of each row. `bias`: c of the first expert, those of
// the others `step` numbers on. Grid [pairs].
extern "C" __global__ void __launch_bounds__(256) experts_turn(float2* h, float* u, const float* dy, const u32* pairs, const u32* chosen, const float* weights, const float* bias, u64 step, float* d_weights, float* row_weights, int units, int cols, float limit, float alpha) {
  __shared__ float parts[8];
  after_others();
  const u32 pair = pairs[blockIdx.x];
  const float weight = weights[pair];
  const float *c = bias + chosen[pair] * step, *back = dy + (u64)blockIdx.x * cols;
  const u64 first = (u64)blockIdx.x * units;
  float sum = 0;
  for (int i = threadIdx.x; i < units; i += 256) {
    const float2 before = h[first + i];
    const Unit unit(before, limit, alpha);
    const float act = unit.act(), own = u[first + i], da = weight * own;
    sum = fmaf(act, own, sum);
    const float slope = unit.s * fmaf(alpha * unit.gate, 1.0f - unit.s, 1.0f);
    const bool gate_open = before.x <= limit, up_open = before.y >= -limit && before.y <= limit;
    h[first + i] = make_float2(gate_open ? da * (unit.up + 1.0f) * slope : 0, up_open ? da * unit.gate * unit.s : 0);
    u[first + i] = weight * act;
  }
  for (int i = threadIdx.x; i < cols; i += 256) sum = fmaf(c[i], back[i], sum);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  float all = 0;
  for (int i = 0; i < 8; i++) all += parts[i];
  d_weights[pair] = all;
  row_weights[blockIdx.x] = weight;
}
KERNEL(experts_turn)
