// Rotates q and k in place and writes k and v to their pages (rope/mod.rs). Keys and values are f16, [page, head, slot, channel].
#include "../../cuda/common.cuh"

// Grid [T, H + 2K], d / 2 threads. `tables`: pages of all sequences, `width` each, from page firsts[s] of sequence s on.
extern "C" __global__ void rope(float* qkv, const float* inv_freq, float concentration, const u32* positions, const u32* sequences,
                                const u32* tables, const u32* firsts, int width, u16* keys, u16* values, int heads, int kv_heads, int dim) {
  const int row = blockIdx.x, head = blockIdx.y, i = threadIdx.x, half = dim / 2;
  const u32 position = positions[row], sequence = sequences[row];
  float* at = qkv + ((u64)row * (heads + 2 * kv_heads) + head) * dim;
  float a = at[i], b = at[i + half];
  if (head < heads + kv_heads) {
    float angle = (float)position * inv_freq[i];
    float c = cosf(angle) * concentration, s = sinf(angle) * concentration;
    float turned = a * c - b * s;
    b = b * c + a * s;
    a = turned;
    at[i] = a;
    at[i + half] = b;
  }
  if (head < heads) return;
  u32 page = tables[(u64)sequence * width + position / 64 - firsts[sequence]];
  int kv_head = (head - heads) % kv_heads;
  u16* store = head < heads + kv_heads ? keys : values;
  u16* slot = store + (((u64)page * kv_heads + kv_head) * 64 + position % 64) * dim;
  slot[i] = half_of(a);
  slot[i + half] = half_of(b);
}
KERNEL(rope)
