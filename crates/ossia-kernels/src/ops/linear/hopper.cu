// y = W x + b, and y += W x + b, of prompts on Hopper, with W in bf16 (kernel.cu has the others).
#include "../../cuda/hopper.cuh"
#include "linear.cuh"

// Grid [128 rows, blocks of tokens].
#define PROMPT(name, NT)                                                                                                               \
  extern "C" __global__ void __launch_bounds__(256) name(const uint4* w, const float* bias, const uint4* x, float* y, int rows, int cols, int tokens, int add) { \
    after_others();                                                                                                                    \
    Plain out = {bias, y, rows, add};                                                                                                  \
    prompt_async<NT>(w, rows, cols / 16, x, tokens, out);                                                                              \
  }                                                                                                                                    \
  KERNEL(name)
PROMPT(linear_async_128, 16)
PROMPT(linear_async_192, 24)

// x [T, K] to bf16, [piece of eight columns, token]. Grid [pieces / 32, tiles of tokens]; missing tokens are zeros.
extern "C" __global__ void __launch_bounds__(256) linear_pack_pieces(const float* x, uint4* packed, int cols, int tokens) {
  after_others();
  const int piece = blockIdx.x * 32 + threadIdx.x / 32 * 4 + threadIdx.x % 4, token = blockIdx.y * 8 + threadIdx.x % 32 / 4;
  if (8 * piece >= cols) return;
  packed[(u64)piece * padded(tokens) + token] = token < tokens ? bf16_eight(columns_at(x + (u64)token * cols + 8 * piece)) : make_uint4(0, 0, 0, 0);
}
KERNEL(linear_pack_pieces)
