// Rows of a weight as its file has them, on their way into the order of the kernels (pack.rs).
#pragma once
#include "common.cuh"

// Where a row lies: its first group of 32, and that one's scale; nothing where it is missing. Kinds are those of
// pack.rs. Elements of floats lie at multiples of their size.
struct Row {
  const unsigned char *elements, *scales;
  u32 kind, group_stride, scale_stride, unused;
};
enum { F32, F16, BF16, Q8, PAIRS, HALVES };

__device__ inline u16 read_u16(const unsigned char* at) { return *(const u16*)at; }

// A column's code of MXFP4.
__device__ inline u32 code_of(const Row& row, int col) {
  const unsigned char* at = row.elements + (u64)(col / 32) * row.group_stride;
  int i = col % 32;
  u32 byte = row.kind == PAIRS ? at[i / 2] : at[i % 16];
  return (row.kind == PAIRS ? i % 2 : i / 16) ? byte >> 4 : byte & 15;
}

// The scale of a group of MXFP4.
__device__ inline u32 scale_of(const Row& row, int group) { return row.scales[(u64)group * row.scale_stride]; }

// A column's value, exactly; of a row that is missing it is 0.
__device__ inline float value_of(const Row& row, int col) {
  if (!row.elements) return 0;
  const unsigned char* at = row.elements + (u64)(col / 32) * row.group_stride;
  int i = col % 32;
  switch (row.kind) {
    case F32: return ((const float*)at)[i];
    case F16: return float_of_half(read_u16(at + 2 * i));
    case BF16: return float_of_bf16(read_u16(at + 2 * i));
    case Q8: return (float)(signed char)at[i] * float_of_half(read_u16(row.scales + (u64)(col / 32) * row.scale_stride));
  }
  // Twice the code's value is a small integer.
  u32 code = code_of(row, col), m = code & 7, scale = scale_of(row, col / 32);
  int doubled = m < 4 ? m : (2 + m % 2) << (m / 2 - 1);
  return 0.5f * (float)(code & 8 ? -doubled : doubled) * __uint_as_float(scale ? scale << 23 : 0x00400000u);
}

// Columns `col` and the next as bf16.
__device__ inline u32 pair_of(const Row& row, int col) { return bf16_pair(value_of(row, col), value_of(row, col + 1)); }
