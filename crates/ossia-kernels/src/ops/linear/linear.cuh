// Where outputs of a dense product go. Included after common.cuh.
#pragma once

struct Plain {
  const float* bias;
  float* y;
  int rows, add;
  __device__ inline void one(float value, int row, int token) const {
    if (row >= rows) return;
    float* at = y + (u64)token * rows + row;
    float v = bias ? value + bias[row] : value;
    *at = add ? *at + v : v;
  }
  __device__ inline void two(float a, float b, int tile, int g, int token) const {
    one(a, 16 * tile + g, token);
    one(b, 16 * tile + g + 8, token);
  }
};
