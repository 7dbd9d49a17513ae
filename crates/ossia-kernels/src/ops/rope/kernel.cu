// Rotates q and k and writes k and v to their pages (rope/mod.rs), alone or where a product makes them. Keys and values are
// f16, [page, head, slot, channel].
//
// The rows of the product are laid out so that a tile of 16 has eight channels of a head and under them the eight that turn
// with them: a lane that has the one has the other.
#include "../../cuda/prompt.cuh"

// Where q, k and v go. `turns` [T, d / 2] are cosine and sine; `tables`: pages of all sequences, `width` each, from page
// firsts[s] of sequence s on.
struct Projected {
  const float* bias;
  float* qkv;
  const float2* turns;
  const u32 *positions, *sequences, *tables, *firsts;
  int width;
  u16 *keys, *values;
  int heads, kv_heads, dim;

  // Channels i and i + d / 2 of a head, with no turns as they are and to no page.
  __device__ inline void put(float a, float b, int head, int i, int token) const {
    const int half = dim / 2;
    if (turns && head < heads + kv_heads) {
      float2 turn = turns[(u64)token * half + i];
      // Rounded as the processor rounds, so that the same f16 go to the pages.
      float turned = __fsub_rn(__fmul_rn(a, turn.x), __fmul_rn(b, turn.y));
      b = __fadd_rn(__fmul_rn(b, turn.x), __fmul_rn(a, turn.y));
      a = turned;
    }
    float* to = qkv + ((u64)token * (heads + 2 * kv_heads) + head) * dim + i;
    to[0] = a;
    to[half] = b;
    if (!turns || head < heads) return;
    const u32 position = positions[token], sequence = sequences[token];
    u32 page = tables[(u64)sequence * width + position / 64 - firsts[sequence]];
    u16* store = head < heads + kv_heads ? keys : values;
    u16* slot = store + (((u64)page * kv_heads + (head - heads) % kv_heads) * 64 + position % 64) * dim;
    slot[i] = half_of(a);
    slot[i + half] = half_of(b);
  }

  __device__ inline void two(float a, float b, int tile, int g, int token) const {
    int head = tile / (dim / 16), i = tile % (dim / 16) * 8 + g;
    if (bias) a += bias[head * dim + i], b += bias[head * dim + i + dim / 2];
    put(a, b, head, i, token);
  }
};

#define PROJECTED const float *bias, float *qkv, const float2 *turns, const u32 *positions, const u32 *sequences, const u32 *tables, const u32 *firsts, int width, u16 *keys, u16 *values, int heads, int kv_heads, int dim
#define OUT {bias, qkv, turns, positions, sequences, tables, firsts, width, keys, values, heads, kv_heads, dim}

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
