// Products of training: C [M, N] = A B in f32, of operands that are rounded to bf16 on their way to shared memory.
//
// A block of 256 threads makes 128 x 128 of C, a warp 64 x 32. An operand is read as it lies: its depth runs along memory
// (`ALONG`), as that of x and W in x Wᵀ, or across it. An element of C is one chain over the depth, whatever M and N are.
#pragma once
#include "common.cuh"

static const int TILE_SIDE = 128, TILE_DEPTH = 32;
// Rows of a tile in shared memory, in numbers: no two of eight rows begin in the same banks.
static const int PITCH_ALONG = TILE_DEPTH + 8, PITCH_ACROSS = TILE_SIDE + 8;
static const int TILE_NUMBERS = TILE_SIDE * PITCH_ALONG;

// Four numbers that lie side by side, of which `count` are there.
struct FloatQuad {
  float v[4];
  __device__ inline void load(const float* at, int count, bool wide) {
    if (wide && count >= 4) {
      float4 all = *(const float4*)at;
      v[0] = all.x, v[1] = all.y, v[2] = all.z, v[3] = all.w;
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = i < count ? at[i] : 0;
  }
  __device__ inline uint2 bits() const { return make_uint2(bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3])); }
};
struct HalfQuad {
  uint2 v;
  __device__ inline void load(const u16* at, int count, bool wide) {
    if (wide && count >= 4) {
      v = *(const uint2*)at;
      return;
    }
    u32 n[4];
#pragma unroll
    for (int i = 0; i < 4; i++) n[i] = i < count ? at[i] : 0;
    v = make_uint2(n[0] | n[1] << 16, n[2] | n[3] << 16);
  }
  __device__ inline uint2 bits() const { return v; }
};
template <class Number> struct QuadOf;
template <> struct QuadOf<float> { typedef FloatQuad Quad; };
template <> struct QuadOf<u16> { typedef HalfQuad Quad; };

// `side` rows or columns of C, and the depth, `stride` numbers from one line of memory to the next.
template <class Number_, bool ALONG_> struct Operand {
  typedef Number_ Number;
  typedef typename QuadOf<Number_>::Quad Quad;
  static const bool ALONG = ALONG_;
  const Number* at;
  int stride, side;

  __device__ inline bool wide() const { return (u64)at % (4 * sizeof(Number)) == 0 && stride % 4 == 0; }

  // The thread's share of the tile at (`first`, `k`).
  __device__ inline void load(Quad (&quads)[4], int first, int k, int depth, bool wide) const {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      int line = ALONG ? first + threadIdx.x / 8 + 32 * j : k + threadIdx.x / 32 + 8 * j;
      int place = ALONG ? k + threadIdx.x % 8 * 4 : first + threadIdx.x % 32 * 4;
      int left = (ALONG ? depth : side) - place;
      if (line >= (ALONG ? side : depth)) left = 0;
      quads[j].load(at + (left > 0 ? (u64)line * stride + place : 0), left, wide);
    }
  }

  __device__ static inline void store(u16* tile, const Quad (&quads)[4]) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      int at = ALONG ? (threadIdx.x / 8 + 32 * j) * PITCH_ALONG + threadIdx.x % 8 * 4 : (threadIdx.x / 32 + 8 * j) * PITCH_ACROSS + threadIdx.x % 32 * 4;
      *(uint2*)(tile + at) = quads[j].bits();
    }
  }

  // Sixteen of the side from `first` on, sixteen of the depth from `k` on, as the left operand of `mma`.
  __device__ static inline void left(u32 (&out)[4], const u16* tile, int first, int k) {
    int lane = threadIdx.x % 32, side = first + lane / 8 % 2 * 8, deep = k + lane / 16 * 8;
    if (ALONG) load_tiles(out, tile + (side + lane % 8) * PITCH_ALONG + deep);
    else load_tiles_turned(out, tile + (deep + lane % 8) * PITCH_ACROSS + side);
  }

  // The same as the right operand, twice: of the first eight and of the others.
  __device__ static inline void right(u32 (&out)[4], const u16* tile, int first, int k) {
    int lane = threadIdx.x % 32, side = first + lane / 16 * 8, deep = k + lane / 8 % 2 * 8;
    if (ALONG) load_tiles(out, tile + (side + lane % 8) * PITCH_ALONG + deep);
    else load_tiles_turned(out, tile + (deep + lane % 8) * PITCH_ACROSS + side);
  }
};

// Where a product goes: over what is there, or added to it; with a bias for each column, where there is one.
struct Target {
  float* at;
  const float* bias;
  int stride, add;
  __device__ inline void put(float value, int row, int column) const {
    float* to = at + (u64)row * stride + column;
    if (bias) value += bias[column];
    *to = add ? *to + value : value;
  }
};

// The 128 x 128 of C at (`row`, `column`).
template <class A, class B> __device__ inline void product(const A& a, const B& b, int depth, const Target& c, int row, int column) {
  __align__(16) __shared__ u16 tiles[2][2][TILE_NUMBERS];
  const int warp = threadIdx.x / 32, first = warp / 4 * 64, across = warp % 4 * 32;
  const bool works = row + first < a.side && column + across < b.side, wide_a = a.wide(), wide_b = b.wide();
  float sums[4][4][4];
#pragma unroll
  for (int i = 0; i < 64; i++) sums[i / 16][i / 4 % 4][i % 4] = 0;
  typename A::Quad next_a[4];
  typename B::Quad next_b[4];
  a.load(next_a, row, 0, depth, wide_a);
  b.load(next_b, column, 0, depth, wide_b);
  for (int k = 0, turn = 0; k < depth; k += TILE_DEPTH, turn ^= 1) {
    A::store(tiles[turn][0], next_a);
    B::store(tiles[turn][1], next_b);
    // Whoever comes here has done with the tiles before the last.
    __syncthreads();
    if (k + TILE_DEPTH < depth) {
      a.load(next_a, row, k + TILE_DEPTH, depth, wide_a);
      b.load(next_b, column, k + TILE_DEPTH, depth, wide_b);
    }
    if (!works) continue;
#pragma unroll
    for (int half = 0; half < TILE_DEPTH; half += 16) {
      u32 left[4][4];
#pragma unroll
      for (int i = 0; i < 4; i++) A::left(left[i], tiles[turn][0], first + 16 * i, half);
#pragma unroll
      for (int j = 0; j < 2; j++) {
        u32 right[4];
        B::right(right, tiles[turn][1], across + 16 * j, half);
#pragma unroll
        for (int i = 0; i < 4; i++) {
          mma(sums[i][2 * j], left[i][0], left[i][1], left[i][2], left[i][3], right[0], right[1]);
          mma(sums[i][2 * j + 1], left[i][0], left[i][1], left[i][2], left[i][3], right[2], right[3]);
        }
      }
    }
  }
  if (!works) return;
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int v = 0; v < 4; v++) {
        int r = row + first + 16 * i + g + v / 2 * 8, n = column + across + 8 * j + 2 * t + v % 2;
        if (r < a.side && n < b.side) c.put(sums[i][j][v], r, n);
      }
}
