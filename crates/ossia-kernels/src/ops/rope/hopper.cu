// Norm, product, rotation and pages of prompts on Hopper (kernel.cu has the others).
#include "../../cuda/hopper.cuh"
#include "rope.cuh"

// x [T, K] normalised, to bf16, [piece of eight columns, token]. Grid [tiles of tokens]; missing tokens are zeros.
extern "C" __global__ void __launch_bounds__(256) rope_norm_pack_pieces(const float* x, const float* norm, float eps, uint4* packed, int cols, int tokens) {
  __shared__ float parts[8][NORM_PARTS];
  after_others();
  const int first = blockIdx.x * 8, at = threadIdx.x % 32 / 4;
  for (int i = 0; i < 8 && first + i < tokens; i++) put_square(parts[i], x + (u64)(first + i) * cols, cols);
  __syncthreads();
  const bool real = first + at < tokens;
  const float scale = real ? norm_scale(parts[at], cols, eps) : 0;
  for (int piece = threadIdx.x / 32 * 4 + threadIdx.x % 4; 8 * piece < cols; piece += 32) {
    uint4 out = make_uint4(0, 0, 0, 0);
    if (real) out = bf16_eight(normed(columns_at(x + (u64)(first + at) * cols + 8 * piece), scale, columns_at(norm + 8 * piece)));
    packed[(u64)piece * padded(tokens) + first + at] = out;
  }
}
KERNEL(rope_norm_pack_pieces)

// Grid [128 rows, blocks of tokens].
#define PROMPT(name, NT)                                                                                                               \
  extern "C" __global__ void __launch_bounds__(256) name(const uint4* w, const uint4* x, int rows, int cols, int tokens, PROJECTED) {  \
    after_others();                                                                                                                    \
    Projected out = OUT;                                                                                                               \
    prompt_async<NT>(w, rows, cols / 16, x, tokens, out);                                                                              \
  }                                                                                                                                    \
  KERNEL(name)
PROMPT(rope_async_128, 16)
PROMPT(rope_async_192, 24)
