// Weights times tokens on tensor cores: weights are the left operand, 16 rows a tile, tokens the right one, 8 a tile.
//
// Weights lie in the order in which lanes read them (pack.rs), so a lane's load of 16 bytes is what it multiplies with next.
// Tokens come as floats, row by row (`Rows`), or as bf16 in the same order (`Packed`). Whatever the tiling, an output is the
// sum of PARTS chains over k, in their order.
#pragma once
#include "common.cuh"

// A row of a tile of 8 tokens, that of token g = lane / 4; a missing one is nullptr.
struct Rows {
  const float* row;
  int cols;
  __device__ inline uint2 fragment(int step) const {
    int k = 16 * step + 2 * (threadIdx.x % 4);
    if (!row || 16 * step >= cols) return make_uint2(0, 0);
    float2 a = *(const float2*)(row + k), b = *(const float2*)(row + k + 8);
    return make_uint2(bf16_pair(a.x, a.y), bf16_pair(b.x, b.y));
  }
};

// Up to eight rows as bf16 in shared memory, in eights. A row is filled up to blocks of 64 columns with zeros, and by half of one
// so that rows lie in different banks.
__device__ inline int staged_row(int cols) { return (cols + 63) / 64 * 8 + 4; }

// A row of floats, by a block of 256 threads.
__device__ inline void stage(uint4* to, const float* row, int cols) {
#pragma unroll 2
  for (int at = threadIdx.x; at < staged_row(cols) - 4; at += 256) to[at] = bf16_eight(eight_at(row, at, cols));
}

// What a lane reads of them: a tile whose columns beyond the last row are that row again, of which nothing is handed out.
struct Staged {
  const uint4* at;
  __device__ inline Staged(const uint4* memory, int rows, int cols) {
    const int g = threadIdx.x % 32 / 4;
    at = memory + (g < rows ? g : rows - 1) * staged_row(cols) + threadIdx.x % 4;
  }
  __device__ inline uint2 fragment(int step) const { return ((const uint2*)(at + step / 2 * 4))[step % 2]; }
};

// [tile / 2, step, lane, tile % 2].
__device__ inline u64 packed_at(int tile, int step, int steps) { return (((u64)(tile / 2) * steps + step) * 32 + threadIdx.x % 32) * 2 + tile % 2; }
struct Packed {
  const uint2* at;
  int steps;
  __device__ inline uint2 fragment(int n, int step) const { return at[packed_at(n, step, steps)]; }
};

// c [RT tiles of rows][NT tiles of tokens] += the steps `from` to `to` of bf16 weights, whose tiles are `stride` apart. What
// some steps multiply with is asked for at once, since a warp waits as long for one load as for many.
template <int RT, int NT>
__device__ inline void add_bf16(float (&c)[RT][NT][4], const uint4* w, u64 stride, int from, int to, const Packed& tokens) {
  const int lane = threadIdx.x % 32, AHEAD = RT * NT > 4 ? 2 : 4;
  for (int step = from; step < to; step += AHEAD) {
    uint4 a[AHEAD][RT];
    uint2 b[AHEAD][NT];
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
#pragma unroll
      for (int r = 0; r < RT; r++)
        if (step + i < to) a[i][r] = load_once(w + r * stride + (u64)(step + i) * 32 + lane);
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
#pragma unroll
      for (int n = 0; n < NT; n++)
        if (step + i < to) b[i][n] = tokens.fragment(n, step + i);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      if (step + i >= to) break;
#pragma unroll
      for (int n = 0; n < NT; n++)
#pragma unroll
        for (int r = 0; r < RT; r++) mma(c[r][n], a[i][r].x, a[i][r].y, a[i][r].z, a[i][r].w, b[i][n].x, b[i][n].y);
    }
  }
}

// One tile of rows for up to eight tokens: a warp has so many loads of weights on their way, the first of them before other
// kernels have ended.
struct Coming {
  static const int MOST = 8;
  uint4 a[MOST];
  const uint4* w;
  int from, to;
  __device__ inline Coming(const uint4* tile, int from, int to) : w(tile + threadIdx.x % 32), from(from), to(to) {
#pragma unroll
    for (int i = 0; i < MOST; i++)
      if (from + i < to) a[i] = load_once(w + (u64)(from + i) * 32);
    if (from + MOST < to) ask_for(tile + (u64)(from + MOST) * 32, (u64)(to - from - MOST) * 512);
  }
  __device__ inline void add(float (&c)[4], const Staged& x) {
    for (int step = from; step < to; step += MOST)
#pragma unroll
      for (int i = 0; i < MOST; i++) {
        if (step + i >= to) break;
        uint2 b = x.fragment(step + i);
        mma(c, a[i].x, a[i].y, a[i].z, a[i].w, b.x, b.y);
        if (step + i + MOST < to) a[i] = load_once(w + (u64)(step + i + MOST) * 32);
      }
  }
};

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

// A warp's part of a tile of MXFP4, on its way to shared memory all at once: codes [block, lane] and scales [block, 8], a word
// with those of rows g and g + 8 for the first and the second half of a block of 64 columns. A lane reads the codes that it has
// copied.
struct Codes {
  uint4* memory;
  // In 16 bytes, for at most so many blocks.
  __device__ static inline int size(int most) { return most * 34; }
  __device__ inline void begin(const uint4* w, const uint4* scales, int count, int most) const {
    const int lane = threadIdx.x % 32;
    uint4* to = memory + lane;
    w += lane;
#pragma unroll 2
    for (int i = 0; i < count; i++, to += 32, w += 32) copy_async(to, w, false);
    // More than sixteen blocks would not fit into shared memory.
    if (lane < 2 * count) copy_async(memory + most * 32 + lane, scales + lane, false);
  }
  // c [16, 8] += its product with the tokens, `b` being the lane's of its first block.
  __device__ inline void add(float (&c)[4], const uint4* b, int count, int most) const {
    const uint4* codes = memory + threadIdx.x % 32;
    const u32* scale = (const u32*)(memory + most * 32) + threadIdx.x % 32 / 4;
    for (int i = 0; i < count; i++, codes += 32, scale += 8, b += 8) {
      const uint4 now = *codes, low = b[0], high = b[4];
      const u32 scales = *scale;
      const uint4 a0 = coded(now, scales, 0), a1 = coded(now, scales, 1), a2 = coded(now, scales, 2), a3 = coded(now, scales, 3);
      mma(c, a0.x, a0.y, a0.z, a0.w, low.x, low.y);
      mma(c, a1.x, a1.y, a1.z, a1.w, low.z, low.w);
      mma(c, a2.x, a2.y, a2.z, a2.w, high.x, high.y);
      mma(c, a3.x, a3.y, a3.z, a3.w, high.z, high.w);
    }
  }
};

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
template <int RT, int NT, class Out>
__device__ inline void few(const uint4* w, int rows, int steps, const Packed& x, int tokens, const Out& out) {
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

// The same for up to eight tokens that lie in shared memory behind the parts, put there by `put` once others have been waited for.
template <class Put, class Out> __device__ inline void few_staged(const uint4* w, int cols, int tokens, const Put& put, const Out& out) {
  DYNAMIC_SHARED(memory);
  float* parts = (float*)memory;
  uint4* rows = (uint4*)(parts + PARTS * 16 * 8);
  const int part = threadIdx.x / 32, steps = cols / 16;
  Coming coming(w + (u64)blockIdx.x * steps * 32, part_start(part, steps), part_start(part + 1, steps));
  // What the results go with is there before them.
  const int g = threadIdx.x % 8, token = threadIdx.x / 8;
  typename Out::Place place;
  if (token < tokens) place = out.known(blockIdx.x, g, token);
  put(rows);
  __syncthreads();
  if (token < tokens) out.arrive(place);
  float c[1][1][4];
  clear(c);
  coming.add(c[0][0], Staged(rows, tokens, cols));
  put_part<1, 1>(parts, c);
  __syncthreads();
  if (token < tokens) out.put(sum_parts<1, 1>(parts, 0, g, token), sum_parts<1, 1>(parts, 0, g + 8, token), place);
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
