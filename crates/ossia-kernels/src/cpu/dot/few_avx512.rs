//! A few tokens with sixteen rows, straight from the weights, AVX-512 with VNNI: nothing is written down first, so what a
//! group takes is the instructions of its unpacking and of each token's products.
//!
//! Rows come side by side, four elements of each in a lane, and `dpbusd` adds four products of an unsigned and a signed
//! byte to each lane without saturating. MXFP4 codes are looked up as value + 12, and to Q8's bytes 128 is added by flipping a bit;
//! the lanes begin at -12 or -128 times the sum of the activations, which takes that off again.

use std::arch::x86_64::*;

use super::along_avx512::exponents_of_four;
use super::halves_avx512;
use super::int8_avx512::{apart, code_table, power_of_two, scales, widened};
use super::quantize::{Int8Rows, Weights};
use super::rows_avx512::{TOKENS, words_of_sixteen};
use super::span::{Scales, Span, by_number};
use super::{Panel, TILE};
use crate::cpu::isa::{Processor, processor};
use crate::mxfp4::GROUP;

/// Up to so many tokens; with more, what the first of them bring side by side is kept for the others.
pub const MOST: usize = TOKENS;

/// Which of several ways to the same bits is fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Without VBMI, whose lookups need no masks.
    Plain,
    /// With VBMI.
    Wide,
    /// With VBMI, halves of vectors filled before they are joined, and scales gathered well before they are wanted.
    Halves,
}

impl Way {
    /// This machine's.
    pub fn best() -> Self {
        match (is_x86_feature_detected!("avx512vbmi"), processor()) {
            (false, _) => Way::Plain,
            (true, Processor::Zen5) => Way::Wide,
            (true, _) => Way::Halves,
        }
    }
}

/// What is done with a group's codes, and their scales, after their use.
trait Keep {
    /// # Safety
    /// AVX-512 is present.
    unsafe fn keep(&mut self, group: usize, codes: &[__m512i; 8], scales: __m512);
}

/// Nothing is.
struct Nothing;

impl Keep for Nothing {
    #[inline(always)]
    unsafe fn keep(&mut self, _: usize, _: &[__m512i; 8], _: __m512) {}
}

/// They go into a panel, and the lowest and highest scales are known in the end, as bits.
struct IntoPanel {
    codes: *mut u8,
    scales: *mut f32,
    lowest: __m512i,
    highest: __m512i,
}

impl IntoPanel {
    #[target_feature(enable = "avx512f")]
    fn new(panel: &mut Panel, groups: usize) -> Self {
        assert!(panel.codes.len() >= 512 * groups && panel.scales.len() >= TILE * groups);
        let (codes, scales) = (panel.codes.as_mut_ptr(), panel.scales.as_mut_ptr());
        Self { codes, scales, lowest: _mm512_set1_epi32(i32::MAX), highest: _mm512_set1_epi32(0) }
    }
}

impl Keep for IntoPanel {
    #[inline(always)]
    unsafe fn keep(&mut self, group: usize, codes: &[__m512i; 8], scales: __m512) {
        // SAFETY: the panel has room for all groups, see `new`.
        unsafe {
            for (quad, codes) in codes.iter().enumerate() {
                _mm512_storeu_si512(self.codes.add(64 * (8 * group + quad)).cast(), *codes);
            }
            _mm512_storeu_ps(self.scales.add(TILE * group), scales);
            let bits = _mm512_castps_si512(scales);
            self.lowest = _mm512_min_epi32(self.lowest, bits);
            self.highest = _mm512_max_epi32(self.highest, bits);
        }
    }
}

/// out[i] = sixteen rows times token i.
///
/// # Safety
/// AVX-512 (F, BW, DQ, VL) with VNNI, AVX2, FMA and F16C are present, and what the way needs; there are one to [`MOST`] tokens;
/// `groups` groups of the weights that the activations are for lie at every row and in the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn tile(way: Way, rows: &Span, groups: usize, x: &Int8Rows, tokens: &[u32], out: &mut [[f32; TILE]]) {
    // SAFETY: promised by the caller.
    unsafe { tile_by(way, rows, groups, x, tokens, out, &mut Nothing) }
}

/// The same, and the panel is filled for other tokens. Gives the bits of the lowest and of the highest scale.
///
/// # Safety
/// As for [`tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn tile_kept(
    way: Way,
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    tokens: &[u32],
    panel: &mut Panel,
    out: &mut [[f32; TILE]],
) -> (i32, i32) {
    let mut keep = IntoPanel::new(panel, groups);
    // SAFETY: promised by the caller.
    unsafe { tile_by(way, rows, groups, x, tokens, out, &mut keep) };
    (_mm512_reduce_min_epi32(keep.lowest), _mm512_reduce_max_epi32(keep.highest))
}

/// # Safety
/// As for [`tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn tile_by(
    way: Way,
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    tokens: &[u32],
    out: &mut [[f32; TILE]],
    keep: &mut impl Keep,
) {
    let how = (rows.scales_between(), rows.in_quarters());
    // SAFETY: promised by the caller.
    unsafe {
        match (x.weights(), way, how) {
            (Weights::Codes(_), Way::Plain, _) => by_number!(|tokens| codes_plain(rows, groups, x, out, tokens, keep)),
            (Weights::Codes(_), Way::Wide, _) => by_number!(|tokens| codes_wide(rows, groups, x, out, tokens, keep)),
            (Weights::Codes(_), Way::Halves, (true, true)) => {
                by_number!(|tokens| codes_halves::<true, true, _>(rows, groups, x, out, tokens, keep))
            }
            (Weights::Codes(_), Way::Halves, (true, false)) => {
                by_number!(|tokens| codes_halves::<true, false, _>(rows, groups, x, out, tokens, keep))
            }
            (Weights::Codes(_), Way::Halves, (false, true)) => {
                by_number!(|tokens| codes_halves::<false, true, _>(rows, groups, x, out, tokens, keep))
            }
            (Weights::Codes(_), Way::Halves, (false, false)) => {
                by_number!(|tokens| codes_halves::<false, false, _>(rows, groups, x, out, tokens, keep))
            }
            (Weights::Bytes, Way::Plain | Way::Wide, _) => {
                by_number!(|tokens| bytes_wide(rows, groups, x, out, tokens, keep))
            }
            (Weights::Bytes, Way::Halves, (_, true)) => {
                by_number!(|tokens| bytes_halves::<true, _>(rows, groups, x, out, tokens, keep))
            }
            (Weights::Bytes, Way::Halves, (_, false)) => {
                by_number!(|tokens| bytes_halves::<false, _>(rows, groups, x, out, tokens, keep))
            }
        }
    }
}

/// # Safety
/// As for [`tile`]; `groups` groups lie at every row and in the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn codes_plain<const N: usize>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    out: &mut [[f32; TILE]],
    tokens: [u32; N],
    keep: &mut impl Keep,
) {
    // SAFETY: promised by the caller; a byte is a scale.
    unsafe {
        let mut from = Plain { rows, groups, table: code_table(), exponents: Scales::new() };
        products(&mut from, groups, x, out, tokens, keep);
    }
}

/// # Safety
/// As for [`tile`] with VBMI; `groups` groups lie at every row and in the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
unsafe fn codes_wide<const N: usize>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    out: &mut [[f32; TILE]],
    tokens: [u32; N],
    keep: &mut impl Keep,
) {
    // SAFETY: promised by the caller.
    unsafe {
        let mut from = Wide { rows, groups, table: code_table(), four: [_mm512_setzero_si512(); 4] };
        products(&mut from, groups, x, out, tokens, keep);
    }
}

/// # Safety
/// As for [`tile`] with VBMI; `groups` groups lie at every row and in the activations; BETWEEN is what the rows say.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
unsafe fn codes_halves<const BETWEEN: bool, const QUARTERS: bool, const N: usize>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    out: &mut [[f32; TILE]],
    tokens: [u32; N],
    keep: &mut impl Keep,
) {
    // SAFETY: promised by the caller; a byte is a scale.
    unsafe {
        products(
            &mut halves_avx512::Codes::<BETWEEN, QUARTERS>::new(rows, groups, code_table()),
            groups,
            x,
            out,
            tokens,
            keep,
        );
    }
}

/// Sixteen rows, of which one group after the other is brought side by side, four elements of each row in a lane.
pub trait Groups {
    /// To be called before the first group, at the place where this stays.
    ///
    /// # Safety
    /// As for [`tile`]; the groups lie at every row.
    unsafe fn begin(&mut self);

    /// Codes or bytes, and scales. Asks for memory that is needed later.
    ///
    /// # Safety
    /// As for [`tile`]; group g lies at every row and follows the one before.
    unsafe fn next(&mut self, g: usize) -> ([__m512i; 8], __m512);
}

/// Without VBMI.
struct Plain<'a> {
    rows: &'a Span,
    groups: usize,
    table: __m512i,
    exponents: Scales<u8>,
}

impl Groups for Plain<'_> {
    #[inline(always)]
    unsafe fn begin(&mut self) {
        // SAFETY: promised by the caller; a byte is a scale.
        unsafe { self.exponents.begin(self.rows, self.groups) }
    }

    #[inline(always)]
    unsafe fn next(&mut self, g: usize) -> ([__m512i; 8], __m512) {
        // SAFETY: promised by the caller.
        unsafe {
            self.rows.prefetch_next(g, GROUP / 2, 1);
            let mut codes = apart(words_of_sixteen(self.rows.elements.add(g * self.rows.group), self.rows.row));
            for codes in &mut codes {
                *codes = _mm512_shuffle_epi8(self.table, _mm512_and_si512(*codes, _mm512_set1_epi8(15)));
            }
            (codes, scales(_mm_loadu_si128(self.exponents.of(self.rows, self.groups, g).as_ptr().cast())))
        }
    }
}

/// With VBMI, where a table holds its sixteen values four times over: a byte's two highest bits say nothing, the next two choose
/// among equals.
struct Wide<'a> {
    rows: &'a Span,
    groups: usize,
    table: __m512i,
    four: [__m512i; 4],
}

impl Groups for Wide<'_> {
    #[inline(always)]
    unsafe fn begin(&mut self) {}

    #[inline(always)]
    unsafe fn next(&mut self, g: usize) -> ([__m512i; 8], __m512) {
        // SAFETY: promised by the caller.
        unsafe {
            self.rows.prefetch_next(g, GROUP / 2, 1);
            let mut codes = apart(words_of_sixteen(self.rows.elements.add(g * self.rows.group), self.rows.row));
            for codes in &mut codes {
                *codes = _mm512_permutexvar_epi8(*codes, self.table);
            }
            if g.is_multiple_of(4) {
                self.four = exponents_of_four(self.rows, g, self.groups);
            }
            (codes, power_of_two(self.four[g % 4]))
        }
    }
}

/// 128 more than signed bytes, without a sign.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
pub unsafe fn flipped(mut bytes: [__m512i; 8]) -> [__m512i; 8] {
    for bytes in &mut bytes {
        // SAFETY: promised by the caller.
        *bytes = unsafe { _mm512_xor_si512(*bytes, _mm512_set1_epi8(-128)) };
    }
    bytes
}

/// Q8.
struct Elements<'a> {
    rows: &'a Span,
    groups: usize,
    scales: Scales<[u8; 2]>,
}

impl Groups for Elements<'_> {
    #[inline(always)]
    unsafe fn begin(&mut self) {
        // SAFETY: promised by the caller; two bytes are a scale.
        unsafe { self.scales.begin(self.rows, self.groups) }
    }

    #[inline(always)]
    unsafe fn next(&mut self, g: usize) -> ([__m512i; 8], __m512) {
        // SAFETY: promised by the caller.
        unsafe {
            self.rows.prefetch_next(g, GROUP, 2);
            let from = self.rows.elements.add(g * self.rows.group);
            let [a, b, c, d] = words_of_sixteen(from, self.rows.row);
            let [e, f, g_, h] = words_of_sixteen(from.add(GROUP / 2), self.rows.row);
            (flipped([a, b, c, d, e, f, g_, h]), widened(self.scales.of(self.rows, self.groups, g)))
        }
    }
}

/// # Safety
/// As for [`tile`]; `groups` groups lie at every row and in the activations.
#[inline(always)]
unsafe fn products<const N: usize>(
    from: &mut impl Groups,
    groups: usize,
    x: &Int8Rows,
    out: &mut [[f32; TILE]],
    tokens: [u32; N],
    keep: &mut impl Keep,
) {
    let q = tokens.map(|t| x.values(t as usize).as_ptr().cast::<i32>());
    let d = tokens.map(|t| x.scales(t as usize).as_ptr());
    let s = tokens.map(|t| x.offsets(t as usize).as_ptr());
    // SAFETY: group g of every row and of every token.
    unsafe {
        let mut acc = [_mm512_setzero_ps(); N];
        from.begin();
        for g in 0..groups {
            let (codes, scale) = from.next(g);
            keep.keep(g, &codes, scale);
            // A single token's sums would wait for each other: there are two of them.
            let mut sums = [[_mm512_setzero_si512(); 2]; N];
            for n in 0..N {
                sums[n][0] = _mm512_set1_epi32(*s[n].add(g));
            }
            for quad in 0..8 {
                for n in 0..N {
                    let x = _mm512_set1_epi32(q[n].add(8 * g + quad).read_unaligned());
                    let sum = &mut sums[n][if N == 1 { quad % 2 } else { 0 }];
                    *sum = _mm512_dpbusd_epi32(*sum, codes[quad], x);
                }
            }
            for n in 0..N {
                let sum = if N == 1 { _mm512_add_epi32(sums[n][0], sums[n][1]) } else { sums[n][0] };
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps(*d[n].add(g)));
                acc[n] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, acc[n]);
            }
        }
        acc.iter().zip(out).for_each(|(acc, out)| _mm512_storeu_ps(out.as_mut_ptr(), *acc));
    }
}

/// # Safety
/// As for [`tile`]; `groups` groups lie at every row and in the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn bytes_wide<const N: usize>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    out: &mut [[f32; TILE]],
    tokens: [u32; N],
    keep: &mut impl Keep,
) {
    // SAFETY: promised by the caller; two bytes are a scale.
    unsafe { products(&mut Elements { rows, groups, scales: Scales::new() }, groups, x, out, tokens, keep) }
}

/// # Safety
/// As for [`tile`]; `groups` groups lie at every row and in the activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn bytes_halves<const QUARTERS: bool, const N: usize>(
    rows: &Span,
    groups: usize,
    x: &Int8Rows,
    out: &mut [[f32; TILE]],
    tokens: [u32; N],
    keep: &mut impl Keep,
) {
    // SAFETY: promised by the caller.
    unsafe { products(&mut halves_avx512::Bytes::<QUARTERS, true>::new(rows, groups), groups, x, out, tokens, keep) }
}
