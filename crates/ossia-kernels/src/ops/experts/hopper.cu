// Experts with many pairs on Hopper (kernel.cu has what they are).
#include "../../cuda/hopper.cuh"
#include "experts.cuh"

// Tokens of an item.
static const int TOKENS = 64;

// Eight warps, each with two tiles of rows that no other reads, times the 8 NT tokens of all.
template <int NT> struct Coded64 {
  static const int RT = 2, TILES = 8 * RT, WIDTH = 8 * NT;
  // Of a stage: codes, scales, tokens.
  static const int SCALES = TILES * 32, X = SCALES + TILES * 2, SIZE = X + PIECES * WIDTH;
  uint4* memory;
  // What the thread copies first; `live` is how many tiles there are from its warp's first on.
  const uint4 *w, *scales, *x;
  int live, blocks;
  u64 first;
  uint4 codes[RT];
  u32 scale[RT];
  uint4 a[STAGE][RT];

  __device__ inline Coded64(uint4* memory, const uint4* w, const uint4* scales, const uint4* x, int live, int blocks)
      : memory(memory), w(w + threadIdx.x % 32), scales(scales + (u64)(threadIdx.x % 32 / 2) * blocks * 2 + threadIdx.x % 2),
        x(x + threadIdx.x / WIDTH * TOKENS + threadIdx.x % WIDTH), live(live), blocks(blocks), first(operand(memory + X, WIDTH * 16)) {}

  __device__ inline void copy(int slot) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint4* to = memory + slot * SIZE;
#pragma unroll
    for (int r = 0; r < RT; r++) copy_async(to + (warp * RT + r) * 32 + lane, w + r * (blocks * 32), r >= live);
    if (lane < 2 * RT) copy_async(to + SCALES + warp * RT * 2 + lane, scales, lane / 2 >= live);
    w += 32;
    scales += 2;
#pragma unroll
    for (int i = 0; i < PIECES * WIDTH; i += 256)
      if (i + 256 <= PIECES * WIDTH || threadIdx.x < PIECES * WIDTH) copy_async(to + X + i + threadIdx.x, x + i / WIDTH * TOKENS, false);
    x += PIECES * TOKENS;
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

// 256 rows of an item of at most 8 NT pairs.
template <int NT, class Out> __device__ inline void multiply_item(WEIGHTS, const uint4* x, const OfItem<Out>& out) {
  DYNAMIC_SHARED(memory);
  const int first = blockIdx.x * 16 + threadIdx.x / 32 * 2;
  const u64 at = ((u64)out.item.expert * tiles + first) * blocks;
  Coded64<NT> job((uint4*)memory, w + at * 32, (const uint4*)scales + at * 2, x, tiles - first, blocks);
  float sum[2][NT][4];
  multiply_async<5, STAGE>(sum, job, blocks * STAGE);
  hand_out_eights(sum, first, tiles, 0, out.item.count, out);
}

// Tokens that products for an item of `count` pairs take.
__device__ inline u32 width_of(u32 count) { return count > 32 ? 64 : count > 16 ? 32 : 16; }

template <class Out> __device__ inline void multiply_items(WEIGHTS, WORK, const uint4* x, const Out& each) {
  if (blockIdx.y >= *num_items) return;
  OfItem<Out> out = {each, items[blockIdx.y], pairs};
  x += (u64)blockIdx.y * blocks * PIECES * TOKENS;
  switch (width_of(out.item.count)) {
    case 64: return multiply_item<8>(w, scales, tiles, blocks, x, out);
    case 32: return multiply_item<4>(w, scales, tiles, blocks, x, out);
    default: return multiply_item<2>(w, scales, tiles, blocks, x, out);
  }
}

// Grid [tiles of rows / 16, items]; x packed by `experts_pack_pieces`.
extern "C" __global__ void __launch_bounds__(256) experts_up_async(WEIGHTS, WORK, const uint4* x, UP_OUT) {
  after_others();
  Up up = {gate_bias, up_bias, limit, alpha, act, units, ADAPTED_OF};
  multiply_items(w, scales, tiles, blocks, items, num_items, pairs, x, up);
}
KERNEL(experts_up_async)

extern "C" __global__ void __launch_bounds__(256) experts_down_async(WEIGHTS, WORK, const uint4* x, DOWN_OUT) {
  after_others();
  Down down = {bias, said, rows, ADAPTED_OF};
  multiply_items(w, scales, tiles, blocks, items, num_items, pairs, x, down);
}
KERNEL(experts_down_async)

// Rows of the items' pairs to bf16, [item, piece of eight columns, token]; what products take and is not there is zeros.
// Grid [blocks / 2, items], a thread one token's columns of one piece and of every fourth behind.
extern "C" __global__ void __launch_bounds__(256) experts_pack_pieces(WORK, const float* x, uint4* packed, int cols, int per_row, int blocks) {
  after_others();
  if (blockIdx.y >= *num_items) return;
  const Item item = items[blockIdx.y];
  const u32 token = threadIdx.x % TOKENS;
  if (token >= width_of(item.count)) return;
  const float* row = token < item.count ? x + (u64)(pairs[item.first + token] / per_row) * cols : nullptr;
  const int first = blockIdx.x * 2 * PIECES + threadIdx.x / TOKENS;
  for (int piece = first; piece < blocks * PIECES && piece < first + 2 * PIECES; piece += 256 / TOKENS) {
    packed[((u64)blockIdx.y * blocks * PIECES + piece) * TOKENS + token] = row && 8 * piece < cols ? bf16_eight(columns_at(row + 8 * piece)) : make_uint4(0, 0, 0, 0);
  }
}
KERNEL(experts_pack_pieces)
