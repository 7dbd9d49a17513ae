// What the kernels of experts have in common: items of work, and where products go.
#pragma once
#include "../../cuda/low_rank.cuh"

struct Item { u32 expert, first, count, unused; };

#define WEIGHTS const uint4 *w, const u32 *scales, int tiles, int blocks
#define WORK const Item *items, const u32 *num_items, const u32 *pairs

// act of one unit and pair.
struct Up {
  const float *gate_bias, *up_bias;
  float limit, alpha;
  float* act;
  int units;
  Adapted adapted;
  __device__ inline void out(float gate, float up, u32 expert, int unit, u32 pair) const {
    if (unit >= units) return;
    gate += gate_bias[(u64)expert * units + unit];
    up += up_bias[(u64)expert * units + unit];
    if (const Factor* factor = adapted.of(pair)) {
      gate += adapted.product(factor, expert, 2 * unit, pair);
      up += adapted.product(factor, expert, 2 * unit + 1, pair);
    }
    // Comparisons that keep what is not a number.
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : up < -limit ? -limit : up;
    act[(u64)pair * units + unit] = gate / __fadd_rn(1.0f, expf(-alpha * gate)) * (up + 1.0f);
  }
  __device__ inline void two(float gate, float up, u32 expert, int tile, int g, u32 pair) const { out(gate, up, expert, tile * 8 + g, pair); }
};

// What one expert says to a pair.
struct Down {
  const float* bias;
  float* said;
  int rows;
  Adapted adapted;
  __device__ inline void out(float value, u32 expert, int row, u32 pair) const {
    if (row >= rows) return;
    value += bias[(u64)expert * rows + row];
    if (const Factor* factor = adapted.of(pair)) value += adapted.product(factor, expert, row, pair);
    said[(u64)pair * rows + row] = value;
  }
  __device__ inline void two(float a, float b, u32 expert, int tile, int g, u32 pair) const {
    out(a, expert, tile * 16 + g, pair);
    out(b, expert, tile * 16 + g + 8, pair);
  }
};

#define UP_OUT const float *gate_bias, const float *up_bias, float limit, float alpha, float *act, int units, ADAPTED
#define DOWN_OUT const float *bias, float *said, int rows, ADAPTED

// The pairs of an item, for `hand_out`.
template <class Out> struct OfItem {
  const Out& out;
  Item item;
  const u32* pairs;
  __device__ inline void two(float a, float b, int tile, int g, int at) const { out.two(a, b, item.expert, tile, g, pairs[item.first + at]); }
};
