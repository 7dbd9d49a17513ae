// What all kernels share: 16-bit floats as bits, the tensor cores' product, sums in a fixed order.
//
// No header of CUDA is needed, so the run-time compiler finds everything here. On a CPU (`cargo xtask cuda-emulate`) the
// same sources are compiled by a C++ compiler, and what only a GPU can do is in its own header.
#pragma once

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

static const u32 ALL = 0xffffffffu;
#define INF __uint_as_float(0x7f800000u)

#ifdef OSSIA_EMULATED
#include "emulated.h"
#else
#define KERNEL(name)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

// Two floats to bf16, rounded to the nearest even; `low` goes to the lower half.
__device__ inline u32 bf16_pair(float low, float high) {
  u32 out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

// a * b of two pairs of bf16; subnormal numbers are kept.
__device__ inline u32 bf16_pair_times(u32 a, u32 b) {
  u32 out;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(0x80008000u));
  return out;
}

__device__ inline u16 half_of(float value) {
  u16 out;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(value));
  return out;
}

__device__ inline float float_of_half(u16 bits) {
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(bits));
  return out;
}

// c [16, 8] += a [16, 16] b [16, 8] in a warp. Lane 4 g + t holds of a rows g and g + 8, columns 2t, 2t + 1 and 8 more
// (a0: g, a1: g + 8, a2: g, 8 on, a3: g + 8, 8 on), of b the same columns as rows, column g; of c rows g (c0, c1) and
// g + 8 (c2, c3), columns 2t and 2t + 1. A column of c depends on no other column.
__device__ inline void mma(float c[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same for f16.
__device__ inline void mma_half(float c[4], const u32 a[4], u32 b0, u32 b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats to f16, rounded to the nearest even; `low` goes to the lower half.
__device__ inline u32 half_pair(float low, float high) {
  u32 out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

__device__ inline u32 in_shared(const void* at) { return (u32)__cvta_generic_to_shared(at); }

// Four tiles [8, 8] of numbers of 16 bits from shared memory. Lane i points to row i % 8 of tile i / 8, and gets of every
// tile what mma wants of lane 4 g + t: columns 2t and 2t + 1 of row g.
__device__ inline void load_tiles(u32 (&out)[4], const u16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(in_shared(row)) : "memory");
}

// The same with rows and columns exchanged: rows 2t and 2t + 1 of column g.
__device__ inline void load_tiles_turned(u32 (&out)[4], const u16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(in_shared(row)) : "memory");
}

// Begins a copy of 16 bytes to shared memory, or of zeros. Copies are closed into groups, and waited for by all but the
// last `left` groups of the thread; other threads see them after a barrier.
__device__ inline void copy_async(void* to, const void* from, bool zero) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(in_shared(to)), "l"(from), "r"(zero ? 0 : 16) : "memory");
}
__device__ inline void copies_close() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int left> __device__ inline void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory"); }

// 2^x to 2 ulp; of -INF it is 0.
__device__ inline float exp2_fast(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

// Everything that is launched before has been done and is seen after this. A kernel may be started while the one before is
// still running, so all of its blocks say this before they read what another has written, or end. What they need of weights
// they ask for before.
__device__ inline void after_others() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Asks for weights that will be read soon: 128 bytes a lane and turn.
__device__ inline void ask_for(const void* from, u64 bytes) {
  for (u64 at = threadIdx.x % 32 * 128; at < bytes; at += 32 * 128) asm volatile("prefetch.global.L2 [%0];" ::"l"((const char*)from + at));
}

// Weights are read once: past the first cache, and first to leave the second. Loads stay where they are written, before or
// after the wait for others.
__device__ inline uint4 load_once(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
  return v;
}
#endif

__device__ inline float float_of_bf16(u16 bits) { return __uint_as_float((u32)bits << 16); }

// The sum over a warp, the same in every lane, in a fixed order.
__device__ inline float warp_sum(float v) {
  for (int step = 16; step > 0; step >>= 1) v += __shfl_xor_sync(ALL, v, step);
  return v;
}

__device__ inline float warp_max(float v) {
  for (int step = 16; step > 0; step >>= 1) v = fmaxf(v, __shfl_xor_sync(ALL, v, step));
  return v;
}

// Whether this block is the last of `count` to come here; if so, it sees what the others had written, and the counter is
// zero again for the next kernel.
__device__ inline bool comes_last(u32* counter, u32 count) {
  __shared__ u32 before;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    before = atomicAdd(counter, 1u);
    if (before == count - 1) *counter = 0;
  }
  __syncthreads();
  __threadfence();
  return before == count - 1;
}

// Eight columns of a row of floats: those of 32 that a lane of `mma` multiplies with in two steps of 16, which are 2t and 2t + 1
// and those 8, 16 and 24 further on; or a piece of eight that lie side by side.
struct Eight { float v[8]; };
__device__ inline int eights_of(int cols) { return (cols + 31) / 32 * 4; }
__device__ inline int column_of(int eight, int i) { return eight / 4 * 32 + eight % 4 * 2 + i / 2 * 8 + i % 2; }

// Of a row whose columns are a multiple of 16; zeros behind the last.
__device__ inline Eight eight_at(const float* row, int eight, int cols) {
  Eight u;
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    const int at = column_of(eight, i);
    float2 two = at < cols ? *(const float2*)(row + at) : make_float2(0, 0);
    u.v[i] = two.x, u.v[i + 1] = two.y;
  }
  return u;
}

// A piece.
__device__ inline Eight columns_at(const float* at) {
  const float4 a = *(const float4*)at, b = *(const float4*)(at + 4);
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
// One of a row whose columns are a multiple of 8; zeros behind the last.
__device__ inline Eight piece_at(const float* row, int piece, int cols) {
  Eight none = {};
  return 8 * piece < cols ? columns_at(row + 8 * piece) : none;
}

// Those as bf16: of each of the two steps what goes into `mma`.
__device__ inline uint4 bf16_eight(const Eight& u) {
  return make_uint4(bf16_pair(u.v[0], u.v[1]), bf16_pair(u.v[2], u.v[3]), bf16_pair(u.v[4], u.v[5]), bf16_pair(u.v[6], u.v[7]));
}

// Rows x / sqrt(mean(x^2) + eps) * g, made by blocks of 256 threads: of every 256 pieces a thread has one; its part of the sum is
// put to `parts` [8] of the row, and after a barrier all know the scale.
static const int NORM_PARTS = 8;
__device__ inline float square_of(float sum, const Eight& u) {
#pragma unroll
  for (int i = 0; i < 8; i++) sum = fmaf(u.v[i], u.v[i], sum);
  return sum;
}
__device__ inline void put_square(float* parts, float sum) {
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
}
__device__ inline void put_square(float* parts, const float* row, int cols) {
  float sum = 0;
#pragma unroll 2
  for (int piece = threadIdx.x; piece < cols / 8; piece += 256) sum = square_of(sum, columns_at(row + 8 * piece));
  put_square(parts, sum);
}
__device__ inline Eight normed(const Eight& x, float scale, const Eight& g) {
  Eight u;
#pragma unroll
  for (int i = 0; i < 8; i++) u.v[i] = x.v[i] * scale * g.v[i];
  return u;
}
__device__ inline float norm_scale(const float* parts, int cols, float eps) {
  float all = 0;
  for (int i = 0; i < NORM_PARTS; i++) all += parts[i];
  return 1.0f / sqrtf(all / (float)cols + eps);
}

// A sum over k is cut into as many parts, each a chain of its own, which are added in order. It depends on k alone, so
// a token has the same bits in every kernel and in every company.
static const int PARTS = 8;

// The first of `steps` steps that belongs to `part`.
__device__ inline int part_start(int part, int steps) { return part * steps / PARTS; }
