//! A few tokens with sixteen rows, straight from the weights, AVX-512 with VNNI: nothing is written down first, so what a
//! group takes is the instructions of its unpacking and of each token's products.
//!
//! Rows come side by side, four elements of each in a lane, and `dpbusd` adds four products of an unsigned and a signed
//! byte to each lane without saturating:
//! * MXFP4 codes are looked up as value + 12, and the lanes begin at -12 times the sum of the activations.
//! * Q8 meets 16-bit activations x = 256 high + low as two planes of bytes: low bytes are unsigned, and for the high ones
//!   weights are made unsigned by adding 128, which -128 times the sum of the high bytes takes off again.

use std::arch::x86_64::*;

use super::TILE;
use super::along_avx512::exponents_of_four;
use super::int8_avx512::{code_table, codes_of, power_of_two, scales};
use super::int16_avx512::widened;
use super::quantize::{Int8Rows, Int16Rows};
use super::rows_avx512::{Scales, Span, words_of_sixteen};
use crate::matrix::Matrix;
use crate::mxfp4::GROUP;

/// Up to so many tokens with MXFP4; with more, unpacking them first costs less.
pub const MOST_CODES: usize = 12;

/// Up to so many tokens with Q8.
pub const MOST_BYTES: usize = 8;

/// Computes an expression with as many tokens as there are, an array of their number; the lists of names say how many that
/// may be.
macro_rules! by_number {
    (|$tokens:ident| $call:expr, $([$($name:ident)*])*) => {
        match *$tokens {
            $([$($name),*] => {
                let $tokens = [$($name),*];
                $call
            })*
            _ => unreachable!("a few tokens"),
        }
    };
}

/// Up to [`MOST_BYTES`], and up to [`MOST_CODES`].
macro_rules! up_to {
    (8, $($call:tt)*) => {
        by_number!($($call)*, [a] [a b] [a b c] [a b c d] [a b c d e] [a b c d e f] [a b c d e f g] [a b c d e f g h])
    };
    (12, $($call:tt)*) => {
        by_number!($($call)*, [a] [a b] [a b c] [a b c d] [a b c d e] [a b c d e f] [a b c d e f g] [a b c d e f g h]
            [a b c d e f g h i] [a b c d e f g h i j] [a b c d e f g h i j k] [a b c d e f g h i j k l])
    };
}

/// MXFP4: out[i] = the sixteen rows from `row` on times token i.
///
/// # Safety
/// AVX-512 (F, BW, DQ, VL) with VNNI, AVX2, FMA and F16C are present; there are one to [`MOST_CODES`] tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn codes(m: &Matrix, row: usize, x: &Int8Rows, tokens: &[u32], out: &mut [[f32; TILE]]) {
    let rows = Span::new(m, row);
    // SAFETY: a Matrix holds all its groups, the token's rows hold as many.
    unsafe { up_to!(12, |tokens| codes_plain(&rows, m.groups(), x, out, tokens)) }
}

/// The same with VBMI, whose lookups need no masks.
///
/// # Safety
/// As for `codes`, and VBMI is present.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
pub unsafe fn codes_vbmi(m: &Matrix, row: usize, x: &Int8Rows, tokens: &[u32], out: &mut [[f32; TILE]]) {
    let rows = Span::new(m, row);
    // SAFETY: a Matrix holds all its groups, the token's rows hold as many.
    unsafe { up_to!(12, |tokens| codes_wide(&rows, m.groups(), x, out, tokens)) }
}

/// Q8: out[i] = the sixteen rows from `row` on times token i.
///
/// # Safety
/// As for `codes`, and there are one to [`MOST_BYTES`] tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn bytes(m: &Matrix, row: usize, x: &Int16Rows, tokens: &[u32], out: &mut [[f32; TILE]]) {
    let rows = Span::new(m, row);
    // SAFETY: a Matrix holds all its groups, the token's rows hold as many.
    unsafe { up_to!(8, |tokens| bytes_of(&rows, m.groups(), x, out, tokens)) }
}

/// # Safety
/// As for [`codes`]; `groups` groups lie at every row and in the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn codes_plain<const N: usize>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    out: &mut [[f32; TILE]],
    tokens: [u32; N],
) {
    let (table, mask) = (code_table(), _mm512_set1_epi8(15));
    let look_up = move |word| _mm512_shuffle_epi8(table, _mm512_and_si512(word, mask));
    // SAFETY: promised by the caller; a byte is a scale.
    unsafe {
        let mut exponents = Scales::<u8>::new(rows, groups);
        let scale = move |g| scales(_mm_loadu_si128(exponents.of(rows, groups, g).as_ptr().cast()));
        codes_by(rows, groups, x, out, tokens, look_up, scale)
    }
}

/// # Safety
/// As for [`codes_vbmi`]; `groups` groups lie at every row and in the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
unsafe fn codes_wide<const N: usize>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    out: &mut [[f32; TILE]],
    tokens: [u32; N],
) {
    // Sixteen values four times over: a byte's two highest bits say nothing, the next two choose among equals.
    let table = code_table();
    let look_up = move |word| _mm512_permutexvar_epi8(word, table);
    // SAFETY: promised by the caller.
    unsafe {
        let mut four = [_mm512_setzero_si512(); 4];
        let scale = move |g: usize| {
            if g.is_multiple_of(4) {
                four = exponents_of_four(rows, g, groups);
            }
            power_of_two(four[g % 4])
        };
        codes_by(rows, groups, x, out, tokens, look_up, scale)
    }
}

/// `look_up` takes codes in the low halves of bytes; `scale` gives the scales of one group after the other.
///
/// # Safety
/// As for [`codes`]; `groups` groups lie at every row and in the activations.
#[inline(always)]
unsafe fn codes_by<const N: usize>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    out: &mut [[f32; TILE]],
    tokens: [u32; N],
    look_up: impl Fn(__m512i) -> __m512i,
    mut scale: impl FnMut(usize) -> __m512,
) {
    let q = tokens.map(|t| x.values(t as usize).as_ptr().cast::<i32>());
    let d = tokens.map(|t| x.scales(t as usize).as_ptr());
    let s = tokens.map(|t| x.offsets(t as usize).as_ptr());
    // SAFETY: group g of every row and of every token.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); N];
        for g in 0..groups {
            rows.prefetch_near::<5>(g);
            let codes = codes_of(rows, g, &look_up);
            // Codes are doubled values. Scales are powers of two, so halving here or later is the same.
            let scale = _mm512_mul_ps(scale(g), _mm512_set1_ps(0.5));
            let mut sums = [_mm512_setzero_si512(); N];
            for n in 0..N {
                sums[n] = _mm512_set1_epi32(*s[n].add(g));
            }
            for quad in 0..8 {
                for n in 0..N {
                    let x = _mm512_set1_epi32(q[n].add(8 * g + quad).read_unaligned());
                    sums[n] = _mm512_dpbusd_epi32(sums[n], codes[quad], x);
                }
            }
            for n in 0..N {
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(*d[n].add(g)));
                acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[n]), scale, acc[n]);
            }
        }
        acc.iter().zip(out).for_each(|(acc, out)| _mm512_storeu_ps(out.as_mut_ptr(), *acc));
    }
}

/// # Safety
/// As for [`bytes`]; `groups` groups lie at every row and in the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn bytes_of<const N: usize>(
    rows: &Span,
    groups: usize,
    x: &Int16Rows,
    out: &mut [[f32; TILE]],
    tokens: [u32; N],
) {
    let q = tokens.map(|t| x.planes(t as usize).as_ptr().cast::<i32>());
    let d = tokens.map(|t| x.scales(t as usize).as_ptr());
    let s = tokens.map(|t| x.offsets(t as usize).as_ptr());
    let sign = _mm512_set1_epi8(-128);
    let mut acc = [_mm512_setzero_ps(); N];
    // SAFETY: promised by the caller; two bytes are a scale.
    let mut halves = unsafe { Scales::<[u8; 2]>::new(rows, groups) };
    for g in 0..groups {
        rows.prefetch_near::<9>(g);
        // SAFETY: group g of every row and of every token.
        unsafe {
            let scale = widened(halves.of(rows, groups, g));
            let from = rows.elements.add(g * rows.group);
            let parts = [words_of_sixteen(from, rows.row), words_of_sixteen(from.add(GROUP / 2), rows.row)];
            let unsigned = parts.map(|words| words.map(|word| _mm512_xor_si512(word, sign)));
            for n in 0..N {
                let x =
                    |plane: usize, quad: usize| _mm512_set1_epi32(q[n].add(16 * g + 8 * plane + quad).read_unaligned());
                let (mut low, mut high) = (_mm512_setzero_si512(), _mm512_set1_epi32(*s[n].add(g)));
                for quad in 0..8 {
                    low = _mm512_dpbusd_epi32(low, x(0, quad), parts[quad / 4][quad % 4]);
                    high = _mm512_dpbusd_epi32(high, unsigned[quad / 4][quad % 4], x(1, quad));
                }
                let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(low, _mm512_slli_epi32::<8>(high)));
                acc[n] = _mm512_fmadd_ps(sum, _mm512_mul_ps(scale, _mm512_set1_ps(*d[n].add(g))), acc[n]);
            }
        }
    }
    for (acc, out) in acc.iter().zip(out) {
        // SAFETY: sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *acc) };
    }
}
