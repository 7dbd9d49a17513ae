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
  Projected::Place place = out.place_of(blockIdx.y, threadIdx.x, blockIdx.x);
  out.arrive(place);
  out.put_at(at[0], at[dim / 2], place);
}
KERNEL(rope)

// x [T, K] normalised, to bf16 as `Packed` reads it. Grid [tiles of tokens]; missing tokens are zeros.
extern "C" __global__ void __launch_bounds__(256) rope_norm_pack(const float* x, const float* norm, float eps, uint2* packed, int cols, int tokens) {
  __shared__ float parts[8][NORM_PARTS];
  after_others();
  const int first = blockIdx.x * 8, g = threadIdx.x % 32 / 4, steps = cols / 16;
  for (int i = 0; i < 8 && first + i < tokens; i++) put_square(parts[i], x + (u64)(first + i) * cols, cols);
  __syncthreads();
  const bool real = first + g < tokens;
  const float scale = real ? norm_scale(parts[g], cols, eps) : 0;
  // A warp an eight of each lane of eight rows, that is two steps.
  for (int two = threadIdx.x / 32; two < eights_of(cols) / 4; two += 8) {
    const int at = two * 4 + threadIdx.x % 4;
    uint4 both = make_uint4(0, 0, 0, 0);
    if (real) both = bf16_eight(normed(eight_at(x + (u64)(first + g) * cols, at, cols), scale, eight_at(norm, at, cols)));
    packed[packed_at(blockIdx.x, 2 * two, steps)] = make_uint2(both.x, both.y);
    if (2 * two + 1 < steps) packed[packed_at(blockIdx.x, 2 * two + 1, steps)] = make_uint2(both.z, both.w);
  }
}
KERNEL(rope_norm_pack)

// Up to eight rows, normalised. A thread's eights of weights are there before other kernels have ended.
struct PutNormed {
  // Eights of a thread: rows have up to 4,096 columns.
  static const int MOST = 2;
  const float *x, *norm;
  float eps;
  int cols, tokens;
  __device__ inline void operator()(uint4* to) const {
    __shared__ float parts[8][NORM_PARTS];
    // A thread's own; registers hold weights.
    __shared__ Eight g[MOST][256];
#pragma unroll
    for (int u = 0; u < MOST; u++) g[u][threadIdx.x] = eight_at(norm, threadIdx.x + 256 * u, cols);
    after_others();
    for (int i = 0; i < tokens; i++) put_square(parts[i], x + (u64)i * cols, cols);
    __syncthreads();
    for (int i = 0; i < tokens; i++) {
      const float scale = norm_scale(parts[i], cols, eps);
#pragma unroll
      for (int u = 0; u < MOST; u++) {
        const int at = threadIdx.x + 256 * u;
        if (at < staged_row(cols) - 4) to[i * staged_row(cols) + at] = bf16_eight(normed(eight_at(x + (u64)i * cols, at, cols), scale, g[u][threadIdx.x]));
      }
    }
  }
};

// Norm, product, rotation, pages. Grid [tiles of rows], up to eight tokens.
extern "C" __global__ void __launch_bounds__(256, 3) rope_few_8(const uint4* w, const float* x, const float* norm, float eps, int rows, int cols, int tokens, PROJECTED) {
  PutNormed put = {x, norm, eps, cols, tokens};
  Projected out = OUT;
  few_staged(w, cols, tokens, put, out);
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
#define PROMPT(name, SLOTS, ROWS, TOKENS, NP)                                                                                                \
  extern "C" __global__ void __launch_bounds__(ROWS * TOKENS * 32) name(const uint4* w, const uint4* x, int rows, int cols, int tokens, PROJECTED) { \
    after_others();                                                                                                                    \
    Projected out = OUT;                                                                                                              \
    prompt<SLOTS, ROWS, TOKENS, 2, NP>(w, rows, cols / 16, x, tokens, out);                                                                   \
  }                                                                                                                                    \
  KERNEL(name)
PROMPT(rope_wide, 3, 4, 2, 4)
PROMPT(rope_narrow, 4, 2, 2, 2)
