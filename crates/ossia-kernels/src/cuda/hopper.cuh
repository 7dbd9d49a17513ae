// Weights times the tokens of a prompt on Hopper: the blocks of prompt.cuh, multiplied by warpgroups (wgmma.cuh).
//
// Weights go to registers in the order in which they lie, tokens stay in shared memory in pieces of eight columns. A sum's
// parts are the same chains, each begun without what was there before.
#pragma once
#include "prompt.cuh"
#include "wgmma.cuh"

// Pieces of eight columns of a stage.
static const int PIECES = 2 * STAGE;
// Each warp of a block copies one.
static_assert(PIECES == WARPS, "a piece for each warp");

// sum += what a chain has come to, once all products are made. (Of sums that are read while others are made, the compiler
// thinks that they are not ready, and lets every product be waited for.)
template <int RT, int NT> __device__ inline void take_chain(float (&sum)[RT][NT][4], float (&c)[RT][NT][4]) {
  products_wait<0>();
#pragma unroll
  for (int r = 0; r < RT; r++) products_done(c[r]);
  add_to(sum, c);
}

// sum [RT tiles of rows][NT tiles of tokens] of a warp, whose tiles are multiplied with those of the three others of its
// warpgroup; stages are kept in SLOTS places. `job` has operands `a` of STAGE steps, copies those of a stage (`copy`; a warp's
// weights are what it has copied itself, a bell rings for tokens), reads those of a step (`load`) and knows where its tokens are
// (`b`). While two steps are multiplied, the next two are loaded; warpgroups may be half a stage apart.
template <int SLOTS, int RUN, int RT, int NT, class Job> __device__ inline void multiply_async(float (&sum)[RT][NT][4], Job& job, int steps) {
  __shared__ u64 bells[SLOTS], read;
  const int stages = (steps + STAGE - 1) / STAGE;
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < SLOTS; slot++) bell_hang(bells + slot, WARPS);
    bell_hang(&read, WARPS);
    bells_hang();
  }
  __syncthreads();
  Ends<RUN> ends(steps / RUN);
  float c[RT][NT][4];
  clear(c);
  clear(sum);
  for (int stage = 0; stage < SLOTS - 1; stage++) {
    if (stage < stages) job.copy(stage, bells + stage);
    copies_close();
  }
  copies_wait<SLOTS - 2>();
  bell_wait(bells, 0);
  __syncwarp();
  job.load(0, 0);
  job.load(0, 1);
  bool begun = false;
  for (int stage = 0, slot = 0, odd = 0; stage < stages; stage++) {
    const int next = slot + 1 < SLOTS ? slot + 1 : 0, before = slot > 0 ? slot - 1 : SLOTS - 1;
    if (next == 0) odd ^= 1;
#pragma unroll
    for (int half = 0; half < STAGE; half += 2) {
#pragma unroll
      for (int s = half; s < half + 2; s++) {
        const bool ended = s % RUN == 0 && ends.end == stage * STAGE + s;
        if (ended) take_chain(sum, c);
        if (RUN < STAGE || s == half) products_begin();
#pragma unroll
        for (int r = 0; r < RT; r++) product(c[r], job.a[s][r], job.b(slot, s), begun && !ended);
        begun = true;
        if (RUN < STAGE || s > half) products_close();
        while (RUN < STAGE && ends.end == stage * STAGE + s) ends.pass();
      }
      while (RUN == STAGE && half == 0 && ends.end == stage * STAGE) ends.pass();
      if (half == 0) {
        // (Where chains may end at every step, each is a group.)
        products_wait<RUN < STAGE ? 2 : 1>();
        // The warp has read the stage before.
        __syncwarp();
        if (threadIdx.x % 32 == 0) bell_say(&read);
      } else {
        // All have, and the next one has come.
        bell_wait(&read, stage % 2);
        if (stage + SLOTS - 1 < stages) job.copy(before, bells + before);
        copies_close();
        copies_wait<SLOTS - 2>();
        if (stage + 1 < stages) bell_wait(bells + next, odd);
        __syncwarp();
        products_wait<1>();
      }
      // After the last step, what nobody multiplies with.
#pragma unroll
      for (int s = 0; s < 2; s++) job.load(half == 0 ? slot : next, (half + 2 + s) % STAGE);
    }
    slot = next;
  }
  take_chain(sum, c);
}

// bf16: eight warps with a tile of rows each, times the 8 NT tokens of all.
template <int NT> struct Wide {
  // Of a stage: weights, tokens.
  static const int TOKENS = 8 * NT, X = WARPS * STRIP, SIZE = X + PIECES * TOKENS;
  uint4* memory;
  // What the lane copies next of the warp's weights, of which `left` are there, or none.
  const uint4* w;
  int left;
  // The warp's piece of the next stage; where tokens end it is the last one again, that is multiplied with zeros.
  const uint4* x;
  int stride, pieces, bytes;
  u64 first;
  uint4 a[STAGE][1];

  __device__ inline void copy(int slot, u64* bell) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint4* to = memory + slot * SIZE;
#pragma unroll
    for (int s = 0; s < STAGE; s++) copy_async(to + warp * STRIP + s * 32 + lane, w + s * 32, s >= left);
    w += STRIP;
    left -= STAGE;
    if (lane == 0) copy_bulk(to + X + warp * TOKENS, x + (pieces > 0 ? 0 : pieces - 1) * stride, bytes, bell);
    x += PIECES * stride;
    pieces -= PIECES;
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
  const int tile = at / high * WARPS, token = (before + at % high) * 8 * NT, tiles = (rows + 15) / 16, stride = padded(tokens);
  const int warp = threadIdx.x / 32, own = tile + warp;
  typedef Wide<NT> Job;
  Job job = {(uint4*)memory, w + (u64)own * steps * 32 + threadIdx.x % 32, own < tiles ? steps : 0, x + (u64)warp * stride + token, stride,
             2 * steps - warp, (stride - token < 8 * NT ? stride - token : 8 * NT) * 16, operand((uint4*)memory + Job::X, 8 * NT * 16)};
  float sum[1][NT][4];
  multiply_async<4, 1>(sum, job, steps);
  put_sums((float*)memory, sum);
  hand_out_sums((float*)memory, 1, tile, tiles, token, tokens - token < 8 * NT ? tokens - token : 8 * NT, out);
}
