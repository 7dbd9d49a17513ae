// Weights times the tokens of a prompt: blocks of rows times tokens, whose operands come through shared memory, copied ahead.
//
// Weights and tokens lie in memory in the order in which lanes multiply them (pack.rs, `Packed`). So they are copied as they
// are, in runs of 2 KB, and a lane reads its own 16 bytes beside its neighbours': no bank is asked twice, and nothing is
// turned. What a warp multiplies next is in registers while it multiplies. A sum's parts are the chains of products.cuh, in
// their order, each begun at zero and added where it ends: the bits are the same.
#pragma once
#include "products.cuh"

// Steps of 16 columns that are copied together.
static const int STAGE = 4;
// Of a stage: sixteen rows, or two tiles of tokens.
static const int STRIP = STAGE * 32;

// A thread's share of COUNT strips, which are `steps` long in memory: of every stage, in turn, begins the copy to `to`
// [COUNT, STAGE, 32 lanes]. Strips from `live` on and steps that are not there become zeros.
template <int COUNT, int THREADS> struct Strips {
  static const int APART = THREADS / STRIP, EACH = (COUNT + APART - 1) / APART;
  const uint4* next;
  u64 stride;
  int live, left;
  __device__ inline Strips(const uint4* from, int live, int steps)
      : next(from + (u64)(threadIdx.x / STRIP) * steps * 32 + threadIdx.x % STRIP), stride((u64)steps * 32 * APART),
        live(live - (int)(threadIdx.x / STRIP)), left(steps * 32 - (int)(threadIdx.x % STRIP)) {}
  __device__ inline void copy(uint4* to) {
#pragma unroll
    for (int i = 0; i < EACH; i++)
      if (COUNT % APART == 0 || i * APART + (int)(threadIdx.x / STRIP) < COUNT) copy_async(to + i * THREADS + threadIdx.x, next + i * stride, i * APART >= live || left <= 0);
    next += STRIP;
    left -= STRIP;
  }
};

// Where the parts of a sum end, for a walk over its steps; a part is so many runs of RUN steps.
template <int RUN> struct Ends {
  int runs, part, end;
  __device__ inline Ends(int runs) : runs(runs), part(0), end(0) {
    while (end == 0) pass();
  }
  __device__ inline void pass() {
    part++;
    end = part <= PARTS ? RUN * part_start(part, runs) : -1;
  }
};

// sum [RT tiles of rows][NT tiles of tokens] of a warp, its block's stages kept in SLOTS places. `job` has operands a and b,
// twice, copies those of a stage (`copy`) and reads those of a step (`load`).
template <int SLOTS, int RUN, int RT, int NT, class Job> __device__ inline void multiply(float (&sum)[RT][NT][4], Job& job, int steps) {
  const int stages = (steps + STAGE - 1) / STAGE;
  Ends<RUN> ends(steps / RUN);
  float c[RT][NT][4];
  clear(c);
  clear(sum);
  for (int stage = 0; stage < SLOTS; stage++) {
    if (stage < stages) job.copy(stage);
    copies_close();
  }
  copies_wait<SLOTS - 1>();
  __syncthreads();
  job.load(0, 0, 0);
  for (int stage = 0, slot = 0; stage < stages; stage++) {
    const int next = slot + 1 < SLOTS ? slot + 1 : 0;
#pragma unroll
    for (int s = 0; s < STAGE; s++) {
      const bool last = s == STAGE - 1;
      if (last) {
        // All have read this stage, and the next one has come.
        copies_wait<SLOTS - 2>();
        __syncthreads();
      }
      // After the last step, what nobody multiplies with.
      job.load((s + 1) % 2, last ? next : slot, last ? 0 : s + 1);
#pragma unroll
      for (int p = 0; p < NT / 2; p++)
#pragma unroll
        for (int r = 0; r < RT; r++) {
          const uint4 a = job.a[s % 2][r], b = job.b[s % 2][p];
          mma(c[r][2 * p], a.x, a.y, a.z, a.w, b.x, b.y);
          mma(c[r][2 * p + 1], a.x, a.y, a.z, a.w, b.z, b.w);
        }
      if (last) {
        if (stage + SLOTS < stages) job.copy(slot);
        copies_close();
      }
      // A loop, since a branch would become instructions that are passed over one by one.
      while ((s + 1) % RUN == 0 && ends.end == stage * STAGE + s + 1) {
        add_to(sum, c);
        clear(c);
        ends.pass();
      }
    }
    slot = next;
  }
}

// bf16: ROWS warps with RT tiles each, times TOKENS warps with NP pairs of tiles each.
template <int ROWS, int TOKENS, int RT, int NP> struct Dense {
  static const int THREADS = ROWS * TOKENS * 32, STRIPS = ROWS * RT + TOKENS * NP;
  uint4* memory;
  Strips<ROWS * RT, THREADS> rows;
  Strips<TOKENS * NP, THREADS> tokens;
  uint4 a[2][RT], b[2][NP];

  __device__ inline void copy(int slot) {
    rows.copy(memory + slot * STRIPS * STRIP);
    tokens.copy(memory + (slot * STRIPS + ROWS * RT) * STRIP);
  }
  __device__ inline void load(int which, int slot, int s) {
    const int warp = threadIdx.x / 32;
    const uint4* from = memory + slot * STRIPS * STRIP + s * 32 + threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < RT; r++) a[which][r] = from[(warp % ROWS * RT + r) * STRIP];
#pragma unroll
    for (int p = 0; p < NP; p++) b[which][p] = from[(ROWS * RT + warp / ROWS * NP + p) * STRIP];
  }
};

// W [rows, 16 steps] times packed tokens. `out` gets rows g and g + 8 of a tile together.
template <int SLOTS, int ROWS, int TOKENS, int RT, int NP, class Out>
__device__ inline void prompt(const uint4* w, int rows, int steps, const uint4* x, int tokens, const Out& out) {
  DYNAMIC_SHARED(memory);
  const int tile = blockIdx.x * ROWS * RT, pair = blockIdx.y * TOKENS * NP, tiles = (rows + 15) / 16, warp = threadIdx.x / 32;
  Dense<ROWS, TOKENS, RT, NP> job = {(uint4*)memory, {w + (u64)tile * steps * 32, tiles - tile, steps}, {x + (u64)pair * steps * 32, (tokens + 15) / 16 - pair, steps}};
  float sum[RT][2 * NP][4];
  multiply<SLOTS, 1>(sum, job, steps);
  hand_out(sum, tile + warp % ROWS * RT, tiles, (pair + warp / ROWS * NP) * 16, tokens, out);
}

// MXFP4: eight warps, each with RT tiles of rows that no other reads, times the NP pairs of tiles of tokens of all.
template <int RT, int NP> struct Coded {
  // Of a stage: codes, scales, tokens.
  static const int TILES = 8 * RT, SCALES = TILES * 32, X = SCALES + TILES * 2, SIZE = X + NP * STRIP;
  uint4* memory;
  // Of the warp's first tile; `live` is how many tiles there are from it on.
  const uint4 *w, *scales;
  int live, blocks;
  Strips<NP, 256> tokens;
  uint4 codes[RT];
  u32 scale[RT];
  uint4 a[2][RT], b[2][NP];

  __device__ inline void copy(int slot) {
    uint4* to = memory + slot * SIZE;
    const int tile = threadIdx.x / 32 * RT, lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < RT; r++) copy_async(to + (tile + r) * 32 + lane, w + (u64)r * blocks * 32 + lane, r >= live);
    if (lane < 2 * RT) copy_async(to + SCALES + tile * 2 + lane, scales + (u64)(lane / 2) * blocks * 2 + lane % 2, lane / 2 >= live);
    w += 32;
    scales += 2;
    tokens.copy(to + X);
  }
  __device__ inline void load(int which, int slot, int s) {
    const uint4* from = memory + slot * SIZE;
    const int tile = threadIdx.x / 32 * RT, lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < RT; r++) {
      if (s == 0) {
        codes[r] = from[(tile + r) * 32 + lane];
        scale[r] = ((const u32*)(from + SCALES + (tile + r) * 2))[lane / 4];
      }
      a[which][r] = coded(codes[r], scale[r], s);
    }
#pragma unroll
    for (int p = 0; p < NP; p++) b[which][p] = from[X + p * STRIP + s * 32 + lane];
  }
};
