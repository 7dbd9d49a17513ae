// A warpgroup's products (wgmma.cuh) on a CPU, warp by warp: what is read is what the operand says, and what was not waited
// for has not been made.
#pragma once

namespace emulated {
// c of a lane: `tiles` tiles of eight tokens.
void product_begins(float* c, const u32* a, int tiles, u64 b, bool add);
void products_ordered();
void products_close();
void products_wait(int left);
void copies_fenced();
}  // namespace emulated

inline void products_may_read() { emulated::copies_fenced(); }
inline void products_begin() { emulated::products_ordered(); }
inline void products_close() { emulated::products_close(); }
template <int left> void products_wait() { emulated::products_wait(left); }
template <int NT> void products_done(float (&)[NT][4]) {}
template <int NT> void product(float (&c)[NT][4], const uint4& a, u64 b, bool add) { emulated::product_begins(c[0], &a.x, NT, b, add); }
