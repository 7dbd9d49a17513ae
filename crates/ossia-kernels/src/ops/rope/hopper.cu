// Norm, product, rotation and pages of prompts on Hopper (kernel.cu has the others).
#include "../../cuda/hopper.cuh"
#include "rope.cuh"

__device__ inline uint4 piece_of(const Normed& from, int piece) {
  if (!from.row) return make_uint4(0, 0, 0, 0);
  float4 x[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const float4 a = *(const float4*)(from.row + 8 * piece + 4 * i), g = *(const float4*)(from.weight + 8 * piece + 4 * i);
    x[i] = make_float4(a.x * from.scale * g.x, a.y * from.scale * g.y, a.z * from.scale * g.z, a.w * from.scale * g.w);
  }
  return piece_of(x[0], x[1]);
}

// x [T, K] normalised, to bf16, [piece of eight columns, token]. Grid [tiles of tokens]; missing tokens are zeros.
extern "C" __global__ void __launch_bounds__(256) rope_norm_pack_pieces(const float* x, const float* norm, float eps, uint4* packed, int cols, int tokens) {
  after_others();
  const Normed row = norm_tokens(x, norm, eps, blockIdx.x * 8, tokens, cols);
  const int token = blockIdx.x * 8 + threadIdx.x % 32 / 4;
  for (int piece = threadIdx.x / 32 * 4 + threadIdx.x % 4; 8 * piece < cols; piece += 32)
    packed[(u64)piece * padded(tokens) + token] = piece_of(row, piece);
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
