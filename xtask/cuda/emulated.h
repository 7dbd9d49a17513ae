// CUDA's language on a CPU, as much of it as our kernels use: threads of a block are fibers that take turns, those of a
// warp meet in collectives. Slow and exact: it shows that kernels, their launchers and their layouts are right.
#pragma once
#include <math.h>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static
#define __align__(n) alignas(n)

struct Dim3 { unsigned x, y, z; };
extern Dim3 threadIdx, blockIdx, blockDim, gridDim;
struct uint2 { u32 x, y; };
struct uint4 { u32 x, y, z, w; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
inline uint2 make_uint2(u32 x, u32 y) { return {x, y}; }
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulated {
void block_meets();
// Each lane gives `size` bytes; returns those of all 32 lanes.
const unsigned char* warp_gives(const void* value, int size);
unsigned char* dynamic_shared();
// What a warp makes of what its lanes gave last.
struct Product { bool is_new; float sums[16][8]; };
Product& product_of_warp();
// A thread's copies are made when it waits for them, not before.
void copy_begins(void* to, const void* from, bool zero);
void copies_close();
void copies_wait(int left);
// A thread has waited for the kernels before.
void has_waited();
typedef std::vector<std::vector<unsigned char>> Values;
struct Kernel { void (*call)(void** args); Values (*copy)(void** args); };
void add_kernel(const char* name, Kernel kernel);

template <class... A, size_t... I>
void call_with(void (*kernel)(A...), void** args, std::index_sequence<I...>) { kernel(*(A*)args[I]...); }
template <auto kernel> struct Call;
template <class... A, void (*kernel)(A...)> struct Call<kernel> {
  static void run(void** args) { call_with(kernel, args, std::index_sequence_for<A...>{}); }
  static Values copy(void** args) {
    Values values;
    int i = 0;
    ((values.emplace_back((unsigned char*)args[i], (unsigned char*)args[i] + sizeof(A)), i++), ...);
    return values;
  }
};
struct Entry { Entry(const char* name, Kernel kernel) { add_kernel(name, kernel); } };
}  // namespace emulated

#define KERNEL(name) static emulated::Entry entry_of_##name(#name, {emulated::Call<name>::run, emulated::Call<name>::copy});
#define DYNAMIC_SHARED(name) unsigned char* name = emulated::dynamic_shared()

// Blocks run one after the other, so what they have written is seen.
inline void __threadfence() {}
inline void __syncthreads() { emulated::block_meets(); }
inline void __syncwarp(u32 = 0) { emulated::warp_gives("", 1); }
inline int lane_of_thread() { return threadIdx.x % 32; }
template <class T> T __shfl_xor_sync(u32, T v, int mask) {
  T out;
  memcpy(&out, emulated::warp_gives(&v, sizeof v) + (lane_of_thread() ^ mask) * sizeof v, sizeof v);
  return out;
}
template <class T> T __shfl_sync(u32, T v, int lane) {
  T out;
  memcpy(&out, emulated::warp_gives(&v, sizeof v) + (lane % 32) * sizeof v, sizeof v);
  return out;
}
template <class T> T __shfl_up_sync(u32, T v, int by) {
  T out;
  int lane = lane_of_thread();
  memcpy(&out, emulated::warp_gives(&v, sizeof v) + (lane >= by ? lane - by : lane) * sizeof v, sizeof v);
  return out;
}
inline u32 __ballot_sync(u32, bool v) {
  const unsigned char* all = emulated::warp_gives(&v, 1);
  u32 bits = 0;
  for (int lane = 0; lane < 32; lane++) bits |= (u32)(all[lane] != 0) << lane;
  return bits;
}
inline int __ffs(u32 v) { return __builtin_ffs((int)v); }
inline int __popc(u32 v) { return __builtin_popcount(v); }
inline float __uint_as_float(u32 v) { float f; memcpy(&f, &v, 4); return f; }
inline float __int_as_float(int v) { float f; memcpy(&f, &v, 4); return f; }
inline u32 __float_as_uint(float v) { u32 u; memcpy(&u, &v, 4); return u; }
template <class T> T atomicAdd(T* at, T v) { T old = *at; *at += v; return old; }
template <class T> T atomicOr(T* at, T v) { T old = *at; *at |= v; return old; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

inline u16 bf16_of(float v) {
  u32 bits = __float_as_uint(v);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return (u16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline float bf16_value(u32 bits) { return __uint_as_float(bits << 16); }
inline u32 bf16_pair(float low, float high) { return bf16_of(low) | (u32)bf16_of(high) << 16; }
inline u32 bf16_pair_times(u32 a, u32 b) {
  return bf16_pair(bf16_value(a & 0xffff) * bf16_value(b & 0xffff), bf16_value(a >> 16) * bf16_value(b >> 16));
}
inline u16 half_of(float v) { _Float16 h = (_Float16)v; u16 bits; memcpy(&bits, &h, 2); return bits; }
inline float float_of_half(u16 bits) {
  static const std::vector<float> all = [] {
    std::vector<float> all(1 << 16);
    for (u32 i = 0; i < 1 << 16; i++) { u16 half = (u16)i; _Float16 h; memcpy(&h, &half, 2); all[i] = (float)h; }
    return all;
  }();
  return all[bits];
}
inline void after_others() { emulated::has_waited(); }
inline void ask_for(const void*, u64) {}
inline uint4 load_once(const uint4* at) { return *at; }

inline u32 half_pair(float low, float high) { return half_of(low) | (u32)half_of(high) << 16; }
inline float exp2_fast(float x) { return exp2f(x); }
// Never made a part of a fused multiplication.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }

inline u32 in_shared(const void* at) { return (u32)((const unsigned char*)at - emulated::dynamic_shared()); }
inline void copy_async(void* to, const void* from, bool zero) { emulated::copy_begins(to, from, zero); }
inline void copies_close() { emulated::copies_close(); }
template <int left> void copies_wait() { emulated::copies_wait(left); }

// Rows of a and columns of b are given by all lanes; the first to go on multiplies for all, each sum in one fixed order.
template <class Value> void mma_of(float c[4], const u32 (&mine)[6], Value value) {
  const unsigned char* all = emulated::warp_gives(mine, sizeof mine);
  emulated::Product& product = emulated::product_of_warp();
  if (product.is_new) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
      u32 words[6];
      memcpy(words, all + lane * sizeof mine, sizeof words);
      int g = lane / 4, t = lane % 4;
      for (int i = 0; i < 2; i++) {
        auto part = [&](int which) { return value(words[which] >> (16 * i) & 0xffff); };
        for (int which = 0; which < 4; which++) a[g + which % 2 * 8][2 * t + i + which / 2 * 8] = part(which);
        for (int which = 0; which < 2; which++) b[2 * t + i + which * 8][g] = part(4 + which);
      }
    }
    for (int row = 0; row < 16; row++) {
      float sums[8] = {};
      for (int k = 0; k < 16; k++)
        for (int column = 0; column < 8; column++) sums[column] += a[row][k] * b[k][column];
      memcpy(product.sums[row], sums, sizeof sums);
    }
    product.is_new = false;
  }
  int g = lane_of_thread() / 4, t = lane_of_thread() % 4;
  for (int i = 0; i < 4; i++) c[i] += product.sums[g + i / 2 * 8][2 * t + i % 2];
}
inline void mma(float c[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  mma_of(c, {a0, a1, a2, a3, b0, b1}, [](u32 bits) { return bf16_value(bits); });
}
inline void mma_half(float c[4], const u32 a[4], u32 b0, u32 b1) {
  mma_of(c, {a[0], a[1], a[2], a[3], b0, b1}, [](u32 bits) { return float_of_half((u16)bits); });
}

// Rows that lanes point to, each of eight numbers, and what of them a lane gets (common.cuh).
template <class Place> void tiles_of(u32 (&out)[4], const u16* row, Place place) {
  u16 mine[8];
  memcpy(mine, row, sizeof mine);
  const unsigned char* all = emulated::warp_gives(mine, sizeof mine);
  int g = lane_of_thread() / 4, t = lane_of_thread() % 4;
  for (int tile = 0; tile < 4; tile++) {
    u16 two[2];
    for (int i = 0; i < 2; i++) {
      auto [from, at] = place(g, 2 * t + i);
      memcpy(&two[i], all + (8 * tile + from) * sizeof mine + 2 * at, 2);
    }
    out[tile] = two[0] | (u32)two[1] << 16;
  }
}
inline void load_tiles(u32 (&out)[4], const u16* row) {
  tiles_of(out, row, [](int g, int i) { return std::pair(g, i); });
}
inline void load_tiles_turned(u32 (&out)[4], const u16* row) {
  tiles_of(out, row, [](int g, int i) { return std::pair(i, g); });
}
