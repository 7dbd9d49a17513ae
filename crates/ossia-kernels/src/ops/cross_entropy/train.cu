// nll of rows of logits, and their gradients in place (cross_entropy/mod.rs).
#include "../../cuda/common.cuh"

// The sum or the maximum of what eight warps have, known to all.
template <bool SUM> __device__ inline float joined(float* parts, float v) {
  v = SUM ? warp_sum(v) : warp_max(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  float all = parts[0];
  for (int i = 1; i < 8; i++) all = SUM ? all + parts[i] : fmaxf(all, parts[i]);
  return all;
}

// Grid [R]; without weights the loss alone.
extern "C" __global__ void __launch_bounds__(256) cross_entropy_rows(float* logits, const u32* ids, const float* weights, float z, float* nll, int vocab) {
  __shared__ float parts[8];
  after_others();
  float* row = logits + (u64)blockIdx.x * vocab;
  const u32 target = ids[blockIdx.x];
  const float logit = row[target];
  float most = -INF, sum = 0;
  for (int i = threadIdx.x; i < vocab; i += 256) most = fmaxf(most, row[i]);
  most = joined<false>(parts, most);
  for (int i = threadIdx.x; i < vocab; i += 256) sum += expf(row[i] - most);
  sum = joined<true>(parts, sum);
  const float lse = most + logf(sum);
  if (threadIdx.x == 0) nll[blockIdx.x] = lse - logit;
  if (!weights) return;
  const float weight = weights[blockIdx.x], factor = 1.0f / sum * (weight + 2.0f * weight * z * lse);
  for (int i = threadIdx.x; i < vocab; i += 256) {
    float d = expf(row[i] - most) * factor;
    row[i] = (u32)i == target ? d - weight : d;
  }
}
KERNEL(cross_entropy_rows)
