// What the forward pass sees of weights (stored/mod.rs): matrices in bf16, what is used exactly in f32.
#include "../../cuda/common.cuh"

// Grid [n / 512], two numbers a thread; a last odd one is alone.
extern "C" __global__ void __launch_bounds__(256) stored_bf16(const float* x, u16* out, u64 n) {
  after_others();
  u64 i = ((u64)blockIdx.x * 256 + threadIdx.x) * 2;
  if (i >= n) return;
  u32 pair = bf16_pair(x[i], i + 1 < n ? x[i + 1] : 0);
  out[i] = (u16)pair;
  if (i + 1 < n) out[i + 1] = (u16)(pair >> 16);
}
KERNEL(stored_bf16)

// Groups of 32 as MXFP4 holds them, which bf16 holds exactly. Grid [groups / 8], a warp a group.
extern "C" __global__ void __launch_bounds__(256) stored_mxfp4(const float* x, u16* out, u64 groups) {
  after_others();
  const u64 group = (u64)blockIdx.x * 8 + threadIdx.x / 32, at = group * 32 + threadIdx.x % 32;
  if (group >= groups) return;
  const float v = x[at];
  // The bits of positive floats are in the order of the floats, not-a-number comes last.
  u32 largest = __float_as_uint(v) & 0x7fffffffu;
  for (int step = 16; step > 0; step >>= 1) {
    u32 other = __shfl_xor_sync(ALL, largest, step);
    largest = other > largest ? other : largest;
  }
  if (largest >= 0x7f800000u) {
    out[at] = 0x7fff;
    return;
  }
  const u32 byte = (__float_as_uint(__uint_as_float(largest) / 6.0f) + 0x007fffffu) >> 23;
  const float a = fabsf(v) * (byte == 0 ? 0 : __uint_as_float((254 - byte) << 23));
  // Twice the nearest E2M1 value; a tie goes to the even code.
  float doubled = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + 2 * (a > 2.5f) + 2 * (a >= 3.5f) + 4 * (a > 5.0f);
  const float scale = __uint_as_float(byte == 0 ? 0x00400000u : byte << 23), value = 0.5f * (v < 0 ? -doubled : doubled) * scale;
  out[at] = (u16)bf16_pair(value + 0.0f, 0);
}
KERNEL(stored_mxfp4)

// Floats, rounded to bf16 where that is asked for. Grid [n / 256].
extern "C" __global__ void __launch_bounds__(256) stored_exact(const float* x, float* out, u64 n, int rounds) {
  after_others();
  u64 i = (u64)blockIdx.x * 256 + threadIdx.x;
  if (i < n) out[i] = rounds ? float_of_bf16((u16)bf16_pair(x[i], 0)) : x[i];
}
KERNEL(stored_exact)
