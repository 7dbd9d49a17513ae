// x_t = E[token_t] (embed/mod.rs), with the table in bf16.
#include "../../cuda/pack.cuh"

// Grid [T].
extern "C" __global__ void __launch_bounds__(256) embed(const u16* table, const u32* tokens, float* x, int cols) {
  after_others();
  const u16* row = table + (u64)tokens[blockIdx.x] * cols;
  for (int i = threadIdx.x; i < cols; i += 256) x[(u64)blockIdx.x * cols + i] = float_of_bf16(row[i]);
}
KERNEL(embed)

// Rows of the table to bf16. Grid [rows].
extern "C" __global__ void __launch_bounds__(256) embed_rows(const Row* rows, u32* table, int cols) {
  after_others();
  const Row row = rows[blockIdx.x];
  for (int i = threadIdx.x; i < cols / 2; i += 256) table[(u64)blockIdx.x * (cols / 2) + i] = pair_of(row, 2 * i);
}
KERNEL(embed_rows)
