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

  // Channels i and i + d / 2 of a head for one token: where they go, in a page too where they are a key or a value, and how they
  // turn. What is known before other kernels have ended (tables come before a step's first), and what is there afterwards.
  struct Place {
    float* to;
    u16* slot;
    const float2* turns;
    float2 turn, bias;
  };
  __device__ inline Place place_of(int head, int i, int token) const {
    const int half = dim / 2;
    Place place = {qkv + ((u64)token * (heads + 2 * kv_heads) + head) * dim + i, nullptr, nullptr, {1, 0}, {0, 0}};
    if (turns && head < heads + kv_heads) place.turns = turns + (u64)token * half + i;
    // With no turns as they are and to no page.
    if (!turns || head < heads) return place;
    const u32 position = positions[token], sequence = sequences[token];
    u32 page = tables[(u64)sequence * width + position / 64 - firsts[sequence]];
    u16* store = head < heads + kv_heads ? keys : values;
    place.slot = store + (((u64)page * kv_heads + (head - heads) % kv_heads) * 64 + position % 64) * dim + i;
    return place;
  }
  __device__ inline void put_at(float a, float b, const Place& place) const {
    if (place.turns) {
      // Rounded as the processor rounds, so that the same f16 go to the pages.
      float turned = __fsub_rn(__fmul_rn(a, place.turn.x), __fmul_rn(b, place.turn.y));
      b = __fadd_rn(__fmul_rn(b, place.turn.x), __fmul_rn(a, place.turn.y));
      a = turned;
    }
    place.to[0] = a;
    place.to[dim / 2] = b;
    if (!place.slot) return;
    place.slot[0] = half_of(a);
    place.slot[dim / 2] = half_of(b);
  }

  __device__ inline void arrive(Place& place) const {
    if (place.turns) place.turn = *place.turns;
  }

  __device__ inline Place known(int tile, int g, int token) const {
    const int head = tile / (dim / 16), i = tile % (dim / 16) * 8 + g;
    Place place = place_of(head, i, token);
    if (bias) place.bias = make_float2(bias[head * dim + i], bias[head * dim + i + dim / 2]);
    return place;
  }
  __device__ inline void put(float a, float b, const Place& place) const {
    if (bias) a += place.bias.x, b += place.bias.y;
    put_at(a, b, place);
  }
  __device__ inline Place place(int tile, int g, int token) const {
    Place place = known(tile, g, token);
    arrive(place);
    return place;
  }
  __device__ inline void two(float a, float b, int tile, int g, int token) const { put(a, b, place(tile, g, token)); }
};

#define PROJECTED const float *bias, float *qkv, const float2 *turns, const u32 *positions, const u32 *sequences, const u32 *tables, const u32 *firsts, int width, u16 *keys, u16 *values, int heads, int kv_heads, int dim
#define OUT {bias, qkv, turns, positions, sequences, tables, firsts, width, keys, values, heads, kv_heads, dim}
