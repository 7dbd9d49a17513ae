// The rotation of training, which writes no pages, and its reverse (rope/mod.rs).
#include "../../cuda/common.cuh"

// In place: q and k of qkv [T, (H + 2K) d], sines times `sign`. Grid [T, H + K], d / 2 threads.
extern "C" __global__ void rope_rotate(float* qkv, const float2* turns, float sign, int row, int dim) {
  after_others();
  const int half = dim / 2;
  float* at = qkv + (u64)blockIdx.x * row + blockIdx.y * dim + threadIdx.x;
  float2 turn = turns[(u64)blockIdx.x * half + threadIdx.x];
  float a = at[0], b = at[half], sine = sign * turn.y;
  at[0] = a * turn.x - b * sine;
  at[half] = b * turn.x + a * sine;
}
KERNEL(rope_rotate)
