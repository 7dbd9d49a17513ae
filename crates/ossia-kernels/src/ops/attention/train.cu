// Attention within whole documents and its gradients on tensor cores (attention/training/mod.rs has the formulas): q, k, v, do,
// probabilities and their gradients go in as bf16, everything is added in f32.
//
// A block has 64 rows of one document, sixteen a warp: queries of one head, or keys with all heads of their group. It goes
// through the other side 32 at a time, in order, so sums depend on documents and the window alone.
#include "../../cuda/common.cuh"

static const int SIDE = 64, DEEP = 32;
static const float LOG2E = 1.4426950408889634f;

// Rows `first` to `end` of the document `start` to `stop`.
struct Tile { int first, end, start, stop; };

// What of qkv [T, row] belongs to whom.
struct Heads {
  int heads, kv_heads, window, row;
  float scale;
  __device__ inline bool sees(int query, int key) const { return key <= query && (window == 0 || query - key < window); }
};

// `count` rows of `D` numbers from `first` on, as bf16; zeros from `end` on.
template <int D> __device__ inline void put_rows(u16* tile, const float* from, int stride, int first, int end, int count, float scale) {
  for (int i = threadIdx.x; i < count * (D / 4); i += 128) {
    int row = i / (D / 4), c = i % (D / 4) * 4;
    float4 v = first + row < end ? *(const float4*)(from + (u64)(first + row) * stride + c) : make_float4(0, 0, 0, 0);
    *(uint2*)(tile + row * (D + 8) + c) = make_uint2(bf16_pair(v.x * scale, v.y * scale), bf16_pair(v.z * scale, v.w * scale));
  }
}

// The warp's sixteen rows of a tile of 64, as left operands.
template <int D> __device__ inline void take_rows(u32 (&out)[D / 16][4], const u16* tile) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < D / 16; i++) load_tiles(out[i], tile + (threadIdx.x / 32 * 16 + lane % 16) * (D + 8) + 16 * i + lane / 16 * 8);
}

// c [16, 32] = rows times the 32 rows of a tile.
template <int D> __device__ inline void dots(float (&c)[DEEP / 8][4], const u32 (&rows)[D / 16][4], const u16* tile) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < DEEP / 8; n++)
#pragma unroll
    for (int v = 0; v < 4; v++) c[n][v] = 0;
#pragma unroll
  for (int i = 0; i < D / 16; i++)
#pragma unroll
    for (int n = 0; n < DEEP / 16; n++) {
      u32 b[4];
      load_tiles(b, tile + (16 * n + lane % 8 + lane / 16 * 8) * (D + 8) + 16 * i + lane / 8 % 2 * 8);
      mma(c[2 * n], rows[i][0], rows[i][1], rows[i][2], rows[i][3], b[0], b[1]);
      mma(c[2 * n + 1], rows[i][0], rows[i][1], rows[i][2], rows[i][3], b[2], b[3]);
    }
}

// sums [16, D] += p [16, 32] times the 32 rows of a tile.
template <int D> __device__ inline void weighted(float (&sums)[D / 8][4], const float (&p)[DEEP / 8][4], const u16* tile) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < DEEP / 16; k++) {
    const float(&a)[4] = p[2 * k], (&b)[4] = p[2 * k + 1];
    const u32 a0 = bf16_pair(a[0], a[1]), a1 = bf16_pair(a[2], a[3]), a2 = bf16_pair(b[0], b[1]), a3 = bf16_pair(b[2], b[3]);
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      u32 v[4];
      load_tiles_turned(v, tile + (16 * k + lane % 16) * (D + 8) + 16 * n + lane / 16 * 8);
      mma(sums[2 * n], a0, a1, a2, a3, v[0], v[1]);
      mma(sums[2 * n + 1], a0, a1, a2, a3, v[2], v[3]);
    }
  }
}

template <int D> __device__ inline void clear(float (&sums)[D / 8][4]) {
#pragma unroll
  for (int n = 0; n < D / 8; n++)
#pragma unroll
    for (int v = 0; v < 4; v++) sums[n][v] = 0;
}

// Rows g and g + 8 of the warp's sixteen.
__device__ inline int row_of(const Tile& tile, int half) { return tile.first + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + half * 8; }

// Writes sums times `scale` to rows of `out`.
template <int D> __device__ inline void put(float* out, int stride, const float (&sums)[D / 8][4], const Tile& tile, const float (&scale)[2]) {
#pragma unroll
  for (int n = 0; n < D / 8; n++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = row_of(tile, half);
      if (row < tile.end) *(float2*)(out + (u64)row * stride + 8 * n + threadIdx.x % 4 * 2) = make_float2(sums[n][2 * half] * scale[half], sums[n][2 * half + 1] * scale[half]);
    }
}

__device__ inline int first_key(const Tile& tile, int window) { return window && tile.first - window + 1 > tile.start ? tile.first - window + 1 : tile.start; }

// o [T, H D] and lse [T, H]. Grid [tiles, H].
template <int D> __device__ inline void forward(const float* qkv, const float* sinks, const Tile* tiles, float* o, float* lse, const Heads& heads) {
  __align__(16) __shared__ u16 queries[SIDE * (D + 8)], keys[DEEP * (D + 8)], values[DEEP * (D + 8)];
  after_others();
  const Tile tile = tiles[blockIdx.x];
  const int head = blockIdx.y, kv = head / (heads.heads / heads.kv_heads), t = threadIdx.x % 4;
  put_rows<D>(queries, qkv + head * D, heads.row, tile.first, tile.end, SIDE, heads.scale);
  __syncthreads();
  u32 q[D / 16][4];
  take_rows<D>(q, queries);
  float sums[D / 8][4], most[2] = {sinks[head], sinks[head]}, total[2] = {t == 0 ? 1.0f : 0, t == 0 ? 1.0f : 0};
  clear<D>(sums);
  for (int first = first_key(tile, heads.window); first < tile.end; first += DEEP) {
    __syncthreads();
    put_rows<D>(keys, qkv + (heads.heads + kv) * D, heads.row, first, tile.end, DEEP, 1);
    put_rows<D>(values, qkv + (heads.heads + heads.kv_heads + kv) * D, heads.row, first, tile.end, DEEP, 1);
    __syncthreads();
    float p[DEEP / 8][4];
    dots<D>(p, q, keys);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float best = most[half];
#pragma unroll
      for (int i = 0; i < DEEP / 4; i++) {
        float& s = p[i / 2][2 * half + i % 2];
        if (!heads.sees(row_of(tile, half), first + 8 * (i / 2) + 2 * t + i % 2)) s = -INF;
        best = fmaxf(best, s);
      }
      best = fmaxf(best, __shfl_xor_sync(ALL, best, 1));
      best = fmaxf(best, __shfl_xor_sync(ALL, best, 2));
      const float factor = exp2_fast((most[half] - best) * LOG2E);
      most[half] = best;
      total[half] *= factor;
#pragma unroll
      for (int n = 0; n < D / 8; n++) sums[n][2 * half] *= factor, sums[n][2 * half + 1] *= factor;
#pragma unroll
      for (int i = 0; i < DEEP / 4; i++) {
        float& s = p[i / 2][2 * half + i % 2];
        s = exp2_fast((s - best) * LOG2E);
        total[half] += s;
      }
    }
    weighted<D>(sums, p, values);
  }
  float scale[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    total[half] += __shfl_xor_sync(ALL, total[half], 1);
    total[half] += __shfl_xor_sync(ALL, total[half], 2);
    scale[half] = 1.0f / total[half];
    const int row = row_of(tile, half);
    if (t == 0 && row < tile.end) lse[(u64)row * heads.heads + head] = most[half] + logf(total[half]);
  }
  put<D>(o + head * D, heads.heads * D, sums, tile, scale);
}

// do · o of each row and head. Grid [T H / 8], a warp each.
extern "C" __global__ void __launch_bounds__(256) attention_dots(const float* o, const float* d_o, float* out, int count, int dim) {
  after_others();
  const int at = blockIdx.x * 8 + threadIdx.x / 32;
  if (at >= count) return;
  float sum = 0;
  for (int i = threadIdx.x % 32; i < dim; i += 32) sum = fmaf(o[(u64)at * dim + i], d_o[(u64)at * dim + i], sum);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) out[at] = sum;
}
KERNEL(attention_dots)

// d_sinks [H] += - the sum over rows of exp(sink - lse) (do · o). Grid [H].
extern "C" __global__ void __launch_bounds__(256) attention_sinks(const float* sinks, const float* lse, const float* row_dots, float* d_sinks, int tokens, int heads) {
  __shared__ float parts[8];
  after_others();
  float sum = 0;
  for (int row = threadIdx.x; row < tokens; row += 256) {
    const u64 at = (u64)row * heads + blockIdx.x;
    sum -= expf(sinks[blockIdx.x] - lse[at]) * row_dots[at];
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int i = 1; i < 8; i++) sum += parts[i];
  d_sinks[blockIdx.x] += sum;
}
KERNEL(attention_sinks)

// dq of d_qkv [T, row]. Grid [tiles, H].
template <int D> __device__ inline void query_gradients(const float* qkv, const Tile* tiles, const float* lse, const float* row_dots, const float* d_o, float* d_qkv, const Heads& heads) {
  __align__(16) __shared__ u16 queries[SIDE * (D + 8)], backs[SIDE * (D + 8)], keys[DEEP * (D + 8)], values[DEEP * (D + 8)];
  after_others();
  const Tile tile = tiles[blockIdx.x];
  const int head = blockIdx.y, kv = head / (heads.heads / heads.kv_heads), t = threadIdx.x % 4;
  put_rows<D>(queries, qkv + head * D, heads.row, tile.first, tile.end, SIDE, heads.scale);
  put_rows<D>(backs, d_o + head * D, heads.heads * D, tile.first, tile.end, SIDE, 1);
  __syncthreads();
  u32 q[D / 16][4], back[D / 16][4];
  take_rows<D>(q, queries);
  take_rows<D>(back, backs);
  float sums[D / 8][4], own_lse[2], own_dots[2];
  clear<D>(sums);
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = row_of(tile, half);
    const u64 at = (u64)row * heads.heads + head;
    own_lse[half] = row < tile.end ? lse[at] : 0;
    own_dots[half] = row < tile.end ? row_dots[at] : 0;
  }
  for (int first = first_key(tile, heads.window); first < tile.end; first += DEEP) {
    __syncthreads();
    put_rows<D>(keys, qkv + (heads.heads + kv) * D, heads.row, first, tile.end, DEEP, 1);
    put_rows<D>(values, qkv + (heads.heads + heads.kv_heads + kv) * D, heads.row, first, tile.end, DEEP, 1);
    __syncthreads();
    float p[DEEP / 8][4], d[DEEP / 8][4];
    dots<D>(p, q, keys);
    dots<D>(d, back, values);
#pragma unroll
    for (int i = 0; i < DEEP / 2; i++) {
      const int n = i / 4, v = i % 4, row = row_of(tile, v / 2);
      const bool seen = row < tile.end && heads.sees(row, first + 8 * n + 2 * t + v % 2);
      d[n][v] = seen ? exp2_fast((p[n][v] - own_lse[v / 2]) * LOG2E) * (d[n][v] - own_dots[v / 2]) : 0;
    }
    weighted<D>(sums, d, keys);
  }
  const float scale[2] = {heads.scale, heads.scale};
  put<D>(d_qkv + head * D, heads.row, sums, tile, scale);
}

// dk and dv of d_qkv, over all heads of the group. Grid [tiles, K].
template <int D> __device__ inline void key_gradients(const float* qkv, const Tile* tiles, const float* lse, const float* row_dots, const float* d_o, float* d_qkv, const Heads& heads) {
  __align__(16) __shared__ u16 keys[SIDE * (D + 8)], values[SIDE * (D + 8)], queries[DEEP * (D + 8)], backs[DEEP * (D + 8)];
  __shared__ float states[2][DEEP];
  after_others();
  const Tile tile = tiles[blockIdx.x];
  const int kv = blockIdx.y, group = heads.heads / heads.kv_heads, t = threadIdx.x % 4;
  put_rows<D>(keys, qkv + (heads.heads + kv) * D, heads.row, tile.first, tile.end, SIDE, 1);
  put_rows<D>(values, qkv + (heads.heads + heads.kv_heads + kv) * D, heads.row, tile.first, tile.end, SIDE, 1);
  __syncthreads();
  u32 k[D / 16][4], v[D / 16][4];
  take_rows<D>(k, keys);
  take_rows<D>(v, values);
  float dk[D / 8][4], dv[D / 8][4];
  clear<D>(dk);
  clear<D>(dv);
  const int stop = heads.window && tile.end - 1 + heads.window < tile.stop ? tile.end - 1 + heads.window : tile.stop;
  for (int head = kv * group; head < (kv + 1) * group; head++)
    for (int first = tile.first; first < stop; first += DEEP) {
      __syncthreads();
      put_rows<D>(queries, qkv + head * D, heads.row, first, stop, DEEP, heads.scale);
      put_rows<D>(backs, d_o + head * D, heads.heads * D, first, stop, DEEP, 1);
      if (threadIdx.x < DEEP) {
        const u64 at = (u64)(first + threadIdx.x) * heads.heads + head;
        const bool real = first + threadIdx.x < stop;
        states[0][threadIdx.x] = real ? lse[at] : 0;
        states[1][threadIdx.x] = real ? row_dots[at] : 0;
      }
      __syncthreads();
      float p[DEEP / 8][4], d[DEEP / 8][4];
      dots<D>(p, k, queries);
      dots<D>(d, v, backs);
#pragma unroll
      for (int i = 0; i < DEEP / 2; i++) {
        const int n = i / 4, e = i % 4, column = 8 * n + 2 * t + e % 2, key = row_of(tile, e / 2);
        const bool seen = first + column < stop && key < tile.end && heads.sees(first + column, key);
        p[n][e] = seen ? exp2_fast((p[n][e] - states[0][column]) * LOG2E) : 0;
        d[n][e] = seen ? p[n][e] * (d[n][e] - states[1][column]) : 0;
      }
      weighted<D>(dv, p, backs);
      weighted<D>(dk, d, queries);
    }
  const float one[2] = {1, 1};
  put<D>(d_qkv + (heads.heads + kv) * D, heads.row, dk, tile, one);
  put<D>(d_qkv + (heads.heads + heads.kv_heads + kv) * D, heads.row, dv, tile, one);
}

#define HEADS int heads, int kv_heads, int window, int row, float scale
#define GRADIENTS const float *qkv, const Tile *tiles, const float *lse, const float *row_dots, const float *d_o, float *d_qkv, HEADS
#define KERNELS(D)                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(128) attention_train_##D(const float* qkv, const float* sinks, const Tile* tiles, float* o, float* lse, HEADS) { \
    forward<D>(qkv, sinks, tiles, o, lse, {heads, kv_heads, window, row, scale});                                                      \
  }                                                                                                                                    \
  KERNEL(attention_train_##D)                                                                                                          \
  extern "C" __global__ void __launch_bounds__(128) attention_queries_##D(GRADIENTS) {                                                 \
    query_gradients<D>(qkv, tiles, lse, row_dots, d_o, d_qkv, {heads, kv_heads, window, row, scale});                                  \
  }                                                                                                                                    \
  KERNEL(attention_queries_##D)                                                                                                        \
  extern "C" __global__ void __launch_bounds__(128) attention_keys_##D(GRADIENTS) {                                                    \
    key_gradients<D>(qkv, tiles, lse, row_dots, d_o, d_qkv, {heads, kv_heads, window, row, scale});                                    \
  }                                                                                                                                    \
  KERNEL(attention_keys_##D)
KERNELS(16)
KERNELS(32)
KERNELS(64)
