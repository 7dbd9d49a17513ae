// The routed experts (experts/mod.rs), weights in MXFP4. Pairs (token * k + slot) are gathered by expert and cut into items
// of one expert and at most so many pairs as a tiling takes; a block computes some rows of one item. Up to 32 pairs of up to
// eight tokens are gathered by each block for itself: the item of an expert is its first pair's.
//
// A tile of the first product has eight gate rows and under them the up rows of the same units, so a lane that has the one
// has the other.
#include "../../cuda/pack.cuh"
#include "../../cuda/prompt.cuh"
#include "experts.cuh"

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
    Up up = {gate_bias, up_bias, limit, alpha, act, units, ADAPTED_OF};                                                                  \
    few<NT>((float*)memory, w, scales, work.expert, tiles, blocks, rows_of<NT>(x, cols, per_row, work));                     \
    few_up<NT>((float*)memory, work, up);                                                                                    \
  }                                                                                                                          \
  KERNEL(experts_up_##NT)                                                                                                    \
  extern "C" __global__ void __launch_bounds__ BOUNDS experts_down_##NT(WEIGHTS, WORK, const float* x, int cols, int per_row, DOWN_OUT, COMBINE) { \
    after_others();                                                                                                          \
    Work work;                                                                                                               \
    DYNAMIC_SHARED(memory);                                                                                                  \
    Down down = {bias, said, rows, ADAPTED_OF};                                                                                          \
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

// 256 rows of an item of at most 16 NP pairs.
template <int NP, class Out> __device__ inline void prompt(WEIGHTS, const uint4* x, const OfItem<Out>& out) {
  DYNAMIC_SHARED(memory);
  const int first = blockIdx.x * 16 + threadIdx.x / 32 * 2;
  const u64 at = ((u64)out.item.expert * tiles + first) * blocks;
  Coded<2, NP> job = {(uint4*)memory, w + at * 32, (const uint4*)scales + at * 2, tiles - first, blocks, {x, ((int)out.item.count + 15) / 16, blocks * STAGE}};
  float sum[2][2 * NP][4];
  multiply<4, STAGE>(sum, job, blocks * STAGE);
  hand_out(sum, first, tiles, 0, out.item.count, out);
}

// Items of at most 64 pairs, those of few with half the products.
template <class Out> __device__ inline void prompt(WEIGHTS, WORK, const uint4* x, const Out& each) {
  if (blockIdx.y >= *num_items) return;
  OfItem<Out> out = {each, items[blockIdx.y], pairs};
  x += (u64)blockIdx.y * 4 * blocks * STRIP;
  if (out.item.count > 32) prompt<4>(w, scales, tiles, blocks, x, out);
  else prompt<2>(w, scales, tiles, blocks, x, out);
}

// Grid [tiles of rows / 16, items]; x packed by `experts_pack`.
extern "C" __global__ void __launch_bounds__(256) experts_up_many(WEIGHTS, WORK, const uint4* x, UP_OUT) {
  after_others();
  Up up = {gate_bias, up_bias, limit, alpha, act, units, ADAPTED_OF};
  prompt(w, scales, tiles, blocks, items, num_items, pairs, x, up);
}
KERNEL(experts_up_many)

extern "C" __global__ void __launch_bounds__(256) experts_down_many(WEIGHTS, WORK, const uint4* x, DOWN_OUT) {
  after_others();
  Down down = {bias, said, rows, ADAPTED_OF};
  prompt(w, scales, tiles, blocks, items, num_items, pairs, x, down);
}
KERNEL(experts_down_many)

// Rows of the items' pairs to bf16, as `Packed` reads them, eight tiles an item, of which those that hold none are left out.
// Grid [steps / 8, items * 8].
extern "C" __global__ void __launch_bounds__(256) experts_pack(WORK, const float* x, uint2* packed, int cols, int per_row, int steps) {
  after_others();
  u32 which = blockIdx.y / 8, tile = blockIdx.y % 8, step = blockIdx.x * 8 + threadIdx.x / 32;
  if (which >= *num_items || step >= (u32)steps) return;
  Item item = items[which];
  if (tile / 2 * 16 >= item.count) return;
  u32 at = tile * 8 + threadIdx.x % 32 / 4;
  Rows<1> row = {{at < item.count ? x + (u64)(pairs[item.first + at] / per_row) * cols : nullptr}, cols};
  packed[packed_at(blockIdx.y, step, steps)] = row.fragment(0, step);
}
KERNEL(experts_pack)

// y [T, D] += the sum over a token's k experts. Grid [T].
extern "C" __global__ void __launch_bounds__(256) experts_combine(const float* said, const float* weights, float* y, int k, int cols) {
  after_others();
  for (int i = threadIdx.x; i < cols; i += 256) y[(u64)blockIdx.x * cols + i] += combined(said, weights, blockIdx.x, k, i, cols);
}
KERNEL(experts_combine)

// Rows of weights to tiles of codes [tile, block, lane] and of scales [tile, block, 8] (pack.rs), of which what is missing is
// zeros. Grid [blocks / 8, tiles], a warp a block.
extern "C" __global__ void __launch_bounds__(256) experts_tiles(const Row* rows, uint4* codes, u32* scales, int blocks, int groups) {
  // The bits of a code (sign, then three) in the half word of its pair.
  static const int PLACES[4][4] = {{15, 8, 7, 6}, {12, 5, 4, 3}, {9, 2, 1, 0}, {14, 13, 11, 10}};
  after_others();
  const int block = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (block >= blocks) return;
  const u64 at = (u64)blockIdx.y * blocks + block;
  Row two[2] = {rows[blockIdx.y * 16 + lane / 4], rows[blockIdx.y * 16 + lane / 4 + 8]};
  u32 words[4];
#pragma unroll
  for (int step = 0; step < 4; step++) {
    words[step] = 0;
    const int col = block * 64 + step * 16 + 2 * (lane % 4);
    if (col / 32 >= groups) continue;
#pragma unroll
    for (int pair = 0; pair < 4; pair++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const Row& row = two[pair % 2];
        u32 code = row.elements ? code_of(row, col + pair / 2 * 8 + half) : 0;
#pragma unroll
        for (int i = 0; i < 4; i++) words[step] |= (code >> (3 - i) & 1) << (PLACES[pair][i] + 16 * half);
      }
  }
  codes[at * 32 + lane] = make_uint4(words[0], words[1], words[2], words[3]);
  if (lane % 4 != 0) return;
  u32 word = 0;
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (two[i % 2].elements && 2 * block + i / 2 < groups) word |= scale_of(two[i % 2], 2 * block + i / 2) << (8 * i);
  scales[at * 8 + lane / 4] = word;
}
KERNEL(experts_tiles)
