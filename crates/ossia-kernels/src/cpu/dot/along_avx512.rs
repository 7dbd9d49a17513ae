//! One or two tokens with sixteen rows, AVX-512 with VNNI and VBMI: along the rows, four of them and four groups at a time.
//!
//! A row's products with a token are sums over some lanes for each group, and only these sums are brought side by side:
//! less work than bringing weights side by side (`few_avx512`), which pays where more tokens share it. And four rows are read from end to end before the next four, so memory is asked for in the order of its
//! addresses.
//!
//! Vectors stay out of closures here: one that is not inlined has none of the features, and calls a function for every
//! instruction.

use std::arch::x86_64::*;

use super::TILE;
use super::int8_avx512::{code_table, power_of_two};
use super::quantize::{Int8Rows, Weights};
use super::span::{Span, unknown_distance};
use crate::matrix::Matrix;
use crate::mxfp4::GROUP;

/// Up to so many tokens.
pub const MOST: usize = 2;

/// Rows, and groups of each, that are computed together: group k of row r at 4 k + r of a vector.
const QUAD: usize = 4;

/// out[i] = the sixteen rows from `row` on times token i.
///
/// # Safety
/// AVX-512 (F, BW, DQ, VL) with VNNI and VBMI, AVX2, FMA and F16C are present; there are one or two tokens, for
/// weights such as the matrix has.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
pub unsafe fn tile(m: &Matrix, row: usize, x: &Int8Rows, tokens: &[u32], out: &mut [[f32; TILE]]) {
    let rows = Span::new(m, row);
    // SAFETY: a Matrix holds all its groups, the tokens' rows hold as many.
    unsafe {
        match *tokens {
            [a] => of_weights(x.weights(), &rows, m.groups(), Tokens::new(x, [a]), out),
            [a, b] => of_weights(x.weights(), &rows, m.groups(), Tokens::new(x, [a, b]), out),
            _ => unreachable!("one or two tokens"),
        }
    }
}

/// # Safety
/// As for [`tile`]; rows and tokens hold `groups` groups.
#[inline(always)]
unsafe fn of_weights<const T: usize>(
    weights: Weights,
    rows: &Span,
    groups: usize,
    tokens: Tokens<T>,
    out: &mut [[f32; TILE]],
) {
    // SAFETY: promised by the caller.
    unsafe {
        match (weights, rows.scales_between()) {
            (Weights::Codes(_), true) => along(rows, groups, &Codes::<T, true>(tokens), out),
            (Weights::Codes(_), false) => along(rows, groups, &Codes::<T, false>(tokens), out),
            (Weights::Bytes, _) => along(rows, groups, &Bytes(tokens), out),
        }
    }
}

/// T tokens' integers, scales and offsets.
struct Tokens<const T: usize> {
    values: [*const i8; T],
    scales: [*const f32; T],
    offsets: [*const i32; T],
}

impl<const T: usize> Tokens<T> {
    fn new(x: &Int8Rows, tokens: [u32; T]) -> Self {
        Self {
            values: tokens.map(|t| x.values(t as usize).as_ptr()),
            scales: tokens.map(|t| x.scales(t as usize).as_ptr()),
            offsets: tokens.map(|t| x.offsets(t as usize).as_ptr()),
        }
    }

    /// N groups of token t: the first two, and the others.
    ///
    /// # Safety
    /// As for [`tile`]; 32 N bytes can be read.
    #[inline(always)]
    unsafe fn two_and_two<const N: usize>(&self, t: usize, g: usize) -> [__m512i; 2] {
        let q = self.values[t].wrapping_add(g * GROUP);
        // SAFETY: promised by the caller.
        unsafe {
            [
                _mm512_maskz_loadu_epi8(ones(N * GROUP), q),
                _mm512_maskz_loadu_epi8(ones((N * GROUP).saturating_sub(64)), q.wrapping_add(64)),
            ]
        }
    }

    /// Rows' sums with each token side by side, and its offsets added.
    ///
    /// # Safety
    /// As for [`tile`]; the tokens hold N groups from `g` on.
    #[inline(always)]
    unsafe fn side_by_side<const N: usize>(&self, sums: [[__m512i; QUAD]; T], g: usize) -> [__m512i; T] {
        // SAFETY: promised by the caller.
        unsafe {
            let mut all = [_mm512_setzero_si512(); T];
            for t in 0..T {
                all[t] = side_by_side(sums[t], _mm_maskz_loadu_epi32(ones(N) as u8, self.offsets[t].add(g)));
            }
            all
        }
    }
}

/// A format's rows with T tokens.
trait Products<const T: usize> {
    /// Lines of memory that [`QUAD`] groups of [`QUAD`] rows take.
    const LINES: usize;
    /// How many rows further on memory is asked for: 12 KB are early enough, and few enough that not much is asked for in vain
    /// where a thread's rows end.
    const AHEAD: usize;

    /// Four rows from `row` on, N groups from `g` on: the scales, and each token's sums.
    ///
    /// # Safety
    /// As for [`tile`]; rows and tokens hold the groups.
    unsafe fn of<const N: usize>(&self, rows: &Span, row: usize, g: usize) -> (__m512, [__m512i; T]);

    /// The tokens.
    fn tokens(&self) -> &Tokens<T>;
}

/// # Safety
/// As for [`tile`]; rows and tokens hold `groups` groups.
#[inline(always)]
unsafe fn along<const T: usize, P: Products<T>>(rows: &Span, groups: usize, products: &P, out: &mut [[f32; TILE]]) {
    // The compiler would unroll four steps, and run out of registers.
    for row in (0..unknown_distance(TILE)).step_by(QUAD) {
        // SAFETY: promised by the caller.
        unsafe {
            let mut acc = [_mm_setzero_ps(); T];
            let mut g = 0;
            while g + QUAD <= groups {
                prefetch::<T, P>(rows, row, g);
                add::<T, QUAD>(rows, row, g, products, &mut acc);
                g += QUAD;
            }
            match groups - g {
                1 => add::<T, 1>(rows, row, g, products, &mut acc),
                2 => add::<T, 2>(rows, row, g, products, &mut acc),
                3 => add::<T, 3>(rows, row, g, products, &mut acc),
                _ => {}
            }
            for t in 0..T {
                _mm_storeu_ps(out[t][row..row + QUAD].as_mut_ptr(), acc[t]);
            }
        }
    }
}

/// Asks for what four groups from `g` on are in the four rows that lie AHEAD of those from `row` on.
#[inline(always)]
fn prefetch<const T: usize, P: Products<T>>(rows: &Span, row: usize, g: usize) {
    let from = rows.elements.wrapping_add((row + P::AHEAD) * rows.row);
    // Rows without a gap are one run of bytes.
    let (from, step) = if rows.dense {
        (from.wrapping_add(QUAD * g * rows.group), 64)
    } else {
        (from.wrapping_add(g * rows.group), rows.row)
    };
    for i in 0..P::LINES {
        rows.prefetch(from.wrapping_add(step * i));
    }
}

/// acc[t][r] += N groups of four rows with token t, one after the other.
///
/// # Safety
/// As for [`Products::of`].
#[inline(always)]
unsafe fn add<const T: usize, const N: usize>(
    rows: &Span,
    row: usize,
    g: usize,
    products: &impl Products<T>,
    acc: &mut [__m128; T],
) {
    // SAFETY: promised by the caller.
    unsafe {
        let (scales, sums) = products.of::<N>(rows, row, g);
        let d = products.tokens().scales;
        for t in 0..T {
            let d = _mm512_zextps128_ps512(_mm_maskz_loadu_ps(ones(N) as u8, d[t].add(g)));
            let scales = _mm512_mul_ps(scales, _mm512_permutexvar_ps(fours(), d));
            let sums = _mm512_cvtepi32_ps(sums[t]);
            let mut a = _mm_fmadd_ps(_mm512_castps512_ps128(sums), _mm512_castps512_ps128(scales), acc[t]);
            if N > 1 {
                a = _mm_fmadd_ps(_mm512_extractf32x4_ps::<1>(sums), _mm512_extractf32x4_ps::<1>(scales), a);
            }
            if N > 2 {
                a = _mm_fmadd_ps(_mm512_extractf32x4_ps::<2>(sums), _mm512_extractf32x4_ps::<2>(scales), a);
            }
            if N > 3 {
                a = _mm_fmadd_ps(_mm512_extractf32x4_ps::<3>(sums), _mm512_extractf32x4_ps::<3>(scales), a);
            }
            acc[t] = a;
        }
    }
}

/// The first lane four times, then the second, ...
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn fours() -> __m512i {
    // SAFETY: promised by the caller.
    unsafe { _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3) }
}

/// A mask of the first n.
const fn ones(n: usize) -> u64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

/// Four rows whose group k has its sums in the lanes 4 k to 4 k + 3, to one vector, and what belongs to the groups added.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn side_by_side(sums: [__m512i; QUAD], offsets: __m128i) -> __m512i {
    // SAFETY: promised by the caller.
    unsafe {
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[0], sums[1]), _mm512_unpackhi_epi32(sums[0], sums[1]));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[2], sums[3]), _mm512_unpackhi_epi32(sums[2], sums[3]));
        let sum = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        _mm512_add_epi32(sum, _mm512_permutexvar_epi32(fours(), _mm512_zextsi128_si512(offsets)))
    }
}

/// MXFP4. BETWEEN: a group's scale is the byte before its codes.
struct Codes<const T: usize, const BETWEEN: bool>(Tokens<T>);

/// Codes of N groups of one row, sixteen bytes each, that lie 17 bytes apart from `p` + 1 on; and the bytes from `p` on.
///
/// # Safety
/// As for [`tile`]; the groups can be read.
#[inline(always)]
unsafe fn codes_between<const N: usize>(p: *const u8) -> (__m512i, __m512i) {
    const AT: [u8; 64] = {
        let mut at = [0; 64];
        let mut i = 0;
        while i < 64 {
            at[i] = (i + i / 16 + 1) as u8 % 64;
            i += 1;
        }
        at
    };
    // SAFETY: promised by the caller.
    unsafe {
        let bytes = _mm512_maskz_loadu_epi8(ones(17 * N), p.cast());
        let codes = _mm512_permutexvar_epi8(_mm512_loadu_si512(AT.as_ptr().cast()), bytes);
        if N < QUAD {
            return (codes, bytes);
        }
        (_mm512_mask_broadcast_i32x4(codes, 0xf000, _mm_loadu_si128(p.add(52).cast())), bytes)
    }
}

/// The exponents of row r too, which are the first of each 17 of `bytes`.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn with_exponents_between(exponents: __m512i, r: usize, bytes: __m512i) -> __m512i {
    // SAFETY: promised by the caller.
    unsafe {
        let at = _mm512_setr_epi32(0, 0, 0, 0, 17, 17, 17, 17, 34, 34, 34, 34, 51, 51, 51, 51);
        _mm512_mask_permutexvar_epi8(exponents, 0x0001_0001_0001_0001 << (4 * r), at, bytes)
    }
}

/// MXFP4's exponents of the sixteen rows, in lanes: those of groups `g` to `g` + 3, as far as there are `groups`.
///
/// # Safety
/// As for [`tile`]; the rows hold `groups` groups, more than `g`.
#[inline(always)]
pub unsafe fn exponents_of_four(rows: &Span, g: usize, groups: usize) -> [__m512i; QUAD] {
    let num = QUAD.min(groups - g);
    // SAFETY: promised by the caller.
    unsafe {
        let mut four = [_mm512_setzero_si512(); QUAD];
        for b in 0..QUAD {
            if rows.scales_between() {
                let wanted = if num == QUAD { u64::MAX } else { ones(17 * num) };
                for r in 0..QUAD {
                    let p = rows.elements.add((QUAD * b + r) * rows.row + g * rows.group).sub(1);
                    four[b] = with_exponents_between(four[b], r, _mm512_maskz_loadu_epi8(wanted, p.cast()));
                }
            } else {
                let bytes = rows.four_scales::<u8>(QUAD * b, g, num);
                four[b] = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
            }
        }
        // Lane k of each holds four rows of group g + k.
        let [a, b, c, d] = four;
        let (ab, cd) = (_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d));
        let (ef, gh) = (_mm512_shuffle_i32x4::<0b11_01_11_01>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d));
        [
            _mm512_shuffle_i32x4::<0b10_00_10_00>(ab, cd),
            _mm512_shuffle_i32x4::<0b10_00_10_00>(ef, gh),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(ab, cd),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(ef, gh),
        ]
    }
}

impl<const T: usize, const BETWEEN: bool> Products<T> for Codes<T, BETWEEN> {
    const LINES: usize = 5;
    const AHEAD: usize = 8;

    #[inline(always)]
    unsafe fn of<const N: usize>(&self, rows: &Span, row: usize, g: usize) -> (__m512, [__m512i; T]) {
        // SAFETY: promised by the caller.
        unsafe {
            let table = code_table();
            let mut x = [(_mm512_setzero_si512(), _mm512_setzero_si512()); T];
            for t in 0..T {
                let [a, b] = self.0.two_and_two::<N>(t, g);
                // Sixteen bytes in turn: what meets low halves of bytes, and what meets high ones.
                x[t] = (_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b));
            }
            let mut sums = [[_mm512_setzero_si512(); QUAD]; T];
            let mut exponents = _mm512_setzero_si512();
            for r in 0..QUAD {
                let p = rows.elements.add((row + r) * rows.row + g * rows.group);
                let codes;
                if BETWEEN {
                    let bytes;
                    (codes, bytes) = codes_between::<N>(p.sub(1));
                    exponents = with_exponents_between(exponents, r, bytes);
                } else {
                    codes = _mm512_maskz_loadu_epi8(ones(16 * N), p.cast());
                }
                let low = _mm512_permutexvar_epi8(codes, table);
                let high = _mm512_permutexvar_epi8(_mm512_srli_epi16::<4>(codes), table);
                for t in 0..T {
                    let sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), low, x[t].0);
                    sums[t][r] = _mm512_dpbusd_epi32(sum, high, x[t].1);
                }
            }
            if !BETWEEN {
                exponents = _mm512_cvtepu8_epi32(_mm_loadu_si128(rows.four_scales::<u8>(row, g, N).as_ptr().cast()));
            }
            (power_of_two(exponents), self.0.side_by_side::<N>(sums, g))
        }
    }

    fn tokens(&self) -> &Tokens<T> {
        &self.0
    }
}

/// Q8.
struct Bytes<const T: usize>(Tokens<T>);

/// N groups of a row, 32 bytes each, two in a vector.
///
/// # Safety
/// As for [`tile`]; the groups can be read.
#[inline(always)]
unsafe fn two_and_two<const N: usize>(p: *const u8, group: usize) -> [__m512i; 2] {
    // SAFETY: promised by the caller.
    unsafe {
        let mut groups = [_mm256_setzero_si256(); QUAD];
        for k in 0..N {
            groups[k] = _mm256_loadu_si256(p.add(k * group).cast());
        }
        let [a, b, c, d] = groups;
        [_mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b), _mm512_inserti64x4::<1>(_mm512_castsi256_si512(c), d)]
    }
}

impl<const T: usize> Products<T> for Bytes<T> {
    const LINES: usize = 9;
    const AHEAD: usize = 4;

    #[inline(always)]
    unsafe fn of<const N: usize>(&self, rows: &Span, row: usize, g: usize) -> (__m512, [__m512i; T]) {
        // SAFETY: promised by the caller.
        unsafe {
            let mut x = [[_mm512_setzero_si512(); 2]; T];
            for t in 0..T {
                x[t] = self.0.two_and_two::<N>(t, g);
            }
            let mut sums = [[_mm512_setzero_si512(); QUAD]; T];
            for r in 0..QUAD {
                let p = rows.elements.add((row + r) * rows.row + g * rows.group);
                let bytes = two_and_two::<N>(p, rows.group);
                for t in 0..T {
                    let mut two = [_mm512_setzero_si512(); 2];
                    for half in 0..2 {
                        let unsigned = _mm512_xor_si512(bytes[half], _mm512_set1_epi8(-128));
                        two[half] = _mm512_dpbusd_epi32(two[half], unsigned, x[t][half]);
                    }
                    let [a, b] = two;
                    // Eight lanes of each group to four.
                    sums[t][r] = _mm512_add_epi32(
                        _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
                        _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
                    );
                }
            }
            let scales = _mm256_loadu_si256(rows.four_scales::<u16>(row, g, N).as_ptr().cast());
            (_mm512_cvtph_ps(scales), self.0.side_by_side::<N>(sums, g))
        }
    }

    fn tokens(&self) -> &Tokens<T> {
        &self.0
    }
}
