// A warpgroup's products (wgmma.cuh) on a CPU, warp by warp: what is read is what the operand says, and what was not waited
// for has not been made.
#pragma once

namespace emulated {
// c of a lane: `tiles` tiles of eight tokens.
void product_begins(float* c, const u32* a, int tiles, u64 b, bool add);
void products_ordered();
void products_close();
void products_wait(int left);
// Of a warp that says how much comes, and when all warps have, of what has come.
void bell_hang(const void* bell, int warps);
void copy_bulk(void* to, const void* from, u32 bytes, const void* bell);
void bell_say(const void* bell);
void bell_wait(const void* bell, u32 odd);
}  // namespace emulated

inline void bell_hang(u64* bell, u32 warps) { emulated::bell_hang(bell, (int)warps); }
inline void bells_hang() {}
inline void copy_bulk(void* to, const void* from, u32 bytes, u64* bell) { emulated::copy_bulk(to, from, bytes, bell); }
inline void bell_say(u64* bell) { emulated::bell_say(bell); }
inline void bell_wait(const u64* bell, u32 odd) { emulated::bell_wait(bell, odd); }
inline void products_begin() { emulated::products_ordered(); }
inline void products_close() { emulated::products_close(); }
template <int left> void products_wait() { emulated::products_wait(left); }
template <int NT> void products_done(float (&)[NT][4]) {}
template <int NT> void product(float (&c)[NT][4], const uint4& a, u64 b, bool add) { emulated::product_begins(c[0], &a.x, NT, b, add); }
