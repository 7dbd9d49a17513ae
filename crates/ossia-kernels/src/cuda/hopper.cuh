// Weights times the tokens of a prompt on Hopper: the blocks of prompt.cuh, multiplied by warpgroups (wgmma.cuh).
//
// Weights go to registers in the order in which they lie, tokens stay in shared memory in pieces of eight columns. A sum's
// parts are the same chains, each begun without what was there before.
#pragma once
#include "prompt.cuh"
#include "wgmma.cuh"

// sum += what a chain has come to, once all products are made. (Of sums that are read while others are made, the compiler
// thinks that they are not ready, and lets every product be waited for.)
template <int RT, int NT> __device__ inline void take_chain(float (&sum)[RT][NT][4], float (&c)[RT][NT][4]) {
  products_wait<0>();
#pragma unroll
  for (int r = 0; r < RT; r++) products_done(c[r]);
  add_to(sum, c);
}

// sum [RT tiles of rows][NT tiles of tokens] of a warp, whose tiles are multiplied with those of the three others of its
// warpgroup; stages are kept in SLOTS places. `job` has operands `a`, twice, copies those of a stage (`copy`), reads those of a
// step (`load`) and knows where its tokens are (`b`). What is multiplied next is loaded while a step is multiplied.
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
  job.load(0, 0, 0);
  bool begun = false;
  for (int stage = 0, slot = 0; stage < stages; stage++) {
    const int next = slot + 1 < SLOTS ? slot + 1 : 0, before = slot > 0 ? slot - 1 : SLOTS - 1;
#pragma unroll
    for (int s = 0; s < STAGE; s++) {
      const bool ended = s % RUN == 0 && ends.end == stage * STAGE + s;
      if (ended) take_chain(sum, c);
      products_begin();
#pragma unroll
      for (int r = 0; r < RT; r++) product(c[r], job.a[s % 2][r], job.b(slot, s), begun && !ended);
      products_close();
      begun = true;
      while (s % RUN == 0 && ends.end == stage * STAGE + s) ends.pass();
      // What was multiplied in the step before has been read.
      products_wait<1>();
      if (s == 0) {
        // All have read the stage before, and the next one has come.
        copies_wait<SLOTS - 3>();
        products_may_read();
        __syncthreads();
      }
      // After the last step, what nobody multiplies with.
      job.load((s + 1) % 2, s + 1 < STAGE ? slot : next, (s + 1) % STAGE);
      if (s == 1) {
        if (stage + SLOTS - 1 < stages) job.copy(before);
        copies_close();
      }
    }
    slot = next;
  }
  take_chain(sum, c);
}
