// Weights times tokens on tensor cores: weights are the left operand, 16 rows a tile, tokens the right one, 8 a tile.
//
// Weights lie in the order in which lanes read them (pack.rs), so a lane's load of 16 bytes is what it multiplies with next.
// Tokens come as floats, row by row (`Rows`), or as bf16 in the same order (`Packed`). Whatever the tiling, an output is the
// sum of PARTS chains over k, in their order.
#pragma once
#include "common.cuh"

// Columns of each tile of 8 tokens; a lane holds those of token g = lane / 4. A missing token is nullptr.
template <int NT> struct Rows {
  const float* row[NT];
  int cols;
  __device__ inline uint2 fragment(int n, int step) const {
    int k = 16 * step + 2 * (threadIdx.x % 4);
    if (!row[n] || 16 * step >= cols) return make_uint2(0, 0);
    float2 a = *(const float2*)(row[n] + k), b = *(const float2*)(row[n] + k + 8);
    return make_uint2(bf16_pair(a.x, a.y), bf16_pair(b.x, b.y));
  }
};

// [tile, step, lane].
struct Packed {
  const uint2* at;
  int steps;
  __device__ inline uint2 fragment(int n, int step) const { return at[((u64)n * steps + step) * 32 + threadIdx.x % 32]; }
};

// c [RT tiles of rows][NT tiles of tokens] += the steps `from` to `to` of bf16 weights, whose tiles are `stride` apart.
template <int RT, int NT, class Tokens>
__device__ inline void add_bf16(float (&c)[RT][NT][4], const uint4* w, u64 stride, int from, int to, const Tokens& tokens) {
  const int lane = threadIdx.x % 32, AHEAD = RT * NT > 4 ? 2 : 4;
  for (int step = from; step < to; step += AHEAD) {
    uint4 a[AHEAD][RT];
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
#pragma unroll
      for (int r = 0; r < RT; r++)
        if (step + i < to) a[i][r] = load_once(w + r * stride + (u64)(step + i) * 32 + lane);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      if (step + i >= to) break;
#pragma unroll
      for (int n = 0; n < NT; n++) {
        uint2 b = tokens.fragment(n, step + i);
#pragma unroll
        for (int r = 0; r < RT; r++) mma(c[r][n], a[i][r].x, a[i][r].y, a[i][r].z, a[i][r].w, b.x, b.y);
      }
    }
  }
}

// The four pairs of bf16 in a word of eight codes, times 2^-126. A pair's codes lie 16 bits apart, those of the first
// three pairs with the sign seven above the other bits (pack.rs); the fourth has what is left.
__device__ inline void codes_to_bf16(u32 word, u32 out[4]) {
  const u32 KEPT = 0x81c081c0u;
  out[0] = word & KEPT;
  out[1] = (word << 3) & KEPT;
  out[2] = (word << 6) & KEPT;
  out[3] = ((word << 1) & 0x80008000u) | ((word >> 5) & 0x01000100u) | ((word >> 4) & 0x00c000c0u);
}

// 2^(scale - 1) twice, as bf16: a scale of 2^(scale - 127), and 2^126 for the codes.
__device__ inline u32 scale_pair(u32 scale) { return (scale + 126) * 0x00800080u; }

// The same as add_bf16 for MXFP4: a block is 64 columns, four steps; `w` [tile, block, lane], `scales` [tile, block, 8], a
// word with those of rows g and g + 8 for the first and the second half. Tiles of rows are `stride` blocks apart.
template <int RT, int NT, class Tokens>
__device__ inline void add_mxfp4(float (&c)[RT][NT][4], const uint4* w, const u32* scales, u64 stride, int from, int to, const Tokens& tokens) {
  const int lane = threadIdx.x % 32, AHEAD = RT * NT > 4 ? 1 : 4;
  for (int block = from; block < to; block += AHEAD) {
    uint4 codes[AHEAD][RT];
    u32 scale[AHEAD][RT];
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
#pragma unroll
      for (int r = 0; r < RT; r++)
        if (block + i < to) {
          u64 at = r * stride + block + i;
          codes[i][r] = load_once(w + at * 32 + lane);
          scale[i][r] = scales[at * 8 + lane / 4];
        }
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      if (block + i >= to) break;
#pragma unroll
      for (int s = 0; s < 4; s++) {
        u32 a[RT][4];
#pragma unroll
        for (int r = 0; r < RT; r++) {
          u32 word = s == 0 ? codes[i][r].x : s == 1 ? codes[i][r].y : s == 2 ? codes[i][r].z : codes[i][r].w;
          codes_to_bf16(word, a[r]);
          u32 both = scale[i][r] >> (16 * (s / 2)), low = scale_pair(both & 255), high = scale_pair(both >> 8 & 255);
          a[r][0] = bf16_pair_times(a[r][0], low);
          a[r][1] = bf16_pair_times(a[r][1], high);
          a[r][2] = bf16_pair_times(a[r][2], low);
          a[r][3] = bf16_pair_times(a[r][3], high);
        }
#pragma unroll
        for (int n = 0; n < NT; n++) {
          uint2 b = tokens.fragment(n, 4 * (block + i) + s);
#pragma unroll
          for (int r = 0; r < RT; r++) mma(c[r][n], a[r][0], a[r][1], a[r][2], a[r][3], b.x, b.y);
        }
      }
    }
  }
}

template <int RT, int NT> __device__ inline void clear(float (&c)[RT][NT][4]) {
#pragma unroll
  for (int r = 0; r < RT; r++)
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) c[r][n][i] = 0;
}

template <int RT, int NT> __device__ inline void add_to(float (&sum)[RT][NT][4], const float (&c)[RT][NT][4]) {
#pragma unroll
  for (int r = 0; r < RT; r++)
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) sum[r][n][i] += c[r][n][i];
}

// Where each of PARTS warps has made one part: puts a warp's sums to shared memory, [part][tile of rows][row][token].
template <int RT, int NT> __device__ inline void put_part(float* parts, const float (&c)[RT][NT][4]) {
  const int part = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < RT; r++)
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        parts[((part * RT + r) * 16 + g + (i / 2) * 8) * (NT * 8) + n * 8 + 2 * t + i % 2] = c[r][n][i];
}

// The sum of all parts at (tile of rows, row, token).
template <int RT, int NT> __device__ inline float sum_parts(const float* parts, int tile, int row, int token) {
  float sum = 0;
#pragma unroll
  for (int part = 0; part < PARTS; part++) {
    float v = parts[((part * RT + tile) * 16 + row) * (NT * 8) + token];
    sum = part == 0 ? v : sum + v;
  }
  return sum;
}
