//! Activations to integers: one scale for each group of 32, symmetric, nearest with ties to even.
//!
//! d = max|x| / 127, q = round(x * (127 / max|x|)). A group that holds an infinity or not-a-number gets a scale of
//! not-a-number, so that a fault stays visible; one whose largest value is below 1e-20 becomes zero. All versions give the
//! same bits.

use crate::arena::{Arena, Slice};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::isa::Isa;
use crate::mxfp4::GROUP;
use crate::{Result, Runtime};

/// Below this, a group counts as zero: its reciprocal would overflow, and its scale times one of MXFP4 would be subnormal.
const TINY: f32 = 1e-20;

/// The order of the 32 values within a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they are.
    Natural,
    /// Even elements, then odd ones: how the nibbles of `Mxfp4Pairs` fall apart.
    EvenOdd,
}

/// What integers are to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// MXFP4's codes, doubled.
    Codes(Order),
    /// Q8's bytes.
    Bytes,
}

impl Weights {
    fn order(self) -> Order {
        match self {
            Weights::Codes(order) => order,
            Weights::Bytes => Order::Natural,
        }
    }

    /// What kernels add to weights to make them unsigned.
    pub const fn offset(self) -> i32 {
        match self {
            Weights::Codes(_) => 12,
            Weights::Bytes => 128,
        }
    }

    /// What the scale is multiplied with: codes are doubled values.
    fn factor(self) -> f32 {
        match self {
            Weights::Codes(_) => 0.5,
            Weights::Bytes => 1.0,
        }
    }
}

/// 8-bit activations of some tokens.
pub struct Int8Rows {
    q: Slice<i8>,
    scales: Slice<f32>,
    offsets: Slice<i32>,
    cols: usize,
    weights: Weights,
}

/// Bytes of scratch for `tokens` rows of `cols`.
pub fn scratch_bytes(tokens: usize, cols: usize) -> usize {
    Arena::size_of::<i8>(tokens * cols) + 2 * Arena::size_of::<f32>(tokens * cols / GROUP)
}

impl Int8Rows {
    /// Quantizes x [tokens, cols].
    pub fn quantize(runtime: &Runtime, x: &[f32], cols: usize, weights: Weights) -> Result<Self> {
        let (tokens, groups) = (x.len() / cols, x.len() / GROUP);
        let arena = &runtime.arena;
        let mut rows =
            Self { q: arena.take(x.len())?, scales: arena.take(groups)?, offsets: arena.take(groups)?, cols, weights };
        let (q, scales) = (Disjoint::new(&mut rows.q), Disjoint::new(&mut rows.scales));
        let offsets = Disjoint::new(&mut rows.offsets);
        let per_row = cols / GROUP;
        runtime.pool.run_ranges(tokens, (1 << 14) / cols + 1, |range, _| {
            let g = range.start * per_row..range.end * per_row;
            let values = range.start * cols..range.end * cols;
            // SAFETY: token ranges of one run do not overlap.
            let (q, d, s) = unsafe { (q.part(values.clone()), scales.part(g.clone()), offsets.part(g)) };
            quantize(runtime.isa, &x[values], weights, q, d, s);
        });
        Ok(rows)
    }

    /// What they are to meet.
    pub fn weights(&self) -> Weights {
        self.weights
    }

    /// A token's integers [cols].
    pub fn values(&self, token: usize) -> &[i8] {
        &self.q[token * self.cols..(token + 1) * self.cols]
    }

    /// A token's scales [cols / 32], halved for codes, whose integers are doubled values.
    pub fn scales(&self, token: usize) -> &[f32] {
        let groups = self.cols / GROUP;
        &self.scales[token * groups..(token + 1) * groups]
    }

    /// -[`Weights::offset`] times the sums of a token's integers, group by group [cols / 32]. With AVX2 and codes two 16-bit numbers
    /// for each, the low one for the integers 0 and 1 of each four, the high one for the others.
    pub fn offsets(&self, token: usize) -> &[i32] {
        let groups = self.cols / GROUP;
        &self.offsets[token * groups..(token + 1) * groups]
    }
}

/// Groups of x [n * 32] to q [n * 32], and what [`Int8Rows::scales`] [n] and [`Int8Rows::offsets`] [n] give.
pub fn quantize(isa: Isa, x: &[f32], weights: Weights, q: &mut [i8], scales: &mut [f32], offsets: &mut [i32]) {
    assert!(x.len() == q.len() && scales.len() * GROUP == x.len() && offsets.len() == scales.len());
    let in_two = isa == Isa::Avx2 && weights != Weights::Bytes;
    let groups = x.chunks_exact(GROUP).zip(q.chunks_exact_mut(GROUP)).zip(scales.iter_mut().zip(offsets));
    for ((x, q), (scale, offset)) in groups {
        let sums: [i16; 2];
        (*scale, sums) = match isa.of_floats() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these are only made where the features were detected; x and q hold 32 elements.
            Isa::Avx2 | Isa::Avx512 => unsafe { group_avx2(x, weights.order(), q) },
            _ => group_scalar(x, weights.order(), q),
        };
        *scale *= weights.factor();
        let [low, high] = sums.map(|sum| -weights.offset() * i32::from(sum));
        *offset = if in_two { low & 0xffff | high << 16 } else { low + high };
    }
}

/// The largest magnitude of a group, or the scale of one that has none to speak of.
#[inline(always)]
fn largest(x: &[f32]) -> std::result::Result<f32, f32> {
    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    if x.iter().any(|v| !v.is_finite()) {
        Err(f32::NAN)
    } else if largest < TINY {
        Err(0.0)
    } else {
        Ok(largest)
    }
}

/// Gives the scale, and the sums of the integers 0 and 1 of each four and of the others.
fn group_scalar(x: &[f32], order: Order, q: &mut [i8]) -> (f32, [i16; 2]) {
    let largest = match largest(x) {
        Ok(largest) => largest,
        Err(scale) => {
            q.fill(0);
            return (scale, [0; 2]);
        }
    };
    let inverse = 127.0 / largest;
    for (i, q) in q.iter_mut().enumerate() {
        let from = if order == Order::Natural { i } else { 2 * (i % 16) + i / 16 };
        *q = (x[from] * inverse).round_ties_even() as i8;
    }
    let sum = |at: usize| q.chunks_exact(4).flat_map(|four| &four[at..at + 2]).map(|&v| i16::from(v)).sum();
    (largest / 127.0, [sum(0), sum(2)])
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn group_avx2(x: &[f32], order: Order, q: &mut [i8]) -> (f32, [i16; 2]) {
    use std::arch::x86_64::*;
    // SAFETY: x holds 32 floats.
    let v: [__m256; 4] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(x.as_ptr().add(8 * i)) });
    let a = v.map(|v| _mm256_andnot_ps(_mm256_set1_ps(-0.0), v));
    let finite = a.map(|a| _mm256_cmp_ps::<_CMP_LT_OQ>(a, _mm256_set1_ps(f32::INFINITY)));
    let finite = _mm256_and_ps(_mm256_and_ps(finite[0], finite[1]), _mm256_and_ps(finite[2], finite[3]));
    let m = _mm256_max_ps(_mm256_max_ps(a[0], a[1]), _mm256_max_ps(a[2], a[3]));
    let m = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps::<1>(m));
    let m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    let largest = _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
    if _mm256_movemask_ps(finite) != 0xff {
        q.fill(0);
        return (f32::NAN, [0; 2]);
    }
    if largest < TINY {
        q.fill(0);
        return (0.0, [0; 2]);
    }
    let inverse = _mm256_set1_ps(127.0 / largest);
    let i = v.map(|v| _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse)));
    // Packing works within halves; the permutation puts the quads back in order.
    let bytes = _mm256_packs_epi16(_mm256_packs_epi32(i[0], i[1]), _mm256_packs_epi32(i[2], i[3]));
    let mut bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    if order == Order::EvenOdd {
        let apart = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
        bytes = _mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(apart));
        bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(bytes);
    }
    // SAFETY: q holds 32 bytes.
    unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), bytes) };
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    let s = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
    let s = _mm_add_epi16(s, _mm_shuffle_epi32::<0b01_00_11_10>(s));
    let s = _mm_cvtsi128_si32(_mm_add_epi16(s, _mm_shuffle_epi32::<0b10_11_00_01>(s)));
    (largest / 127.0, [s as i16, (s >> 16) as i16])
}
