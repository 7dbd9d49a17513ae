// Rotates q and k and writes k and v to their pages (rope/mod.rs), alone or where a product makes them. Keys and values are
// f16, [page, head, slot, channel].
//
// The rows of the product are laid out so that a tile of 16 has eight channels of a head and under them the eight that turn
// with them: a lane that has the one has the other.
#include "../../cuda/prompt.cuh"
#include "rope.cuh"

// Cosines and sines of a step's positions, times the concentration. Grid [T], d / 2 threads.
extern "C" __global__ void rope_turns(const float* inv_freq, float concentration, const u32* positions, float2* turns) {
  after_others();
  float angle = (float)positions[blockIdx.x] * inv_freq[threadIdx.x];
  turns[(u64)blockIdx.x * blockDim.x + threadIdx.x] = make_float2(cosf(angle) * concentration, sinf(angle) * concentration);
}
KERNEL(rope_turns)

// In place, where the product was made before. Grid [T, H + 2K], d / 2 threads.
extern "C" __global__ void rope(PROJECTED) {
  after_others();
  Projected out = OUT;
  const float* at = qkv + ((u64)blockIdx.x * (heads + 2 * kv_heads) + blockIdx.y) * dim + threadIdx.x;
  out.put(at[0], at[dim / 2], blockIdx.y, threadIdx.x, blockIdx.x);
}
KERNEL(rope)

// x [T, K] normalised, to bf16 as `Packed` reads it. Grid [tiles of tokens]; missing tokens are zeros.
extern "C" __global__ void __launch_bounds__(256) rope_norm_pack(const float* x, const float* norm, float eps, uint2* packed, int cols, int tokens) {
  after_others();
  Normed rows = norm_tokens(x, norm, eps, blockIdx.x * 8, tokens, cols);
  const int steps = cols / 16;
  for (int step = threadIdx.x / 32; step < steps; step += 8) packed[packed_at(blockIdx.x, step, steps)] = rows.fragment(0, step);
}
KERNEL(rope_norm_pack)

// Norm, product, rotation, pages. Grid [tiles of rows, tiles of tokens], straight from the floats.
extern "C" __global__ void __launch_bounds__(256) rope_few_8(const uint4* w, const float* x, const float* norm, float eps, int rows, int cols, int tokens, PROJECTED) {
  ask_for_few(w, 1, rows, cols / 16);
  after_others();
  Normed rows_of = norm_tokens(x, norm, eps, blockIdx.y * 8, tokens, cols);
  Projected out = OUT;
  few<1, 1>(w, rows, cols / 16, rows_of, tokens, out);
}
KERNEL(rope_few_8)

#define FEW(name, RT, NT)                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) name(const uint4* w, const uint2* x, int rows, int cols, int tokens, PROJECTED) {    \
    int steps = cols / 16;                                                                                                             \
    ask_for_few(w, RT, rows, steps);                                                                                                   \
    after_others();                                                                                                                    \
    Packed tokens_of = {x + (u64)blockIdx.y * NT * steps * 32, steps};                                                                  \
    Projected out = OUT;                                                                                                               \
    few<RT, NT>(w, rows, steps, tokens_of, tokens, out);                                                                               \
  }                                                                                                                                    \
  KERNEL(name)
FEW(rope_few_16, 1, 2)
FEW(rope_few_32, 1, 4)
FEW(rope_few_64, 2, 8)

// For prompts, grid [tiles of rows, tiles of tokens] by what a block takes: 128 rows times 128 tokens, or 64 times 64 where
// blocks would be fewer than processors.
#define PROMPT(name, ROWS, TOKENS, NP)                                                                                                 \
  extern "C" __global__ void __launch_bounds__(ROWS * TOKENS * 32) name(const uint4* w, const uint4* x, int rows, int cols, int tokens, PROJECTED) { \
    after_others();                                                                                                                    \
    Projected out = OUT;                                                                                                              \
    prompt<ROWS, TOKENS, 2, NP>(w, rows, cols / 16, x, tokens, out);                                                                   \
  }                                                                                                                                    \
  KERNEL(name)
PROMPT(rope_wide, 4, 2, 4)
PROMPT(rope_narrow, 2, 2, 2)
