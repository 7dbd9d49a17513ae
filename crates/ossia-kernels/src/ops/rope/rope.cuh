// Where rows of the product of q, k and v go (kernel.cu). Included after common.cuh.
#pragma once

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
