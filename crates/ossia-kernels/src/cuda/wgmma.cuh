// The product of a whole warpgroup (four warps) on Hopper's tensor cores: a [64, 16] in registers, b [16, N] read from shared
// memory while threads go on. For compute capability 9.0 alone (sm_90a).
#pragma once
#include "common.cuh"

// Where b lies: numbers of 16 bits, in pieces of eight steps of k for one token (16 bytes), eight tokens' pieces one after the
// other, and so on for further tokens; the second eight steps of k lie `halves` bytes behind the first. Nothing is swizzled.
__device__ inline u64 operand(const void* at, u32 halves) {
  const u64 EIGHT_TOKENS = 128;
  return (u64)((in_shared(at) & 0x3ffff) >> 4) | (u64)(halves >> 4) << 16 | EIGHT_TOKENS >> 4 << 32;
}

#ifdef OSSIA_EMULATED
#include "wgmma.h"
#else
// What threads have put to shared memory will be seen by products that are asked for after the next barrier.
__device__ inline void products_may_read() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Before a product that takes registers which were written, or sums which were read, since the last.
__device__ inline void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Products are closed into groups, and waited for by all but the last `left`; until then neither their sums nor their `a` are
// touched.
__device__ inline void products_close() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int left> __device__ inline void products_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory"); }

// The compiler may not take what is read of `c` from before this, since it does not know when products end.
template <int NT> __device__ inline void products_done(float (&c)[NT][4]) {
#pragma unroll
  for (int n = 0; n < NT; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) asm volatile("" : "+f"(c[n][i])::"memory");
}

#define SUMS1(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define SUMS2(n) SUMS1(n), SUMS1(n + 1)
#define SUMS4(n) SUMS2(n), SUMS2(n + 2)
#define SUMS8(n) SUMS4(n), SUMS4(n + 4)
#define SUMS16(n) SUMS8(n), SUMS8(n + 8)
#define SUMS24(n) SUMS16(n), SUMS8(n + 16)

// c [64, 8 NT] = a b, or with `add` c += a b. Of the 16 rows of a warp its lanes hold what they do for `mma`, of a and c both.
#define WGMMA(NT, N, REGISTERS, SUMS, A, B, ADD)                                                                                    \
  __device__ inline void product(float (&c)[NT][4], const uint4& a, u64 b, bool add) {                                              \
    asm volatile("{.reg .pred add; setp.ne.u32 add, %" ADD ", 0; wgmma.mma_async.sync.aligned.m64n" N "k16.f32.bf16.bf16 "          \
                 "{" REGISTERS "}, {" A "}, %" B ", add, 1, 1, 0;}"                                                                 \
                 : SUMS : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "l"(b), "r"((u32)add));                                           \
  }
#define R0 "%0,%1,%2,%3,%4,%5,%6,%7"
#define R8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define R16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define R64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
WGMMA(2, "16", R0, SUMS2(0), "%8,%9,%10,%11", "12", "13")
WGMMA(4, "32", R0 R8, SUMS4(0), "%16,%17,%18,%19", "20", "21")
WGMMA(8, "64", R0 R8 R16, SUMS8(0), "%32,%33,%34,%35", "36", "37")
WGMMA(16, "128", R0 R8 R16 R32, SUMS16(0), "%64,%65,%66,%67", "68", "69")
WGMMA(24, "192", R0 R8 R16 R32 R64, SUMS24(0), "%96,%97,%98,%99", "100", "101")
#endif
