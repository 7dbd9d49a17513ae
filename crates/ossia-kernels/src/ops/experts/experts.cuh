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

  // Where that of a tile's row g goes, and what is added to its sums.
  struct Place { u32 expert, pair; int unit; float gate, up; };
  __device__ inline Place place(u32 expert, int tile, int g, u32 pair) const {
    Place place = {expert, pair, tile * 8 + g, 0, 0};
    if (place.unit >= units) return place;
    place.gate = gate_bias[(u64)expert * units + place.unit];
    place.up = up_bias[(u64)expert * units + place.unit];
    return place;
  }
  __device__ inline void put(float gate, float up, const Place& to) const {
    if (to.unit >= units) return;
    gate += to.gate;
    up += to.up;
    if (const Factor* factor = adapted.of(to.pair)) {
      gate += adapted.product(factor, to.expert, 2 * to.unit, to.pair);
      up += adapted.product(factor, to.expert, 2 * to.unit + 1, to.pair);
    }
    // Comparisons that keep what is not a number.
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : up < -limit ? -limit : up;
    act[(u64)to.pair * units + to.unit] = gate / __fadd_rn(1.0f, expf(-alpha * gate)) * (up + 1.0f);
  }
  __device__ inline void two(float gate, float up, u32 expert, int tile, int g, u32 pair) const { put(gate, up, place(expert, tile, g, pair)); }
};

// What one expert says to a pair.
struct Down {
  const float* bias;
  float* said;
  int rows;
  Adapted adapted;

  struct Place { u32 expert, pair; int row; float bias[2]; };
  __device__ inline Place place(u32 expert, int tile, int g, u32 pair) const {
    Place place = {expert, pair, tile * 16 + g, {0, 0}};
#pragma unroll
    for (int i = 0; i < 2; i++)
      if (place.row + 8 * i < rows) place.bias[i] = bias[(u64)expert * rows + place.row + 8 * i];
    return place;
  }
  __device__ inline void put(float a, float b, const Place& to) const {
#pragma unroll
    for (int i = 0; i < 2; i++)
      if (to.row + 8 * i < rows) put_one((i == 0 ? a : b) + to.bias[i], to.expert, to.row + 8 * i, to.pair);
  }
  __device__ inline void put_one(float value, u32 expert, int row, u32 pair) const {
    if (const Factor* factor = adapted.of(pair)) value += adapted.product(factor, expert, row, pair);
    said[(u64)pair * rows + row] = value;
  }
  __device__ inline void out(float value, u32 expert, int row, u32 pair) const {
    if (row < rows) put_one(value + bias[(u64)expert * rows + row], expert, row, pair);
  }
  __device__ inline void two(float a, float b, u32 expert, int tile, int g, u32 pair) const { put(a, b, place(expert, tile, g, pair)); }
};

#define UP_OUT const float *gate_bias, const float *up_bias, float limit, float alpha, float *act, int units, ADAPTED
#define DOWN_OUT const float *bias, float *said, int rows, ADAPTED

// The pairs of an item, for `hand_out`.
template <class Out> struct OfItem {
  const Out& out;
  Item item;
  const u32* pairs;
  typedef typename Out::Place Place;
  __device__ inline Place place(int tile, int g, int at) const { return out.place(item.expert, tile, g, pairs[item.first + at]); }
  __device__ inline void put(float a, float b, const Place& to) const { out.put(a, b, to); }
  __device__ inline void two(float a, float b, int tile, int g, int at) const { out.two(a, b, item.expert, tile, g, pairs[item.first + at]); }
};
