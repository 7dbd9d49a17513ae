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

// The same for one tile, of rows that are still to be normalised: each lane has the scale of its token.
struct Normed {
  const float *row, *weight;
  float scale;
  __device__ inline uint2 fragment(int, int step) const {
    int k = 16 * step + 2 * (threadIdx.x % 4);
    if (!row) return make_uint2(0, 0);
    float2 a = *(const float2*)(row + k), b = *(const float2*)(row + k + 8);
    float2 g = *(const float2*)(weight + k), h = *(const float2*)(weight + k + 8);
    return make_uint2(bf16_pair(a.x * scale * g.x, a.y * scale * g.y), bf16_pair(b.x * scale * h.x, b.y * scale * h.y));
  }
};

// Eight tokens of x [T, K] from `first` on, for a whole block of 256 threads.
__device__ inline Normed norm_tokens(const float* x, const float* weight, float eps, int first, int tokens, int cols) {
  __shared__ float parts[8][NORM_PARTS];
  for (int i = 0; i < 8 && first + i < tokens; i++) put_square(parts[i], x + (u64)(first + i) * cols, cols);
  __syncthreads();
  int g = threadIdx.x % 32 / 4;
  if (first + g >= tokens) return {nullptr, weight, 0};
  return {x + (u64)(first + g) * cols, weight, norm_scale(parts[g], cols, eps)};
}

// [tile / 2, step, lane, tile % 2].
__device__ inline u64 packed_at(int tile, int step, int steps) { return (((u64)(tile / 2) * steps + step) * 32 + threadIdx.x % 32) * 2 + tile % 2; }
struct Packed {
  const uint2* at;
  int steps;
  __device__ inline uint2 fragment(int n, int step) const { return at[packed_at(n, step, steps)]; }
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

// What a lane multiplies with in step `s` of a block of MXFP4.
__device__ inline uint4 coded(uint4 codes, u32 scales, int s) {
  u32 a[4];
  codes_to_bf16(s == 0 ? codes.x : s == 1 ? codes.y : s == 2 ? codes.z : codes.w, a);
  u32 both = scales >> (16 * (s / 2)), low = scale_pair(both & 255), high = scale_pair(both >> 8 & 255);
  return make_uint4(bf16_pair_times(a[0], low), bf16_pair_times(a[1], high), bf16_pair_times(a[2], low), bf16_pair_times(a[3], high));
}

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
        uint4 a[RT];
#pragma unroll
        for (int r = 0; r < RT; r++) a[r] = coded(codes[i][r], scale[i][r], s);
#pragma unroll
        for (int n = 0; n < NT; n++) {
          uint2 b = tokens.fragment(n, 4 * (block + i) + s);
#pragma unroll
          for (int r = 0; r < RT; r++) mma(c[r][n], a[r].x, a[r].y, a[r].z, a[r].w, b.x, b.y);
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

// A product for few tokens: one warp for each part of k, for RT tiles of 16 rows and NT of 8 tokens a block, where reading
// the weights is all that takes time. `out` gets rows g and g + 8 of a tile together.
template <int RT, int NT, class Tokens, class Out>
__device__ inline void few(const uint4* w, int rows, int steps, const Tokens& x, int tokens, const Out& out) {
  DYNAMIC_SHARED(memory);
  float* parts = (float*)memory;
  const int part = threadIdx.x / 32, first = blockIdx.x * RT, last = (rows + 15) / 16 - 1;
  float c[RT][NT][4];
  clear(c);
  // A second tile past the last is read as the first again, and not written.
  u64 stride = first + 1 <= last ? (u64)steps * 32 : 0;
  add_bf16(c, w + (u64)first * steps * 32, stride, part_start(part, steps), part_start(part + 1, steps), x);
  put_part<RT, NT>(parts, c);
  __syncthreads();
  for (int i = threadIdx.x; i < RT * 8 * NT * 8; i += PARTS * 32) {
    int g = i % 8, tile = i / 8 % RT, token = i / (8 * RT);
    if (first + tile > last || blockIdx.y * NT * 8 + token >= tokens) continue;
    out.two(sum_parts<RT, NT>(parts, tile, g, token), sum_parts<RT, NT>(parts, tile, g + 8, token), first + tile, g, blockIdx.y * NT * 8 + token);
  }
}

// What a warp of `few` will read of the weights, asked for.
__device__ inline void ask_for_few(const uint4* w, int tiles, int rows, int steps) {
  const int part = threadIdx.x / 32, first = blockIdx.x * tiles, last = (rows + 15) / 16 - 1;
  int from = part_start(part, steps), count = part_start(part + 1, steps) - from;
  for (int tile = first; tile < first + tiles && tile <= last; tile++)
    ask_for(w + ((u64)tile * steps + from) * 32, (u64)count * 512);
}

// A warp's sums of tiles of rows from `tile` on, and of tokens from `first` on; rows g and g + 8 of a tile go out together.
template <int RT, int NT, class Out> __device__ inline void hand_out(const float (&sum)[RT][NT][4], int tile, int tiles, int first, int tokens, const Out& out) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < RT; r++)
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        int token = first + n * 8 + 2 * t + i;
        if (tile + r < tiles && token < tokens) out.two(sum[r][n][i], sum[r][n][i + 2], tile + r, g, token);
      }
}
