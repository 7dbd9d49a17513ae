// Sums over rows, for gradients of what all rows share: a block of 1024 threads takes 32 columns, 32 rows at a time, and
// adds the 32 chains in order.
#pragma once
#include "common.cuh"

// out [cols] += the sum of value(row, column) over rows from `first` to `end`. Grid [cols / 32, ...].
template <class Value> __device__ inline void add_columns(int first, int end, int cols, float* out, const Value& value) {
  __shared__ float parts[32][33];
  const int lane = threadIdx.x % 32, chain = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
  float sum = 0;
  if (column < cols)
    for (int row = first + chain; row < end; row += 32) sum += value(row, column);
  parts[chain][lane] = sum;
  __syncthreads();
  if (chain > 0 || column >= cols) return;
  for (int i = 1; i < 32; i++) sum += parts[i][lane];
  out[column] += sum;
}
