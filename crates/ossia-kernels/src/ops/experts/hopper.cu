// Experts with many pairs on Hopper (kernel.cu has what they are).
#include "../../cuda/hopper.cuh"
#include "experts.cuh"

// Most tokens of an item.
static const int TOKENS = 80;

// Tokens that products for an item of `count` pairs take; they lie in memory as they do in shared memory.
__device__ inline u32 width_of(u32 count) { return (count + 15) / 16 * 16; }

// Eight warps, each with RT tiles of rows that no other reads, times the 8 NT tokens of all.
template <int RT, int NT> struct CodedAsync {
  static const int TILES = WARPS * RT, WIDTH = 8 * NT;
  // Of a stage: codes, scales, tokens.
  static const int SCALES = TILES * 32, X = SCALES + TILES * 2, SIZE = X + PIECES * WIDTH;
  uint4* memory;
  // What the lane copies next of codes and scales, and the warp of tokens; `live` is how many tiles there are from its first on.
  const uint4 *w, *scales, *x;
  int live, blocks;
  u64 first;
  uint4 codes[RT];
  u32 scale[RT];
  uint4 a[STAGE][RT];

  __device__ inline CodedAsync(uint4* memory, const uint4* w, const uint4* scales, const uint4* x, int live, int blocks)
      : memory(memory), w(w + threadIdx.x % 32), scales(scales + (u64)(threadIdx.x % 32 / 2) * blocks * 2 + threadIdx.x % 2),
        x(x + threadIdx.x / 32 * WIDTH), live(live), blocks(blocks), first(operand(memory + X, WIDTH * 16)) {}

  __device__ inline void copy(int slot, u64* bell) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint4* to = memory + slot * SIZE;
#pragma unroll
    for (int r = 0; r < RT; r++) copy_async(to + (warp * RT + r) * 32 + lane, w + r * (blocks * 32), r >= live);
    if (lane < 2 * RT) copy_async(to + SCALES + warp * RT * 2 + lane, scales, lane / 2 >= live);
    w += 32;
    scales += 2;
    if (lane == 0) copy_bulk(to + X + warp * WIDTH, x, WIDTH * 16, bell);
    x += PIECES * WIDTH;
  }
  __device__ inline void load(int slot, int s) {
    const uint4* from = memory + slot * SIZE;
    const int tile = threadIdx.x / 32 * RT, lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < RT; r++) {
      if (s == 0) {
        codes[r] = from[(tile + r) * 32 + lane];
        scale[r] = ((const u32*)(from + SCALES + (tile + r) * 2))[lane / 4];
      }
      a[s][r] = coded(codes[r], scale[r], s);
    }
  }
  // An operand counts in pieces of 16 bytes, so places may be added to it.
  __device__ inline u64 b(int slot, int s) const { return first + (u32)(slot * SIZE + s * 2 * WIDTH); }
};

// 128 RT rows of an item of at most 8 NT pairs, to shared memory; returns RT.
template <int RT, int NT> __device__ inline int multiply_item(WEIGHTS, const uint4* x, const Item& item, unsigned char* memory) {
  const int first = blockIdx.x * WARPS * RT + threadIdx.x / 32 * RT;
  const u64 at = ((u64)item.expert * tiles + first) * blocks;
  CodedAsync<RT, NT> job((uint4*)memory, w + at * 32, (const uint4*)scales + at * 2, x, tiles - first, blocks);
  float sum[RT][NT][4];
  multiply_async<5, STAGE>(sum, job, blocks * STAGE);
  put_sums((float*)memory, sum);
  return RT;
}

// NARROW is for items of up to 32 pairs, of which some blocks of fewer rows are not needed.
template <int RT, int NARROW, class Out> __device__ inline void multiply_items(WEIGHTS, WORK, const uint4* x, const Out& each) {
  if (blockIdx.y >= *num_items) return;
  OfItem<Out> out = {each, items[blockIdx.y], pairs};
  x += (u64)blockIdx.y * blocks * PIECES * TOKENS;
  const u32 width = width_of(out.item.count);
  if (width <= 32 && (int)blockIdx.x * WARPS * NARROW >= tiles) return;
  DYNAMIC_SHARED(memory);
  int rt;
  switch (width) {
    case 80: rt = multiply_item<RT, 10>(w, scales, tiles, blocks, x, out.item, memory); break;
    case 64: rt = multiply_item<RT, 8>(w, scales, tiles, blocks, x, out.item, memory); break;
    case 48: rt = multiply_item<RT, 6>(w, scales, tiles, blocks, x, out.item, memory); break;
    case 32: rt = multiply_item<NARROW, 4>(w, scales, tiles, blocks, x, out.item, memory); break;
    default: rt = multiply_item<NARROW, 2>(w, scales, tiles, blocks, x, out.item, memory);
  }
  hand_out_sums((float*)memory, rt, blockIdx.x * WARPS * rt, tiles, 0, out.item.count, out);
}

// Grid [tiles of rows / (8 RT), items]; x packed by `experts_pack_pieces`. Of the blocks with fewer rows two are computed at once
// on a processor: where there are few pairs, one spreads codes while the other multiplies.
#define ASYNC(ROWS, RT, BLOCKS)                                                                                                     \
  extern "C" __global__ void __launch_bounds__(256, BLOCKS) experts_up_async_##ROWS(WEIGHTS, WORK, const uint4* x, UP_OUT) {         \
    after_others();                                                                                                                 \
    Up up = {gate_bias, up_bias, limit, alpha, act, units, ADAPTED_OF};                                                              \
    multiply_items<RT, 2>(w, scales, tiles, blocks, items, num_items, pairs, x, up);                                                   \
  }                                                                                                                                 \
  KERNEL(experts_up_async_##ROWS)                                                                                                   \
  extern "C" __global__ void __launch_bounds__(256, BLOCKS) experts_down_async_##ROWS(WEIGHTS, WORK, const uint4* x, DOWN_OUT) {     \
    after_others();                                                                                                                 \
    Down down = {bias, said, rows, ADAPTED_OF};                                                                                     \
    multiply_items<RT, 2>(w, scales, tiles, blocks, items, num_items, pairs, x, down);                                                 \
  }                                                                                                                                 \
  KERNEL(experts_down_async_##ROWS)
ASYNC(256, 2, 1)
ASYNC(128, 1, 2)

// Rows of the items' pairs to bf16, [item, piece of eight columns, token], as many tokens as products take; what is not there is
// zeros. Grid [blocks / 2, items], a warp eight tokens' columns of four pieces, and so on.
extern "C" __global__ void __launch_bounds__(256) experts_pack_pieces(WORK, const float* x, uint4* packed, int cols, int per_row, int blocks) {
  after_others();
  if (blockIdx.y >= *num_items) return;
  const Item item = items[blockIdx.y];
  const u32 width = width_of(item.count);
  packed += (u64)blockIdx.y * blocks * PIECES * TOKENS;
  const int piece = blockIdx.x * 2 * PIECES + threadIdx.x % 4 + threadIdx.x / 32 % 4 * 4;
  if (piece >= blocks * PIECES) return;
#pragma unroll 2
  for (u32 token = threadIdx.x % 32 / 4 + threadIdx.x / 128 * 8; token < width; token += 16) {
    uint4 eight = make_uint4(0, 0, 0, 0);
    if (token < item.count && 8 * piece < cols) eight = bf16_eight(columns_at(x + (u64)(pairs[item.first + token] / per_row) * cols + 8 * piece));
    packed[(u64)piece * width + token] = eight;
  }
}
KERNEL(experts_pack_pieces)
