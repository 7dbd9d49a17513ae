// Weights times the tokens of a prompt on Hopper: the blocks of prompt.cuh, multiplied by warpgroups (wgmma.cuh).
//
// Weights go to registers in the order in which they lie, tokens stay in shared memory in pieces of eight columns. A sum's
// parts are the same chains, each begun without what was there before.
#pragma once
#include "prompt.cuh"
#include "wgmma.cuh"

// Pieces of eight columns of a stage.
static const int PIECES = 2 * STAGE;

// sum += what a chain has come to, once all products are made. (Of sums that are read while others are made, the compiler
// thinks that they are not ready, and lets every product be waited for.)
template <int RT, int NT> __device__ inline void take_chain(float (&sum)[RT][NT][4], float (&c)[RT][NT][4]) {
  products_wait<0>();
#pragma unroll
  for (int r = 0; r < RT; r++) products_done(c[r]);
  add_to(sum, c);
}

// sum [RT tiles of rows][NT tiles of tokens] of a warp, whose tiles are multiplied with those of the three others of its
// warpgroup; stages are kept in SLOTS places. `job` has operands `a` of STAGE steps, copies those of a stage (`copy`), reads
// those of a step (`load`) and knows where its tokens are (`b`). What is multiplied next is loaded while a step is multiplied,
// or two.
template <int SLOTS, int RUN, int RT, int NT, class Job> __device__ inline void multiply_async(float (&sum)[RT][NT][4], Job& job, int steps) {
  const int stages = (steps + STAGE - 1) / STAGE;
  Ends<RUN> ends(steps / RUN);
  float c[RT][NT][4];
  clear(c);
  clear(sum);
  for (int stage = 0; stage < SLOTS - 1; stage++) {
    if (stage < stages) job.copy(stage);
    copies_close();
  }
  copies_wait<SLOTS - 2>();
  products_may_read();
  __syncthreads();
  job.load(0, 0);
  bool begun = false;
  for (int stage = 0, slot = 0; stage < stages; stage++) {
    const int next = slot + 1 < SLOTS ? slot + 1 : 0, before = slot > 0 ? slot - 1 : SLOTS - 1;
#pragma unroll
    for (int s = 0; s < STAGE; s++) {
      const bool ended = s % RUN == 0 && ends.end == stage * STAGE + s;
      if (ended) take_chain(sum, c);
      products_begin();
#pragma unroll
      for (int r = 0; r < RT; r++) product(c[r], job.a[s][r], job.b(slot, s), begun && !ended);
      products_close();
      begun = true;
      while (s % RUN == 0 && ends.end == stage * STAGE + s) ends.pass();
      // What was multiplied before those has been read. (Of more than two the compiler loses count where the loop goes round.)
      if (s == 0 || s == STAGE - 1) products_wait<1>();
      else products_wait<2>();
      if (s == 1) {
        // All have read the stage before, and the next one has come.
        copies_wait<SLOTS - 3>();
        products_may_read();
        __syncthreads();
      }
      // After the last step, what nobody multiplies with.
      job.load(s + 1 < STAGE ? slot : next, (s + 1) % STAGE);
      if (s == 2) {
        if (stage + SLOTS - 1 < stages) job.copy(before);
        copies_close();
      }
    }
    slot = next;
  }
  take_chain(sum, c);
}

// `hand_out`, by eight outputs at a time: what they need of memory is asked for before the first is written, since the compiler
// does not know that writing changes none of it.
template <int RT, int NT, class Out> __device__ inline void hand_out_eights(const float (&sum)[RT][NT][4], int tile, int tiles, int first, int tokens, const Out& out) {
  const int g = threadIdx.x % 32 / 4, before = first + threadIdx.x % 4 * 2, EACH = NT < 4 ? NT : 4;
#pragma unroll
  for (int r = 0; r < RT; r++)
#pragma unroll
    for (int n = 0; n < NT; n += EACH) {
      if (tile + r >= tiles) continue;
      typename Out::Place places[2 * EACH];
#pragma unroll
      for (int i = 0; i < 2 * EACH; i++) {
        const int token = before + (n + i / 2) * 8 + i % 2;
        if (token < tokens) places[i] = out.place(tile + r, g, token);
      }
#pragma unroll
      for (int i = 0; i < 2 * EACH; i++) {
        const int token = before + (n + i / 2) * 8 + i % 2;
        const float(&c)[4] = sum[r][n + i / 2];
        if (token < tokens) out.put(c[i % 2], c[i % 2 + 2], places[i]);
      }
    }
}

// bf16: eight warps with a tile of rows each, times the 8 NT tokens of all.
template <int NT> struct Wide {
  // Of a stage: weights, tokens.
  static const int TOKENS = 8 * NT, X = 8 * STRIP, SIZE = X + PIECES * TOKENS;
  uint4* memory;
  Strips<8, 256> rows;
  // Of the thread's first piece [piece, token], of which `stride` tokens lie in memory; from it on there are `live` tokens and
  // `left` pieces.
  const uint4* x;
  int stride, live, left;
  u64 first;
  uint4 a[STAGE][1];

  __device__ inline void copy(int slot) {
    uint4* to = memory + slot * SIZE;
    rows.copy(to);
    to += X + threadIdx.x / 64 * TOKENS + threadIdx.x % 64;
#pragma unroll
    for (int piece = 0; piece < PIECES; piece += 4)
#pragma unroll
      for (int token = 0; token < TOKENS; token += 64)
        copy_async(to + piece * TOKENS + token, x + piece * stride + token, token >= live || piece >= left);
    x += PIECES * stride;
    left -= PIECES;
  }
  __device__ inline void load(int slot, int s) {
    a[s][0] = memory[slot * SIZE + threadIdx.x / 32 * STRIP + s * 32 + threadIdx.x % 32];
  }
  // An operand counts in pieces of 16 bytes, so places may be added to it.
  __device__ inline u64 b(int slot, int s) const { return first + (u32)(slot * SIZE + s * 2 * TOKENS); }
};

// Tokens that lie in memory as pieces, some of them zeros.
__device__ inline int padded(int tokens) { return (tokens + 15) / 16 * 16; }

// W [rows, 16 steps] times tokens x [piece, token]. Blocks that run at the same time take twelve blocks of tokens and as many
// of rows, so that little is read more than once from memory. `out` gets rows g and g + 8 of a tile together.
template <int NT, class Out> __device__ inline void prompt_async(const uint4* w, int rows, int steps, const uint4* x, int tokens, const Out& out) {
  DYNAMIC_SHARED(memory);
  const u32 TOGETHER = 12, block = blockIdx.y * gridDim.x + blockIdx.x, before = block / (TOGETHER * gridDim.x) * TOGETHER;
  const u32 high = gridDim.y - before < TOGETHER ? gridDim.y - before : TOGETHER, at = block - before * gridDim.x;
  const int tile = at / high * 8, token = (before + at % high) * 8 * NT, tiles = (rows + 15) / 16;
  const int piece = threadIdx.x / 64, column = token + threadIdx.x % 64, stride = padded(tokens);
  typedef Wide<NT> Job;
  Job job = {(uint4*)memory, {w + (u64)tile * steps * 32, tiles - tile, steps}, x + (u64)piece * stride + column, stride, stride - column, 2 * steps - piece, operand((uint4*)memory + Job::X, 8 * NT * 16)};
  float sum[1][NT][4];
  multiply_async<4, 1>(sum, job, steps);
  hand_out_eights(sum, tile + threadIdx.x / 32, tiles, token, tokens, out);
}
