// The token that greedy sampling takes of each row of logits (sample/mod.rs): the lowest id of the largest.
#include "../../cuda/common.cuh"

// What is larger comes later, and of two that are equal the one with the lower id; a broken logit is after all.
static const u64 BROKEN = ~0ull;
__device__ inline u64 rank_of(float logit, u32 id) {
  // Zeros are equal.
  u32 bits = __float_as_uint(logit + 0.0f);
  if (!(fabsf(logit) < INF)) return BROKEN;
  return (u64)(bits >> 31 ? ~bits : bits | 0x80000000u) << 32 | ~id;
}

__device__ inline u64 warp_last(u64 rank) {
  for (int step = 16; step > 0; step >>= 1) {
    u64 other = __shfl_xor_sync(ALL, rank, step);
    rank = other > rank ? other : rank;
  }
  return rank;
}

// Grid [32, R]; the last block of a row writes its id, -1 where a logit is not finite.
extern "C" __global__ void __launch_bounds__(1024) sample_best(const float* logits, int vocab, u64* ranks, u32* best, u32* counters) {
  __shared__ u64 warps[32];
  after_others();
  const float* row = logits + (u64)blockIdx.y * vocab;
  const u32 first = blockIdx.x * 1024 + threadIdx.x, apart = gridDim.x * 1024, fours = vocab % 4 == 0 ? vocab / 4 : 0;
  u64 rank = 0;
  auto see = [&](float logit, u32 id) {
    u64 own = rank_of(logit, id);
    rank = own > rank ? own : rank;
  };
#pragma unroll 2
  for (u32 i = first; i < fours; i += apart) {
    const float4 v = ((const float4*)row)[i];
    see(v.x, 4 * i), see(v.y, 4 * i + 1), see(v.z, 4 * i + 2), see(v.w, 4 * i + 3);
  }
  for (u32 i = 4 * fours + first; i < (u32)vocab; i += apart) see(row[i], i);
  rank = warp_last(rank);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = rank;
  __syncthreads();
  if (threadIdx.x < 32) {
    rank = warp_last(warps[threadIdx.x]);
    if (threadIdx.x == 0) ranks[blockIdx.y * gridDim.x + blockIdx.x] = rank;
  }
  if (!comes_last(counters + blockIdx.y, gridDim.x) || threadIdx.x >= 32) return;
  rank = warp_last(threadIdx.x < gridDim.x ? ranks[blockIdx.y * gridDim.x + threadIdx.x] : 0);
  if (threadIdx.x == 0) best[blockIdx.y] = rank == BROKEN ? 0xffffffffu : ~(u32)rank;
}
KERNEL(sample_best)
