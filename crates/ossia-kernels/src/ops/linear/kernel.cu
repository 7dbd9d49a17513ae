// y = W x + b, and y += W x + b (linear/mod.rs), with W in bf16.
#include "../../cuda/pack.cuh"
#include "../../cuda/prompt.cuh"
#include "linear.cuh"

// Up to eight rows of floats.
struct PutRows {
  const float* x;
  int cols, tokens;
  __device__ inline void operator()(uint4* to) const {
    after_others();
    for (int i = 0; i < tokens; i++) stage(to + i * staged_row(cols), x + (u64)i * cols, cols);
  }
};

// Grid [tiles of rows], up to eight tokens.
extern "C" __global__ void __launch_bounds__(256, 3) linear_few_8(const uint4* w, const float* bias, const float* x, float* y, int rows, int cols, int tokens, int add) {
  PutRows put = {x, cols, tokens};
  Plain out = {bias, y, rows, add};
  few_staged(w, cols, tokens, put, out);
}
KERNEL(linear_few_8)

#define FEW(name, RT, NT)                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) name(const uint4* w, const float* bias, const uint2* x, float* y, int rows, int cols, int tokens, int add) { \
    int steps = cols / 16;                                                                                                             \
    ask_for_few(w, RT, rows, steps);                                                                                                   \
    after_others();                                                                                                                    \
    Packed tokens_of = {x + (u64)blockIdx.y * NT * steps * 32, steps};                                                                  \
    Plain out = {bias, y, rows, add};                                                                                                  \
    few<RT, NT>(w, rows, steps, tokens_of, tokens, out);                                                                               \
  }                                                                                                                                    \
  KERNEL(name)
FEW(linear_few_16, 1, 2)
FEW(linear_few_32, 1, 4)
FEW(linear_few_64, 2, 8)

// For prompts, grid [tiles of rows, tiles of tokens] by what a block takes: 128 rows times 128 tokens, or 64 times 64 where
// blocks would be fewer than processors.
#define PROMPT(name, SLOTS, ROWS, TOKENS, NP)                                                                                                \
  extern "C" __global__ void __launch_bounds__(ROWS * TOKENS * 32) name(const uint4* w, const float* bias, const uint4* x, float* y, int rows, int cols, int tokens, int add) { \
    after_others();                                                                                                                    \
    Plain out = {bias, y, rows, add};                                                                                                              \
    prompt<SLOTS, ROWS, TOKENS, 2, NP>(w, rows, cols / 16, x, tokens, out);                                                                   \
  }                                                                                                                                    \
  KERNEL(name)
PROMPT(linear_wide, 3, 4, 2, 4)
PROMPT(linear_narrow, 4, 2, 2, 2)

// x [T, K] to bf16 as `Packed` reads it. Grid [steps / 8, tiles of tokens], a warp a step; missing tokens are zeros.
extern "C" __global__ void __launch_bounds__(256) linear_pack(const float* x, uint2* packed, int cols, int tokens) {
  after_others();
  int steps = cols / 16, step = blockIdx.x * 8 + threadIdx.x / 32, token = blockIdx.y * 8 + threadIdx.x % 32 / 4;
  if (step >= steps) return;
  Rows row = {token < tokens ? x + (u64)token * cols : nullptr, cols};
  packed[packed_at(blockIdx.y, step, steps)] = row.fragment(step);
}
KERNEL(linear_pack)

// Rows of weights to tiles of bf16, [tile, step, lane] (pack.rs). Grid [steps / 8, tiles], a warp a step.
extern "C" __global__ void __launch_bounds__(256) linear_tiles(const Row* rows, uint4* tiles, int steps) {
  after_others();
  const int step = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32, col = 16 * step + 2 * (lane % 4);
  if (step >= steps) return;
  const Row upper = rows[blockIdx.y * 16 + lane / 4], lower = rows[blockIdx.y * 16 + lane / 4 + 8];
  tiles[((u64)blockIdx.y * steps + step) * 32 + lane] = make_uint4(pair_of(upper, col), pair_of(lower, col), pair_of(upper, col + 8), pair_of(lower, col + 8));
}
KERNEL(linear_tiles)
