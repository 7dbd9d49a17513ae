// Causal attention over pages with sinks (attention/mod.rs). Keys and values are f16, [page, head, slot, channel].
//
// A block has some rows of the batch and all query heads of one key/value head: together its columns, which share the pages.
// Positions are cut into spans of four pages. A column's state over a span (maximum, sum, o) depends on nothing but the span;
// states are joined in order, beginning with the sink. So it does not matter whether blocks go through all spans (`all`) or
// each through one (`span` and `join`), or who else is in a block: a page that a column does not see leaves its state as it is.
#include "../../cuda/common.cuh"

static const int PAGE = 64, SPAN = 4, COLUMNS = 64, THREADS = 256;

// What is the same for all columns.
struct Call {
  const float *qkv, *sinks;
  const u16 *keys, *values;
  const u32 *positions, *sequences, *tables, *firsts;
  int width, heads, kv_heads, window;
};

template <int D> struct Memory {
  float q[COLUMNS][D], kv[PAGE][D + 1], p[COLUMNS][PAGE + 1];
  float m[COLUMNS], scale[COLUMNS], sum[COLUMNS];
};

// The rows that a block has: at most `most`, of one sequence. Blocks are listed by their first row.
struct Tile { int first, rows; u32 sequence, from, to; };

__device__ inline Tile tile_of(const Call& call, const u32* starts) {
  Tile tile;
  tile.first = starts[blockIdx.x];
  tile.rows = starts[blockIdx.x + 1] - tile.first;
  tile.sequence = call.sequences[tile.first];
  // Positions of a sequence's rows ascend by one.
  u32 least = call.positions[tile.first];
  tile.to = call.positions[tile.first + tile.rows - 1] / PAGE;
  tile.from = call.window > 0 && least + 1 > (u32)call.window ? (least + 1 - call.window) / PAGE : 0;
  return tile;
}

template <int D> __device__ inline void load_page(Memory<D>& memory, const u16* store, const Call& call, u32 page, int kv_head) {
  const u16* from = store + ((u64)page * call.kv_heads + kv_head) * PAGE * D;
  for (int i = threadIdx.x; i < PAGE * D; i += THREADS) memory.kv[i / D][i % D] = float_of_half(from[i]);
}

// One page: scores, their exponentials against the new maximum, o rescaled and added to. Each thread has channel
// threadIdx.x % D of every (THREADS / D)-th column.
template <int D> __device__ inline void add_page(Memory<D>& memory, float (&o)[COLUMNS * D / THREADS], const Call& call, const Tile& tile, int group, int kv_head, u32 page_of_sequence) {
  const int columns = tile.rows * group, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  u32 page = call.tables[(u64)tile.sequence * call.width + page_of_sequence - call.firsts[tile.sequence]];
  __syncthreads();
  load_page<D>(memory, call.keys, call, page, kv_head);
  __syncthreads();
  int slot = threadIdx.x % PAGE;
  u32 at = page_of_sequence * PAGE + slot;
  for (int column = threadIdx.x / PAGE; column < columns; column += THREADS / PAGE) {
    float score = 0;
#pragma unroll 16
    for (int i = 0; i < D; i++) score = fmaf(memory.q[column][i], memory.kv[slot][i], score);
    u32 position = call.positions[tile.first + column / group];
    bool seen = at <= position && (call.window == 0 || position - at < (u32)call.window);
    memory.p[column][slot] = seen ? score : -INF;
  }
  __syncthreads();
  load_page<D>(memory, call.values, call, page, kv_head);
  for (int column = warp; column < columns; column += THREADS / 32) {
    float a = memory.p[column][lane], b = memory.p[column][lane + 32];
    float old = memory.m[column], m = fmaxf(old, warp_max(fmaxf(a, b)));
    // Nothing seen yet: the state stays empty.
    float ea = m == -INF ? 0.0f : expf(a - m), eb = m == -INF ? 0.0f : expf(b - m);
    float scale = m == -INF ? 1.0f : expf(old - m), sum = warp_sum(ea + eb);
    memory.p[column][lane] = ea;
    memory.p[column][lane + 32] = eb;
    if (lane == 0) {
      memory.m[column] = m;
      memory.scale[column] = scale;
      memory.sum[column] = fmaf(memory.sum[column], scale, sum);
    }
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < COLUMNS * D / THREADS; j++) {
    int column = j * (THREADS / D) + threadIdx.x / D;
    if (column >= columns) break;
    float sum = o[j] * memory.scale[column];
#pragma unroll 16
    for (int s = 0; s < PAGE; s++) sum = fmaf(memory.p[column][s], memory.kv[s][threadIdx.x % D], sum);
    o[j] = sum;
  }
}

template <int D> __device__ inline void begin(Memory<D>& memory, const Call& call, const Tile& tile, int group, int kv_head) {
  float scale = 1.0f / sqrtf((float)D);
  for (int i = threadIdx.x; i < tile.rows * group * D; i += THREADS) {
    int column = i / D, row = tile.first + column / group, head = kv_head * group + column % group;
    memory.q[column][i % D] = call.qkv[((u64)row * (call.heads + 2 * call.kv_heads) + head) * D + i % D] * scale;
  }
}

template <int D> __device__ inline void empty(Memory<D>& memory, float (&o)[COLUMNS * D / THREADS]) {
  __syncthreads();
  if (threadIdx.x < COLUMNS) { memory.m[threadIdx.x] = -INF; memory.sum[threadIdx.x] = 0; }
#pragma unroll
  for (int j = 0; j < COLUMNS * D / THREADS; j++) o[j] = 0;
}

// The state after a span joined to the state before it.
struct State { float m, sum; };
__device__ inline float joined(State& state, float o, float m, float sum, float said) {
  if (m == -INF) return o;
  float most = fmaxf(state.m, m), a = expf(state.m - most), b = expf(m - most);
  state.m = most;
  state.sum = state.sum * a + sum * b;
  return o * a + said * b;
}

// Grid [tiles, kv heads]: all spans, one after the other.
template <int D> __device__ inline void all(const Call& call, const u32* starts, float* out) {
  DYNAMIC_SHARED(raw);
  Memory<D>& memory = *(Memory<D>*)raw;
  const int group = call.heads / call.kv_heads, kv_head = blockIdx.y, PER = COLUMNS * D / THREADS;
  const Tile tile = tile_of(call, starts);
  begin<D>(memory, call, tile, group, kv_head);
  float o[PER], total[PER];
  State state[PER];
#pragma unroll
  for (int j = 0; j < PER; j++) {
    int column = j * (THREADS / D) + threadIdx.x / D;
    state[j].m = column < tile.rows * group ? call.sinks[kv_head * group + column % group] : 0.0f;
    state[j].sum = 1;
    total[j] = 0;
  }
  for (u32 span = tile.from / SPAN; span <= tile.to / SPAN; span++) {
    empty<D>(memory, o);
    u32 to = span * SPAN + SPAN - 1 < tile.to ? span * SPAN + SPAN - 1 : tile.to;
    for (u32 page = span * SPAN > tile.from ? span * SPAN : tile.from; page <= to; page++) add_page<D>(memory, o, call, tile, group, kv_head, page);
#pragma unroll
    for (int j = 0; j < PER; j++) {
      int column = j * (THREADS / D) + threadIdx.x / D;
      if (column < tile.rows * group) total[j] = joined(state[j], total[j], memory.m[column], memory.sum[column], o[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < PER; j++) {
    int column = j * (THREADS / D) + threadIdx.x / D;
    if (column >= tile.rows * group) break;
    u64 row = tile.first + column / group;
    out[(row * call.heads + kv_head * group + column % group) * D + threadIdx.x % D] = total[j] / state[j].sum;
  }
}

// Grid [tiles, kv heads, spans]: one span each; [row, head, span] of m and sum, and of o.
template <int D> __device__ inline void span(const Call& call, const u32* starts, float* states, float* said) {
  DYNAMIC_SHARED(raw);
  Memory<D>& memory = *(Memory<D>*)raw;
  const int group = call.heads / call.kv_heads, kv_head = blockIdx.y, spans = gridDim.z;
  const Tile tile = tile_of(call, starts);
  u32 from = blockIdx.z * SPAN > tile.from ? blockIdx.z * SPAN : tile.from;
  u32 to = blockIdx.z * SPAN + SPAN - 1 < tile.to ? blockIdx.z * SPAN + SPAN - 1 : tile.to;
  if (from > to) return;
  begin<D>(memory, call, tile, group, kv_head);
  float o[COLUMNS * D / THREADS];
  empty<D>(memory, o);
  for (u32 page = from; page <= to; page++) add_page<D>(memory, o, call, tile, group, kv_head, page);
#pragma unroll
  for (int j = 0; j < COLUMNS * D / THREADS; j++) {
    int column = j * (THREADS / D) + threadIdx.x / D;
    if (column >= tile.rows * group) break;
    u64 at = ((u64)(tile.first + column / group) * call.heads + kv_head * group + column % group) * spans + blockIdx.z;
    said[at * D + threadIdx.x % D] = o[j];
    if (threadIdx.x % D == 0) { states[2 * at] = memory.m[column]; states[2 * at + 1] = memory.sum[column]; }
  }
}

// Grid [T, H], d threads.
template <int D> __device__ inline void join(const Call& call, const float* states, const float* said, int spans, float* out) {
  const u32 position = call.positions[blockIdx.x];
  const u32 from = call.window > 0 && position + 1 > (u32)call.window ? (position + 1 - call.window) / PAGE : 0;
  State state = {call.sinks[blockIdx.y], 1};
  float total = 0;
  u64 column = (u64)blockIdx.x * call.heads + blockIdx.y;
  for (u32 s = from / SPAN; s <= position / PAGE / SPAN; s++) {
    u64 at = column * spans + s;
    total = joined(state, total, states[2 * at], states[2 * at + 1], said[at * D + threadIdx.x]);
  }
  out[column * D + threadIdx.x] = total / state.sum;
}

#define CALL const float *qkv, const float *sinks, const u16 *keys, const u16 *values, const u32 *positions, const u32 *sequences, const u32 *tables, const u32 *firsts, int width, int heads, int kv_heads, int window
#define CALLED {qkv, sinks, keys, values, positions, sequences, tables, firsts, width, heads, kv_heads, window}
#define ATTENTION(D)                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(256) attention_all_##D(CALL, const u32* starts, float* out) {                              \
    Call call = CALLED;                                                                                                                  \
    all<D>(call, starts, out);                                                                                                           \
  }                                                                                                                                      \
  KERNEL(attention_all_##D)                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) attention_span_##D(CALL, const u32* starts, float* states, float* said) {             \
    Call call = CALLED;                                                                                                                  \
    span<D>(call, starts, states, said);                                                                                                 \
  }                                                                                                                                      \
  KERNEL(attention_span_##D)                                                                                                             \
  extern "C" __global__ void attention_join_##D(CALL, const float* states, const float* said, int spans, float* out) {                    \
    Call call = CALLED;                                                                                                                  \
    join<D>(call, states, said, spans, out);                                                                                             \
  }                                                                                                                                      \
  KERNEL(attention_join_##D)
ATTENTION(16)
ATTENTION(32)
ATTENTION(64)
