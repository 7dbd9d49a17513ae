// What adapters add to products (low_rank/mod.rs): B u for outputs, where u = s A x was made before.
#pragma once
#include "common.cuh"

// A and B of some outputs, from `first` on, for one expert and those that lie a stride behind; no rank: nothing is there.
struct Factor {
  const float *a, *b;
  u32 a_stride, b_stride, rank, first, count;
  float scale;
};

// B u of one row of x: a chain over the rank.
__device__ inline float low_rank_product(const Factor& factor, const float* u, u32 expert, u32 output) {
  const float* b = factor.b + (u64)expert * factor.b_stride + (u64)output * factor.rank;
  float sum = 0;
#pragma unroll 1
  for (u32 r = 0; r < factor.rank; r++) sum = fmaf(b[r], u[r], sum);
  return sum;
}

// The adapters of pairs: factors [count, 2] of which `part` counts, the slot of each token (from
// `count` on nothing is there), u [pairs, width]. No factors: none.
struct Adapted {
  const Factor* factors;
  u32 count;
  const u32* slots;
  const float* u;
  int part, width, k;
  __device__ inline const Factor* of(u32 pair) const {
    if (!factors) return nullptr;
    u32 slot = slots[pair / k];
    if (slot >= count) return nullptr;
    const Factor* factor = factors + (u64)slot * 2 + part;
    return factor->rank ? factor : nullptr;
  }
  __device__ inline float product(const Factor* factor, u32 expert, u32 output, u32 pair) const {
    return low_rank_product(*factor, u + (u64)pair * width, expert, output);
  }
};
#define ADAPTED const Factor *factors, u32 count, const u32 *slots, const float *u, int part, int width, int top
#define ADAPTED_OF {factors, count, slots, u, part, width, top}
