// Causal attention over pages with sinks (attention/mod.rs), on tensor cores. Keys and values are f16, [page, head, slot,
// channel].
//
// A block has some rows of the batch and all query heads of one key/value head: together its columns, which share the pages.
// Sixteen columns are the left operand of an `mma`; keys and values are the right one, as they are. A query or an exponential
// goes in as two f16, what is nearest and what is left, so nothing is lost that f32 would have kept.
//
// The order of sums: a page has a state of its own (maximum, sum, o); those of a span of four pages are joined in order, and
// spans in order, beginning with the sink. A row of an `mma` depends on no other row, so it does not matter how many rows a
// block has, whether warps share out its columns (`many`) or its pages (`few`), whether blocks go through all spans or each
// through one, or who else is there: what a column does not see leaves its state as it is.
#include "../../cuda/common.cuh"

static const int PAGE = 64, SPAN = 4, COLUMNS = 64, WARPS = 4, THREADS = 32 * WARPS, FEW = 16;

// What is the same for all columns.
struct Call {
  const float *qkv, *sinks;
  const u16 *keys, *values;
  const u32 *positions, *sequences, *tables, *firsts;
  int width, heads, kv_heads, window;
};

// Rows have eight numbers more than they need, so that eight of them lie in different banks.
template <int D> struct Page { u16 keys[PAGE][D + 8], values[PAGE][D + 8]; };

// The rows that a block has, of one sequence, and the pages that it reads. Blocks are listed by their first row.
struct Tile { int first, rows, group, kv_head; u32 sequence, most, from, to; };

// Positions that a row sees.
struct Sight {
  u32 first, last;
  __device__ inline bool sees(u32 from, u32 count) const { return from <= last && from + count > first; }
};

__device__ inline Sight sight_of(u32 position, int window) {
  Sight sight = {window > 0 && position + 1 > (u32)window ? position + 1 - window : 0, position};
  return sight;
}

__device__ inline Tile tile_of(const Call& call, const u32* starts) {
  Tile tile;
  tile.first = starts[blockIdx.x];
  tile.rows = starts[blockIdx.x + 1] - tile.first;
  tile.group = call.heads / call.kv_heads;
  tile.kv_head = blockIdx.y;
  tile.sequence = call.sequences[tile.first];
  // Positions of a sequence's rows ascend by one.
  tile.most = call.positions[tile.first + tile.rows - 1];
  tile.from = sight_of(call.positions[tile.first], call.window).first / PAGE;
  tile.to = tile.most / PAGE;
  return tile;
}

// The place of a column's output, [T, H].
__device__ inline u64 place_of(const Call& call, const Tile& tile, int column) {
  return (u64)(tile.first + column / tile.group) * call.heads + tile.kv_head * tile.group + column % tile.group;
}

// The first number of a page of the tile's sequence, in keys and in values.
template <int D> __device__ inline u64 page_at(const Call& call, const Tile& tile, u32 number) {
  u32 page = call.tables[(u64)tile.sequence * call.width + number - call.firsts[tile.sequence]];
  return ((u64)page * call.kv_heads + tile.kv_head) * PAGE * D;
}

// Two groups of copies, keys and values. Slots past the block's last position may hold anything, and come as zeros.
template <int D> __device__ inline void load_page(Page<D>& to, const Call& call, const Tile& tile, u32 number, int thread, int threads) {
  const u64 from = page_at<D>(call, tile, number);
  const int EIGHTS = D / 8;
  for (int i = thread; i < PAGE * EIGHTS; i += threads)
    copy_async(&to.keys[i / EIGHTS][i % EIGHTS * 8], call.keys + from + 8 * i, number * PAGE + i / EIGHTS > tile.most);
  copies_close();
  for (int i = thread; i < PAGE * EIGHTS; i += threads)
    copy_async(&to.values[i / EIGHTS][i % EIGHTS * 8], call.values + from + 8 * i, number * PAGE + i / EIGHTS > tile.most);
  copies_close();
}

// q / sqrt(d) as two f16, and zeros up to a multiple of 16 columns. `low` lies behind `high`.
template <int D> __device__ inline void put_queries(u16* high, u16* low, const Call& call, const Tile& tile, int most) {
  const int columns = tile.rows * tile.group;
  float scale = 1.0f / sqrtf((float)D);
  // A thread has one channel of columns that lie so far apart, and asks for so many at once.
  const int APART = THREADS / D, AT_ONCE = 8;
  const float* from = call.qkv + threadIdx.x % D;
  int column = threadIdx.x / D, row = tile.first + column / tile.group, head = column % tile.group;
  while (column < most) {
    float q[AT_ONCE];
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++) {
      q[u] = column + u * APART < columns ? from[((u64)row * (call.heads + 2 * call.kv_heads) + tile.kv_head * tile.group + head) * D] : 0;
      for (head += APART; head >= tile.group; head -= tile.group) row++;
    }
#pragma unroll
    for (int u = 0; u < AT_ONCE; u++, column += APART) {
      if (column >= most) break;
      const int at = column * (D + 8) + threadIdx.x % D;
      float scaled = __fmul_rn(q[u], scale);
      u16 near = half_of(scaled);
      high[at] = near;
      low[at] = half_of(__fsub_rn(scaled, float_of_half(near)));
    }
  }
}

__device__ inline float exp_of(float x) { return exp2_fast(__fmul_rn(x, 1.44269504f)); }

// A state of sixteen columns in a warp, as mma has them: lane 4 g + t has columns g and g + 8, channels 2t and 2t + 1 of
// every eight.
template <int D> struct State { float m[2], sum[2], o[D / 8][4]; };

template <int D> __device__ inline void empty(State<D>& state, int half) {
  state.m[half] = -INF;
  state.sum[half] = 0;
#pragma unroll
  for (int j = 0; j < D / 8; j++) state.o[j][2 * half] = state.o[j][2 * half + 1] = 0;
}

// Scores of a page that begins at `start`, then exponentials, their maximum and sum.
template <int D> __device__ inline void scores(float (&p)[8][4], State<D>& state, const Page<D>& page, const u16* high, const u16* low, u32 start, const Sight (&sight)[2]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) p[j][i] = 0;
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
    u32 far[4], near[4], k[4];
    load_tiles(far, low + (lane % 16) * (D + 8) + 16 * step + lane / 16 * 8);
    load_tiles(near, high + (lane % 16) * (D + 8) + 16 * step + lane / 16 * 8);
#pragma unroll
    for (int j = 0; j < 8; j += 2) {
      load_tiles(k, &page.keys[8 * j + lane / 16 * 8 + lane % 8][16 * step + lane / 8 % 2 * 8]);
      mma_half(p[j], far, k[0], k[1]);
      mma_half(p[j + 1], far, k[2], k[3]);
      mma_half(p[j], near, k[0], k[1]);
      mma_half(p[j + 1], near, k[2], k[3]);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float m = -INF, sum = 0;
    if (start < sight[half].first || start + PAGE - 1 > sight[half].last)
#pragma unroll
      for (int i = 0; i < 16; i++)
        if (!sight[half].sees(start + 8 * (i / 2) + 2 * (lane % 4) + i % 2, 1)) p[i / 2][2 * half + i % 2] = -INF;
#pragma unroll
    for (int i = 0; i < 16; i++) m = fmaxf(m, p[i / 2][2 * half + i % 2]);
    m = fmaxf(m, __shfl_xor_sync(ALL, m, 1));
    m = fmaxf(m, __shfl_xor_sync(ALL, m, 2));
#pragma unroll
    for (int i = 0; i < 16; i++) {
      float& score = p[i / 2][2 * half + i % 2];
      score = exp_of(__fsub_rn(score, m));
      sum = __fadd_rn(sum, score);
    }
    sum = __fadd_rn(sum, __shfl_xor_sync(ALL, sum, 1));
    state.m[half] = m;
    state.sum[half] = __fadd_rn(sum, __shfl_xor_sync(ALL, sum, 2));
  }
}

// Two numbers as two pairs of f16.
__device__ inline void split(float a, float b, u32& near, u32& far) {
  near = half_pair(a, b);
  far = half_pair(__fsub_rn(a, float_of_half((u16)near)), __fsub_rn(b, float_of_half((u16)(near >> 16))));
}

// o of a page.
template <int D> __device__ inline void said(State<D>& state, const float (&p)[8][4], const Page<D>& page) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int j = 0; j < D / 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) state.o[j][i] = 0;
#pragma unroll
  for (int step = 0; step < PAGE / 16; step++) {
    u32 near[4], far[4], v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) split(p[2 * step + i / 2][i % 2 * 2], p[2 * step + i / 2][i % 2 * 2 + 1], near[i], far[i]);
#pragma unroll
    for (int j = 0; j < D / 8; j += 2) {
      load_tiles_turned(v, &page.values[16 * step + lane % 16][8 * j + lane / 16 * 8]);
      mma_half(state.o[j], far, v[0], v[1]);
      mma_half(state.o[j + 1], far, v[2], v[3]);
      mma_half(state.o[j], near, v[0], v[1]);
      mma_half(state.o[j + 1], near, v[2], v[3]);
    }
  }
}

// How much what was before and what comes after count in the state that both make.
struct Shares { float before, after; };

__device__ inline Shares join(float& m, float& sum, float next_m, float next_sum) {
  float most = fmaxf(m, next_m);
  Shares shares = {exp_of(__fsub_rn(m, most)), exp_of(__fsub_rn(next_m, most))};
  m = most;
  sum = fmaf(next_sum, shares.after, __fmul_rn(sum, shares.before));
  return shares;
}

__device__ inline float joined(float before, float after, Shares shares) {
  return fmaf(after, shares.after, __fmul_rn(before, shares.before));
}

template <int D> __device__ inline void join(State<D>& state, const State<D>& next, int half) {
  Shares shares = join(state.m[half], state.sum[half], next.m[half], next.sum[half]);
#pragma unroll
  for (int j = 0; j < D / 8; j++)
#pragma unroll
    for (int i = 2 * half; i < 2 * half + 2; i++) state.o[j][i] = joined(state.o[j][i], next.o[j][i], shares);
}

// Where states of spans go, [T, H, spans], or the outputs where there is one block for all.
struct Out {
  float *states, *said, *out;
  int spans;
  u32* counters;
};

// Sixteen columns a warp, pages one after the other, the next one on its way while one is computed.
template <int D, bool SPLIT> __device__ inline void many(const Call& call, const Tile& tile, unsigned char* memory, const Out& out) {
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, columns = tile.rows * tile.group;
  Page<D>* pages = (Page<D>*)memory;
  u16 *high = (u16*)(pages + 2), *low = high + COLUMNS * (D + 8);
  load_page(pages[0], call, tile, tile.from, threadIdx.x, THREADS);
  put_queries<D>(high, low, call, tile, (columns + 15) / 16 * 16);
  State<D> span, total;
  Sight sight[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int column = 16 * warp + g + 8 * half, real = column < columns ? column : 0;
    sight[half] = sight_of(call.positions[tile.first + real / tile.group], call.window);
    empty(span, half);
    empty(total, half);
    total.m[half] = call.sinks[tile.kv_head * tile.group + real % tile.group];
    total.sum[half] = 1;
  }
  for (u32 number = tile.from; number <= tile.to; number++) {
    copies_wait<0>();
    // All have their part of this page, and are done with the one before.
    __syncthreads();
    Page<D>& page = pages[(number - tile.from) % 2];
    if (number < tile.to) load_page(pages[(number - tile.from + 1) % 2], call, tile, number + 1, threadIdx.x, THREADS);
    if (16 * warp >= columns) continue;
    State<D> state;
    float p[8][4];
    scores<D>(p, state, page, high + 16 * warp * (D + 8), low + 16 * warp * (D + 8), number * PAGE, sight);
    said<D>(state, p, page);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      if (sight[half].sees(number * PAGE, PAGE)) join(span, state, half);
      if (SPLIT || (number % SPAN != SPAN - 1 && number < tile.to)) continue;
      if (sight[half].sees(number / SPAN * SPAN * PAGE, SPAN * PAGE)) join(total, span, half);
      empty(span, half);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int column = 16 * warp + g + 8 * half;
    if (column >= columns) continue;
    u64 place = place_of(call, tile, column);
    if (SPLIT) {
      place = place * out.spans + blockIdx.z;
      if (t == 0) *(float2*)(out.states + 2 * place) = make_float2(span.m[half], span.sum[half]);
    }
    float* to = (SPLIT ? out.said : out.out) + place * D + 2 * t;
#pragma unroll
    for (int j = 0; j < D / 8; j++) {
      float a = span.o[j][2 * half], b = span.o[j][2 * half + 1];
      if (!SPLIT) a = total.o[j][2 * half] / total.sum[half], b = total.o[j][2 * half + 1] / total.sum[half];
      *(float2*)(to + 8 * j) = make_float2(a, b);
    }
  }
}

// A page's state to shared memory: [column][maximum, sum, o].
template <int D> __device__ inline void put_state(float* to, const State<D>& state) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float* column = to + (g + 8 * half) * (D + 2);
    if (t == 0) *(float2*)column = make_float2(state.m[half], state.sum[half]);
#pragma unroll
    for (int j = 0; j < D / 8; j++) *(float2*)(column + 2 + 8 * j + 2 * t) = make_float2(state.o[j][2 * half], state.o[j][2 * half + 1]);
  }
}

// A page a warp, for at most sixteen columns; then each thread joins states for an eighth of a column.
template <int D, bool SPLIT> __device__ inline void few(const Call& call, const Tile& tile, unsigned char* memory, const Out& out) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, columns = tile.rows * tile.group, PER = D / 8;
  Page<D>* pages = (Page<D>*)memory;
  u16 *high = (u16*)(pages + WARPS), *low = high + FEW * (D + 8);
  const int mine = threadIdx.x / 8, real = mine < columns ? mine : 0;
  const Sight my_sight = sight_of(call.positions[tile.first + real / tile.group], call.window);
  Sight sight[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int column = lane / 4 + 8 * half < columns ? lane / 4 + 8 * half : 0;
    sight[half] = sight_of(call.positions[tile.first + column / tile.group], call.window);
  }
  float m = -INF, sum = 0, total_m = call.sinks[tile.kv_head * tile.group + real % tile.group], total_sum = 1, o[PER], total[PER];
#pragma unroll
  for (int i = 0; i < PER; i++) o[i] = total[i] = 0;
  // A page that this step writes nothing to need not wait for others.
  const bool early = tile.from + warp <= tile.to && tile.from + warp < call.positions[tile.first] / PAGE;
  if (early) load_page(pages[warp], call, tile, tile.from + warp, lane, 32);
  after_others();
  if (tile.from > tile.to) return;
  for (u32 round = tile.from; round <= tile.to; round += WARPS) {
    const u32 own = round + warp;
    if (own <= tile.to && (round > tile.from || !early)) load_page(pages[warp], call, tile, own, lane, 32);
    if (round == tile.from) {
      put_queries<D>(high, low, call, tile, FEW);
      __syncthreads();
    }
    if (own <= tile.to) {
      State<D> state;
      float p[8][4];
      copies_wait<1>();
      __syncwarp();
      scores<D>(p, state, pages[warp], high, low, own * PAGE, sight);
      copies_wait<0>();
      __syncwarp();
      said<D>(state, p, pages[warp]);
      put_state<D>((float*)pages[warp].keys, state);
    }
    __syncthreads();
    for (u32 number = round; number <= tile.to && number < round + WARPS; number++) {
      const float* state = (const float*)pages[number - round].keys + mine * (D + 2);
      if (my_sight.sees(number * PAGE, PAGE)) {
        Shares shares = join(m, sum, state[0], state[1]);
#pragma unroll
        for (int i = 0; i < PER; i++) o[i] = joined(o[i], state[2 + threadIdx.x % 8 + 8 * i], shares);
      }
      if (SPLIT || (number % SPAN != SPAN - 1 && number < tile.to)) continue;
      if (my_sight.sees(number / SPAN * SPAN * PAGE, SPAN * PAGE)) {
        Shares shares = join(total_m, total_sum, m, sum);
#pragma unroll
        for (int i = 0; i < PER; i++) total[i] = joined(total[i], o[i], shares);
      }
      m = -INF, sum = 0;
#pragma unroll
      for (int i = 0; i < PER; i++) o[i] = 0;
    }
    // States have been read before the next pages come.
    __syncthreads();
  }
  if (mine >= columns) return;
  u64 place = place_of(call, tile, mine);
  if (SPLIT) {
    place = place * out.spans + blockIdx.z;
    if (threadIdx.x % 8 == 0) *(float2*)(out.states + 2 * place) = make_float2(m, sum);
  }
  float* to = (SPLIT ? out.said : out.out) + place * D + threadIdx.x % 8;
#pragma unroll
  for (int i = 0; i < PER; i++) to[8 * i] = SPLIT ? o[i] : total[i] / total_sum;
}

// One channel of a head's output from the states of the spans.
template <int D> __device__ inline void join_spans(const Call& call, const Out& out, int row, int head, int channel) {
  const Sight sight = sight_of(call.positions[row], call.window);
  float m = call.sinks[head], sum = 1, total = 0;
  u64 place = (u64)row * call.heads + head;
#pragma unroll 4
  for (u32 s = sight.first / PAGE / SPAN; s <= sight.last / PAGE / SPAN; s++) {
    u64 at = place * out.spans + s;
    Shares shares = join(m, sum, out.states[2 * at], out.states[2 * at + 1]);
    total = joined(total, out.said[at * D + channel], shares);
  }
  out.out[place * D + channel] = total / sum;
}

// Grid [tiles, kv heads], all spans; or [tiles, kv heads, spans], one each, and where there are
// counters the last of a tile joins them.
template <int D, bool SPLIT> __device__ inline void attend(const Call& call, const u32* starts, const Out& out) {
  DYNAMIC_SHARED(memory);
  // Tables come before a step's first kernel.
  Tile tile = tile_of(call, starts);
  if (SPLIT) {
    u32 from = blockIdx.z * SPAN, to = from + SPAN - 1;
    tile.from = tile.from > from ? tile.from : from;
    tile.to = tile.to < to ? tile.to : to;
  }
  if (tile.rows * tile.group <= FEW) {
    few<D, SPLIT>(call, tile, memory, out);
  } else {
    after_others();
    if (tile.from <= tile.to) many<D, SPLIT>(call, tile, memory, out);
  }
  if (!SPLIT || !out.counters || tile.from > tile.to) return;
  tile = tile_of(call, starts);
  if (!comes_last(out.counters + blockIdx.x * gridDim.y + blockIdx.y, tile.to / SPAN - tile.from / SPAN + 1)) return;
  for (int i = threadIdx.x; i < tile.rows * tile.group * D; i += THREADS)
    join_spans<D>(call, out, tile.first + i / D / tile.group, tile.kv_head * tile.group + i / D % tile.group, i % D);
}

#define CALL const float *qkv, const float *sinks, const u16 *keys, const u16 *values, const u32 *positions, const u32 *sequences, const u32 *tables, const u32 *firsts, int width, int heads, int kv_heads, int window
#define CALLED {qkv, sinks, keys, values, positions, sequences, tables, firsts, width, heads, kv_heads, window}
#define ATTENTION(D, BOUNDS)                                                                                                                     \
  extern "C" __global__ void __launch_bounds__ BOUNDS attention_all_##D(CALL, const u32* starts, float* out) {                              \
    Call call = CALLED;                                                                                                                  \
    Out to = {nullptr, nullptr, out, 1, nullptr};                                                                                        \
    attend<D, false>(call, starts, to);                                                                                                  \
  }                                                                                                                                      \
  KERNEL(attention_all_##D)                                                                                                              \
  extern "C" __global__ void __launch_bounds__ BOUNDS attention_span_##D(CALL, const u32* starts, float* states, float* said, float* out, u32* counters) { \
    Call call = CALLED;                                                                                                                  \
    Out to = {states, said, out, (int)gridDim.z, counters};                                                                              \
    attend<D, true>(call, starts, to);                                                                                                   \
  }                                                                                                                                      \
  KERNEL(attention_span_##D)                                                                                                             \
  /* Grid [T, H], d threads. */                                                                                                          \
  extern "C" __global__ void attention_join_##D(CALL, float* states, float* said, int spans, float* out) {                                \
    Call call = CALLED;                                                                                                                  \
    Out to = {states, said, out, spans, nullptr};                                                                                        \
    after_others();                                                                                                                      \
    join_spans<D>(call, to, blockIdx.x, blockIdx.y, threadIdx.x);                                                                        \
  }                                                                                                                                      \
  KERNEL(attention_join_##D)
// Threads, and blocks at once where the compiler would otherwise keep too little in registers.
ATTENTION(16, (128, 4))
ATTENTION(32, (128))
ATTENTION(64, (128))
