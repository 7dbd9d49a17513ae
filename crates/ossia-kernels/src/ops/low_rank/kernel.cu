// u = s A x and y += B u (low_rank/mod.rs) for rows that go through adapters, each through its own.
#include "../../cuda/low_rank.cuh"

// A slot that is not below `count` has nothing here, NONE among them: slots are the model's, a weight has those up to its last.
// u [items, parts, width]: an item is a row of the step, or of those that want logits (`rows`), or one of a row's `k` pairs
// with the experts `chosen`. factors [count, all], of which `parts` from `first` on. Grid [items, parts * width / 8], a warp a number.
extern "C" __global__ void __launch_bounds__(256) low_rank_inner(const Factor* factors, u32 count, int all, int first, const u32* slots, const u32* rows, const u32* chosen, const float* x, float* u, int cols, int k, int per_row, int parts, int width) {
  after_others();
  const u32 item = blockIdx.x, token = item / k, slot = slots[rows ? rows[token] : token];
  const int at = blockIdx.y * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (slot >= count || at >= parts * width) return;
  const Factor factor = factors[(u64)slot * all + first + at / width];
  const u32 r = at % width;
  if (r >= factor.rank) return;
  const float* a = factor.a + (u64)(chosen ? chosen[item] : 0) * factor.a_stride + (u64)r * cols;
  const float* row = x + (u64)(item / per_row) * cols;
  float sum = 0;
  for (int i = 2 * lane; i < cols; i += 64) {
    float2 v = *(const float2*)(row + i);
    sum = fmaf(a[i + 1], v.y, fmaf(a[i], v.x, sum));
  }
  sum = warp_sum(sum);
  if (lane == 0) u[((u64)item * parts) * width + at] = factor.scale * sum;
}
KERNEL(low_rank_inner)

// y [T, stride] += B u. Grid [T, outputs / 256, parts].
extern "C" __global__ void __launch_bounds__(256) low_rank_add(const Factor* factors, u32 count, const u32* slots, const u32* rows, const float* u, float* y, int stride, int width) {
  after_others();
  const u32 row = blockIdx.x, slot = slots[rows ? rows[row] : row], output = blockIdx.y * 256 + threadIdx.x;
  if (slot >= count) return;
  const Factor factor = factors[(u64)slot * gridDim.z + blockIdx.z];
  if (!factor.rank || output >= factor.count) return;
  y[(u64)row * stride + factor.first + output] += low_rank_product(factor, u + ((u64)row * gridDim.z + blockIdx.z) * width, 0, output);
}
KERNEL(low_rank_add)
