// The routed experts (experts/mod.rs), weights in MXFP4. Pairs (token * k + slot) are gathered by expert and cut into items
// of one expert and at most so many pairs as a kernel takes; a block computes some rows of one item. Up to 32 pairs of up to
// eight tokens, as many as fit into shared memory, are gathered by each block for itself.
//
// A tile of the first product has eight gate rows and under them the up rows of the same units, so a lane that has the one
// has the other.
#include "../../cuda/pack.cuh"
#include "../../cuda/prompt.cuh"
#include "experts.cuh"

// One block. pairs [n] sorted by expert, ascending in each; items of at most `most` pairs, and how many there are. A warp goes
// through all pairs for each of its experts, so their experts lie in shared memory, as many as it holds.
extern "C" __global__ void __launch_bounds__(1024) experts_items(const u32* chosen, int n, int experts, int most, u32* pairs, Item* items, u32* num_items, int held) {
  __shared__ u32 counts[1024], starts[1024];
  DYNAMIC_SHARED(memory);
  u16* near = (u16*)memory;
  after_others();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int i = threadIdx.x; i < held; i += 1024) near[i] = chosen[i];
  __syncthreads();
  auto is_of = [&](int i, int e) { return i < n && (i < held ? (u32)near[i] : chosen[i]) == (u32)e; };
  for (int e = warp; e < experts; e += 32) {
    u32 count = 0;
#pragma unroll 4
    for (int i = lane; i - lane < n; i += 32) count += is_of(i, e);
    for (int step = 16; step > 0; step >>= 1) count += __shfl_xor_sync(ALL, count, step);
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
#pragma unroll 4
    for (int i = lane; i - lane < n; i += 32) {
      const bool mine = is_of(i, e);
      const u32 who = __ballot_sync(ALL, mine);
      if (mine) pairs[at + __popc(who & ((1u << lane) - 1))] = i;
      at += __popc(who);
    }
  }
}
KERNEL(experts_items)

// What a block for few pairs computes: those of the expert of pair blockIdx.y, as bits, where that is the expert's first.
struct Work {
  u32 expert, count, bits;
  __device__ inline u32 pair(u32 at) const {
    u32 left = bits;
    for (u32 i = 0; i < at; i++) left &= left - 1;
    return __ffs(left) - 1;
  }
};

// `chosen` are the experts of as many pairs as there are blocks, at most 32 and at most eight of one expert. False where the
// work is another block's.
__device__ inline bool has_work(Work& work, const u32* chosen) {
  u32 own = chosen[blockIdx.y], lane = threadIdx.x % 32;
  u32 bits = __ballot_sync(ALL, lane < gridDim.y && chosen[lane < gridDim.y ? lane : 0] == own);
  work = {own, (u32)__popc(bits), bits};
  return (bits & ((1u << blockIdx.y) - 1)) == 0;
}

// The sums of TILES tiles of rows, in shared memory: a warp for each part of k goes through the tiles, of which two are on their
// way, and waits for no other before all are done. `per_row`: pairs of a row of x.
template <int TILES> __device__ inline const float* few(WEIGHTS, const Work& work, const float* x, int cols, int per_row) {
  DYNAMIC_SHARED(memory);
  const int part = threadIdx.x / 32, from = part_start(part, blocks), count = part_start(part + 1, blocks) - from, most = (blocks + PARTS - 1) / PARTS;
  const int first = blockIdx.x * TILES, here = first + TILES < tiles ? TILES : tiles - first, row = staged_row(cols), size = Codes::size(most);
  float* parts = (float*)memory;
  uint4 *rows = (uint4*)(parts + TILES * PARTS * 16 * 8), *codes = rows + work.count * row + part * 2 * size;
  const u64 at = ((u64)work.expert * tiles + first) * blocks + from;
  const uint4 *next = w + at * 32, *next_scales = (const uint4*)scales + at * 2;
  auto begin = [&](int tile) {
    Codes own = {codes + tile % 2 * size};
    if (tile < here) own.begin(next, next_scales, count, most);
    copies_close();
    next += blocks * 32;
    next_scales += blocks * 2;
  };
  begin(0);
  begin(1);
  u32 left = work.bits;
  for (u32 i = 0; i < work.count; i++, left &= left - 1) stage(rows + i * row, x + (u64)((u32)(__ffs(left) - 1) / (u32)per_row) * cols, cols);
  __syncthreads();
  const uint4* tokens = Staged(rows, work.count, cols).at + from * 8;
#pragma unroll 1
  for (int tile = 0; tile < here; tile++) {
    float c[1][1][4];
    clear(c);
    copies_wait<1>();
    __syncwarp();
    Codes own = {codes + tile % 2 * size};
    own.add(c[0][0], tokens, count, most);
    __syncwarp();
    begin(tile + 2);
    put_part<1, 1>(parts + tile * PARTS * 16 * 8, c);
  }
  __syncthreads();
  return parts;
}

// What a token's k experts say, best first, each with its weight.
__device__ inline float combined(const float* said, const float* weights, u64 token, int k, int row, int rows) {
  float sum = 0;
  for (int slot = 0; slot < k; slot++) sum = fmaf(weights[token * k + slot], said[(token * k + slot) * rows + row], sum);
  return sum;
}

// Grid [tiles of rows / TILES, pairs]. `per_row` is k for the first product and 1 for the second. There the last block of some
// tiles adds to y what the experts have said to each of `tokens`.
static const int UP_TILES = 4, DOWN_TILES = 2;
#define FEW WEIGHTS, const u32 *chosen, const float *x, int cols, int per_row
extern "C" __global__ void __launch_bounds__(256) experts_up_few(FEW, UP_OUT) {
  after_others();
  Work work;
  if (!has_work(work, chosen)) return;
  Up up = {gate_bias, up_bias, limit, alpha, act, units, ADAPTED_OF};
  const u64 first = (u64)work.expert * units + blockIdx.x * UP_TILES * 8;
  ask_for(gate_bias + first, UP_TILES * 32);
  ask_for(up_bias + first, UP_TILES * 32);
  const float* parts = few<UP_TILES>(w, scales, tiles, blocks, work, x, cols, per_row);
  for (int i = threadIdx.x; i < UP_TILES * 8 * (int)work.count; i += 256) {
    const int g = i % 8, tile = i / 8 % UP_TILES, at = i / 8 / UP_TILES;
    const float* sums = parts + tile * PARTS * 16 * 8;
    up.two(sum_parts<1, 1>(sums, 0, g, at), sum_parts<1, 1>(sums, 0, g + 8, at), work.expert, blockIdx.x * UP_TILES + tile, g, work.pair(at));
  }
}
KERNEL(experts_up_few)

extern "C" __global__ void __launch_bounds__(256) experts_down_few(FEW, DOWN_OUT, const float* weights, float* y, int k, int tokens, u32* counters) {
  after_others();
  Work work;
  Down down = {bias, said, rows, ADAPTED_OF};
  if (has_work(work, chosen)) {
    ask_for(bias + (u64)work.expert * rows + blockIdx.x * DOWN_TILES * 16, DOWN_TILES * 64);
    const float* parts = few<DOWN_TILES>(w, scales, tiles, blocks, work, x, cols, per_row);
    for (int i = threadIdx.x; i < DOWN_TILES * 16 * (int)work.count; i += 256) {
      const int row = i % 16, tile = i / 16 % DOWN_TILES, at = i / 16 / DOWN_TILES;
      down.out(sum_parts<1, 1>(parts + tile * PARTS * 16 * 8, 0, row, at), work.expert, (blockIdx.x * DOWN_TILES + tile) * 16 + row, work.pair(at));
    }
  }
  if (!comes_last(counters + blockIdx.x, gridDim.y)) return;
  const int most = DOWN_TILES * 16;
  for (int i = threadIdx.x; i < most * tokens; i += 256) {
    int row = blockIdx.x * most + i % most;
    if (row < rows) y[(u64)(i / most) * rows + row] += combined(said, weights, i / most, k, row, rows);
  }
}
KERNEL(experts_down_few)

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

// Items of at most 16 NP pairs, those of half as many with half the products.
template <int NP, class Out> __device__ inline void prompt(WEIGHTS, WORK, const uint4* x, const Out& each) {
  if (blockIdx.y >= *num_items) return;
  OfItem<Out> out = {each, items[blockIdx.y], pairs};
  x += (u64)blockIdx.y * NP * blocks * STRIP;
  if (NP == 1 || out.item.count > NP * 8) prompt<NP>(w, scales, tiles, blocks, x, out);
  else prompt<(NP + 1) / 2>(w, scales, tiles, blocks, x, out);
}

// Grid [tiles of rows / 16, items]; x packed by `experts_pack`.
#define MANY(PAIRS)                                                                                                       \
  extern "C" __global__ void __launch_bounds__(256) experts_up_##PAIRS(WEIGHTS, WORK, const uint4* x, UP_OUT) {           \
    after_others();                                                                                                      \
    Up up = {gate_bias, up_bias, limit, alpha, act, units, ADAPTED_OF};                                                   \
    prompt<PAIRS / 16>(w, scales, tiles, blocks, items, num_items, pairs, x, up);                                        \
  }                                                                                                                      \
  KERNEL(experts_up_##PAIRS)                                                                                             \
  extern "C" __global__ void __launch_bounds__(256) experts_down_##PAIRS(WEIGHTS, WORK, const uint4* x, DOWN_OUT) {       \
    after_others();                                                                                                      \
    Down down = {bias, said, rows, ADAPTED_OF};                                                                          \
    prompt<PAIRS / 16>(w, scales, tiles, blocks, items, num_items, pairs, x, down);                                      \
  }                                                                                                                      \
  KERNEL(experts_down_##PAIRS)
MANY(16)
MANY(32)
MANY(64)

// Rows of the items' pairs to bf16, as `Packed` reads them, `most` tiles an item, of which two by two those that hold none are
// left out. Grid [steps / 8, items * most].
extern "C" __global__ void __launch_bounds__(256) experts_pack(WORK, const float* x, uint2* packed, int cols, int per_row, int steps, int most) {
  after_others();
  u32 which = blockIdx.y / most, tile = blockIdx.y % most, step = blockIdx.x * 8 + threadIdx.x / 32;
  if (which >= *num_items || step >= (u32)steps) return;
  Item item = items[which];
  if (tile / 2 * 16 >= item.count) return;
  u32 at = tile * 8 + threadIdx.x % 32 / 4;
  Rows row = {at < item.count ? x + (u64)(pairs[item.first + at] / per_row) * cols : nullptr, cols};
  packed[packed_at(blockIdx.y, step, steps)] = row.fragment(step);
}
KERNEL(experts_pack)

// y [T, D] += the sum over a token's k experts, four columns at once, in the order of `combined`. Grid [T].
extern "C" __global__ void __launch_bounds__(256) experts_combine(const float* said, const float* weights, float* y, int k, int cols) {
  after_others();
  const u64 token = blockIdx.x;
  for (int i = threadIdx.x; i < cols / 4; i += 256) {
    float4 sum = {0, 0, 0, 0};
#pragma unroll 4
    for (int slot = 0; slot < k; slot++) {
      const float weight = weights[token * k + slot];
      const float4 v = ((const float4*)(said + (token * k + slot) * cols))[i];
      sum = {fmaf(weight, v.x, sum.x), fmaf(weight, v.y, sum.y), fmaf(weight, v.z, sum.z), fmaf(weight, v.w, sum.w)};
    }
    float4* to = (float4*)(y + token * cols) + i;
    const float4 before = *to;
    *to = {before.x + sum.x, before.y + sum.y, before.z + sum.z, before.w + sum.w};
  }
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
