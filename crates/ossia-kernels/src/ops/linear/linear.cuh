// Where outputs of a dense product go. Included after common.cuh.
#pragma once

struct Plain {
  const float* bias;
  float* y;
  int rows, add;

  // Rows g and g + 8 of a tile for one token; those that are not there are nullptr. What is known before other kernels have
  // ended, and what is there afterwards.
  struct Place { float *at[2], bias[2], before[2]; };
  __device__ inline Place known(int tile, int g, int token) const {
    Place place;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int row = 16 * tile + g + 8 * i;
      place.at[i] = row < rows ? y + (u64)token * rows + row : nullptr;
      place.bias[i] = bias && row < rows ? bias[row] : 0;
    }
    return place;
  }
  __device__ inline void arrive(Place& place) const {
#pragma unroll
    for (int i = 0; i < 2; i++) place.before[i] = add && place.at[i] ? *place.at[i] : 0;
  }
  __device__ inline void put(float a, float b, const Place& place) const {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float value = i == 0 ? a : b;
      if (bias) value += place.bias[i];
      if (place.at[i]) *place.at[i] = add ? place.before[i] + value : value;
    }
  }
  __device__ inline Place place(int tile, int g, int token) const {
    Place place = known(tile, g, token);
    arrive(place);
    return place;
  }
  __device__ inline void two(float a, float b, int tile, int g, int token) const { put(a, b, place(tile, g, token)); }
};
