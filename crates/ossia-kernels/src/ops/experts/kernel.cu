// The routed experts (experts/mod.rs), weights in MXFP4. Pairs (token * k + slot) are gathered by expert and cut into items
// of one expert and at most so many pairs as a tiling takes; a block computes some rows of one item. Up to 32 pairs of up to
// eight tokens are gathered by each block for itself: the item of an expert is its first pair's.
//
// A tile of the first product has eight gate rows and under them the up rows of the same units, so a lane that has the one
// has the other.
#include "../../cuda/products.cuh"

struct Item { u32 expert, first, count, unused; };

#define WEIGHTS const uint4 *w, const u32 *scales, int tiles, int blocks
#define WORK const Item *items, const u32 *num_items, const u32 *pairs

// One block. pairs [n] sorted by expert, ascending in each; items of at most `most` pairs, and how many there are.
extern "C" __global__ void __launch_bounds__(1024) experts_items(const u32* chosen, int n, int experts, int most, u32* pairs, Item* items, u32* num_items) {
  __shared__ u32 counts[1024], starts[1024];
  after_others();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int e = warp; e < experts; e += 32) {
    u32 count = 0;
    for (int i = 0; i < n; i += 32) count += __popc(__ballot_sync(ALL, i + lane < n && chosen[i + lane] == (u32)e));
    if (lane == 0) counts[e] = count;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    u32 start = 0, made = 0;
    for (int e = 0; e < experts; e++) {
      starts[e] = start;
      for (u32 done = 0; done < counts[e]; done += most) {
        Item item = {(u32)e, start + done, counts[e] - done < (u32)most ? counts[e] - done : most, 0};
        items[made++] = item;
      }
      start += counts[e];
    }
    *num_items = made;
  }
  __syncthreads();
  for (int e = warp; e < experts; e += 32) {
    u32 at = starts[e];
    for (int i = 0; i < n; i += 32) {
      bool mine = i + lane < n && chosen[i + lane] == (u32)e;
      u32 who = __ballot_sync(ALL, mine);
      if (mine) pairs[at + __popc(who & ((1u << lane) - 1))] = i + lane;
      at += __popc(who);
    }
  }
}
KERNEL(experts_items)

// What a block computes: pairs in memory, or as bits.
struct Work {
  u32 expert, count, bits;
  const u32* pairs;
  __device__ inline u32 pair(u32 at) const {
    if (pairs) return pairs[at];
    u32 left = bits;
    for (u32 i = 0; i < at; i++) left &= left - 1;
    return __ffs(left) - 1;
  }
};

// The work of blocks blockIdx.y; without items `pairs` are the experts of so many pairs as there are blocks. False where there
// is none.
__device__ inline bool has_work(Work& work, WORK) {
  if (items) {
    if (blockIdx.y >= *num_items) return false;
    work = {items[blockIdx.y].expert, items[blockIdx.y].count, 0, pairs + items[blockIdx.y].first};
    return true;
  }
  u32 own = pairs[blockIdx.y], lane = threadIdx.x % 32;
  u32 bits = __ballot_sync(ALL, lane < gridDim.y && pairs[lane < gridDim.y ? lane : 0] == own);
  work = {own, (u32)__popc(bits), bits, nullptr};
  return (bits & ((1u << blockIdx.y) - 1)) == 0;
}

// act of one unit and pair.
struct Up {
  const float *gate_bias, *up_bias;
  float limit, alpha;
  float* act;
  int units;
  __device__ inline void out(float gate, float up, u32 expert, int unit, u32 pair) const {
    if (unit >= units) return;
    gate += gate_bias[(u64)expert * units + unit];
    up += up_bias[(u64)expert * units + unit];
    // Comparisons that keep what is not a number.
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : up < -limit ? -limit : up;
    act[(u64)pair * units + unit] = gate / __fadd_rn(1.0f, expf(-alpha * gate)) * (up + 1.0f);
  }
};

// What one expert says to a pair.
struct Down {
  const float* bias;
  float* said;
  int rows;
  __device__ inline void out(float value, u32 expert, int row, u32 pair) const {
    if (row < rows) said[(u64)pair * rows + row] = value + bias[(u64)expert * rows + row];
  }
};

template <int NT> __device__ inline Rows<NT> rows_of(const float* x, int cols, int per_row, const Work& work) {
  Rows<NT> rows;
  rows.cols = cols;
#pragma unroll
  for (int n = 0; n < NT; n++) {
    u32 at = n * 8 + threadIdx.x % 32 / 4;
    rows.row[n] = at < work.count ? x + (u64)(work.pair(at) / per_row) * cols : nullptr;
  }
  return rows;
}

// A warp for each part of k; the sums of one tile of rows lie in shared memory after it.
template <int NT, class Tokens>
__device__ inline void few(float* parts, const uint4* w, const u32* scales, u32 expert, int tiles, int blocks, const Tokens& x) {
  u64 tile = ((u64)expert * tiles + blockIdx.x) * blocks;
  int part = threadIdx.x / 32;
  float c[1][NT][4];
  clear(c);
  add_mxfp4(c, w + tile * 32, scales + tile * 8, 0, part_start(part, blocks), part_start(part + 1, blocks), x);
  put_part<1, NT>(parts, c);
  __syncthreads();
}

template <int NT> __device__ inline void few_up(const float* parts, const Work& work, const Up& up) {
  for (int i = threadIdx.x; i < 8 * NT * 8; i += PARTS * 32) {
    u32 unit = i % 8, token = i / 8;
    if (token < work.count) up.out(sum_parts<1, NT>(parts, 0, unit, token), sum_parts<1, NT>(parts, 0, unit + 8, token), work.expert, blockIdx.x * 8 + unit, work.pair(token));
  }
}

template <int NT> __device__ inline void few_down(const float* parts, const Work& work, const Down& down) {
  for (int i = threadIdx.x; i < 16 * NT * 8; i += PARTS * 32) {
    u32 row = i % 16, token = i / 16;
    if (token < work.count) down.out(sum_parts<1, NT>(parts, 0, row, token), work.expert, blockIdx.x * 16 + row, work.pair(token));
  }
}

// Two tiles of rows, from `first` on, and 64 pairs a warp, all parts one after the other. False where nothing is left to do.
__device__ inline bool many(float (&sum)[2][8][4], int first, WEIGHTS, WORK, const uint2* packed) {
  if (blockIdx.y >= *num_items || first >= tiles) return false;
  Packed x = {packed + (u64)blockIdx.y * 8 * blocks * 4 * 32, blocks * 4};
  u64 tile = ((u64)items[blockIdx.y].expert * tiles + first) * blocks;
  clear(sum);
  for (int part = 0; part < PARTS; part++) {
    float c[2][8][4];
    clear(c);
    add_mxfp4(c, w + tile * 32, scales + tile * 8, first + 1 < tiles ? blocks : 0, part_start(part, blocks), part_start(part + 1, blocks), x);
    add_to(sum, c);
  }
  return true;
}

#define UP_OUT const float *gate_bias, const float *up_bias, float limit, float alpha, float *act, int units
#define DOWN_OUT const float *bias, float *said, int rows

// What a token's k experts say, best first, each with its weight.
__device__ inline float combined(const float* said, const float* weights, u64 token, int k, int row, int rows) {
  float sum = 0;
  for (int slot = 0; slot < k; slot++) sum = fmaf(weights[token * k + slot], said[(token * k + slot) * rows + row], sum);
  return sum;
}

// Grid [tiles of rows, items]. `per_row`: pairs of a row of x, k for the first product and 1 for the second. Where the second
// has counters, a tile's last block adds to y what the experts have said to each of `tokens`.
#define COMBINE const float *weights, float *y, int k, int tokens, u32 *counters
#define FEW_ROWS(NT, BOUNDS)                                                                                                         \
  extern "C" __global__ void __launch_bounds__ BOUNDS experts_up_##NT(WEIGHTS, WORK, const float* x, int cols, int per_row, UP_OUT) { \
    after_others();                                                                                                          \
    Work work;                                                                                                               \
    if (!has_work(work, items, num_items, pairs)) return;                                                                    \
    DYNAMIC_SHARED(memory);                                                                                                  \
    Up up = {gate_bias, up_bias, limit, alpha, act, units};                                                                  \
    few<NT>((float*)memory, w, scales, work.expert, tiles, blocks, rows_of<NT>(x, cols, per_row, work));                     \
    few_up<NT>((float*)memory, work, up);                                                                                    \
  }                                                                                                                          \
  KERNEL(experts_up_##NT)                                                                                                    \
  extern "C" __global__ void __launch_bounds__ BOUNDS experts_down_##NT(WEIGHTS, WORK, const float* x, int cols, int per_row, DOWN_OUT, COMBINE) { \
    after_others();                                                                                                          \
    Work work;                                                                                                               \
    DYNAMIC_SHARED(memory);                                                                                                  \
    Down down = {bias, said, rows};                                                                                          \
    if (has_work(work, items, num_items, pairs)) {                                                                           \
      few<NT>((float*)memory, w, scales, work.expert, tiles, blocks, rows_of<NT>(x, cols, per_row, work));                   \
      few_down<NT>((float*)memory, work, down);                                                                              \
    }                                                                                                                        \
    if (!counters || !comes_last(counters + blockIdx.x, gridDim.y)) return;                                                  \
    for (int i = threadIdx.x; i < 16 * tokens; i += 256) {                                                                   \
      int row = blockIdx.x * 16 + i % 16;                                                                                    \
      if (row < rows) y[(u64)(i / 16) * rows + row] += combined(said, weights, i / 16, k, row, rows);                        \
    }                                                                                                                        \
  }                                                                                                                          \
  KERNEL(experts_down_##NT)
// Threads, and blocks at once where the compiler would otherwise keep too little in registers.
FEW_ROWS(1, (256))
FEW_ROWS(2, (256, 2))
FEW_ROWS(4, (256))

// Grid [tiles of rows / 8, items], four warps; x packed by `experts_pack`.
extern "C" __global__ void __launch_bounds__(128) experts_up_many(WEIGHTS, WORK, const uint2* x, UP_OUT) {
  after_others();
  const int first = (blockIdx.x * 4 + threadIdx.x / 32) * 2, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  float sum[2][8][4];
  if (!many(sum, first, w, scales, tiles, blocks, items, num_items, pairs, x)) return;
  Item item = items[blockIdx.y];
  Up up = {gate_bias, up_bias, limit, alpha, act, units};
#pragma unroll
  for (int r = 0; r < 2; r++)
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        u32 token = n * 8 + 2 * t + i;
        if (first + r < tiles && token < item.count) up.out(sum[r][n][i], sum[r][n][i + 2], item.expert, (first + r) * 8 + g, pairs[item.first + token]);
      }
}
KERNEL(experts_up_many)

extern "C" __global__ void __launch_bounds__(128) experts_down_many(WEIGHTS, WORK, const uint2* x, DOWN_OUT) {
  after_others();
  const int first = (blockIdx.x * 4 + threadIdx.x / 32) * 2, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  float sum[2][8][4];
  if (!many(sum, first, w, scales, tiles, blocks, items, num_items, pairs, x)) return;
  Item item = items[blockIdx.y];
  Down down = {bias, said, rows};
#pragma unroll
  for (int r = 0; r < 2; r++)
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        u32 token = n * 8 + 2 * t + i % 2;
        if (first + r < tiles && token < item.count) down.out(sum[r][n][i], item.expert, (first + r) * 16 + g + i / 2 * 8, pairs[item.first + token]);
      }
}
KERNEL(experts_down_many)

// Rows of the items' pairs to bf16, as `Packed` reads them: [item, tile of 8, step, lane]. Grid [steps / 8, items * 8].
extern "C" __global__ void __launch_bounds__(256) experts_pack(WORK, const float* x, uint2* packed, int cols, int per_row, int steps) {
  after_others();
  u32 which = blockIdx.y / 8, tile = blockIdx.y % 8, step = blockIdx.x * 8 + threadIdx.x / 32;
  if (which >= *num_items || step >= (u32)steps) return;
  Item item = items[which];
  u32 at = tile * 8 + threadIdx.x % 32 / 4;
  Rows<1> row = {{at < item.count ? x + (u64)(pairs[item.first + at] / per_row) * cols : nullptr}, cols};
  packed[((u64)blockIdx.y * steps + step) * 32 + threadIdx.x % 32] = row.fragment(0, step);
}
KERNEL(experts_pack)

// y [T, D] += the sum over a token's k experts. Grid [T].
extern "C" __global__ void __launch_bounds__(256) experts_combine(const float* said, const float* weights, float* y, int k, int cols) {
  after_others();
  for (int i = threadIdx.x; i < cols; i += 256) y[(u64)blockIdx.x * cols + i] += combined(said, weights, blockIdx.x, k, i, cols);
}
KERNEL(experts_combine)
