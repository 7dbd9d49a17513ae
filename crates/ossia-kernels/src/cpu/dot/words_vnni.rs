//! A group of weights times up to six vectors of activations, AVX-VNNI: as in `words_avx2`, but a word of four unsigned bytes of
//! weights is multiplied and added in one instruction, in 32 bits, so that MXFP4 and Q8 are the same.

use std::arch::asm;
use std::arch::x86_64::*;

use super::span::Span;
use super::words_avx2::{BLOCK, Codes, Format, LANES, SCALES, VECTOR, dwords, unit};
use crate::mxfp4::GROUP;

/// MXFP4: codes are value + 12.
pub struct VnniCodes;

/// Q8: bytes, to which 128 is added.
pub struct VnniBytes;

impl Format for VnniCodes {
    const WORDS: usize = 8;
    const OFFSETS: bool = true;
    const AT_ONCE: usize = 2;
    const MOST_VECTORS: usize = 6;

    #[inline(always)]
    unsafe fn unpack(rows: &Span, elements: *const u8, scales: *const u8, num: usize, words: *mut u8, bits: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe { Codes::unpack(rows, elements, scales, num, words, bits) }
    }

    #[inline(always)]
    unsafe fn unpack_eight(rows: &Span, row: usize, first: usize, num: usize, words: *mut u8, bits: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe { Codes::unpack_eight(rows, row, first, num, words, bits) }
    }

    #[inline(always)]
    unsafe fn scales(bits: __m128i) -> __m256 {
        // SAFETY: promised by the caller.
        unsafe { Codes::scales(bits) }
    }

    #[inline(always)]
    unsafe fn add_groups<const V: usize, const ROWS: bool>(
        words: *const u8,
        scales: *const f32,
        num: usize,
        tokens: *const u8,
        sums: (*mut f32, usize),
    ) {
        // SAFETY: promised by the caller.
        unsafe { add_groups::<V, ROWS>(words, scales, num, tokens, sums) }
    }
}

impl Format for VnniBytes {
    const WORDS: usize = 8;
    const OFFSETS: bool = true;
    const AT_ONCE: usize = 2;
    const MOST_VECTORS: usize = 6;

    #[inline(always)]
    unsafe fn unpack(rows: &Span, elements: *const u8, scales: *const u8, num: usize, words: *mut u8, bits: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe {
            for g in 0..num {
                let bytes = _mm256_loadu_si256(elements.add(g * rows.group).cast());
                _mm256_storeu_si256(words.add(g * GROUP).cast(), unsigned(bytes));
                bits.add(g).write(scales.add(g * rows.scale_group()).cast::<u16>().read_unaligned());
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack_eight(rows: &Span, row: usize, first: usize, num: usize, words: *mut u8, bits: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe {
            for g in 0..num {
                let words = words.add(g * 8 * VECTOR).cast::<__m256i>();
                for half in 0..2 {
                    let p = rows.element(row, first + g).add(16 * half);
                    for (k, bytes) in dwords(p, rows.row).into_iter().enumerate() {
                        _mm256_storeu_si256(words.add(4 * half + k), unsigned(bytes));
                    }
                }
                for r in 0..LANES {
                    bits.add(g * LANES + r).write(rows.scale(row + r, first + g).cast::<u16>().read_unaligned());
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn scales(bits: __m128i) -> __m256 {
        // SAFETY: promised by the caller.
        unsafe { _mm256_cvtph_ps(bits) }
    }

    #[inline(always)]
    unsafe fn add_groups<const V: usize, const ROWS: bool>(
        words: *const u8,
        scales: *const f32,
        num: usize,
        tokens: *const u8,
        sums: (*mut f32, usize),
    ) {
        // SAFETY: promised by the caller.
        unsafe { add_groups::<V, ROWS>(words, scales, num, tokens, sums) }
    }
}

/// 128 more than signed bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub fn unsigned(bytes: __m256i) -> __m256i {
    _mm256_xor_si256(bytes, _mm256_set1_epi8(-128))
}

/// A word of two rows of weights times the same word of some vectors of tokens, added to their sums.
///
/// These are instructions since the compiler would change their order and need more registers than there are.
macro_rules! word {
    ($load:literal $size:literal, $word:literal, $words:ident, $tokens:ident, $sums:ident, ($($a:ident $b:ident $v:literal)+)) => {
        asm!(
            concat!($load, "{word_a}, ", $size, " ptr [{words_a} + {word_at}]"),
            concat!($load, "{word_b}, ", $size, " ptr [{words_b} + {word_at}]"),
            $(
                concat!("vmovdqu {vector}, ymmword ptr [{tokens} + {tokens_at} + 32 * ", $v, "]"),
                concat!("{{vex}} vpdpbusd {", stringify!($a), "}, {word_a}, {vector}"),
                concat!("{{vex}} vpdpbusd {", stringify!($b), "}, {word_b}, {vector}"),
            )+
            words_a = in(reg) $words[0],
            words_b = in(reg) $words[1],
            tokens = in(reg) $tokens,
            word_at = const if ROWS { VECTOR } else { 4 } * $word,
            tokens_at = const VECTOR * $word * [$($v),+].len(),
            $($a = inout(ymm_reg) $sums[0][$v], $b = inout(ymm_reg) $sums[1][$v],)+
            word_a = out(ymm_reg) _,
            word_b = out(ymm_reg) _,
            vector = out(ymm_reg) _,
            options(readonly, nostack, preserves_flags)
        )
    };
}

/// All words of a group.
macro_rules! words {
    ($words:ident, $tokens:ident, $sums:ident, $vectors:tt) => {
        if ROWS {
            words!("vmovdqu " "ymmword", $words, $tokens, $sums, $vectors, 0 1 2 3 4 5 6 7)
        } else {
            words!("vpbroadcastd " "dword", $words, $tokens, $sums, $vectors, 0 1 2 3 4 5 6 7)
        }
    };
    ($load:literal $size:literal, $words:ident, $tokens:ident, $sums:ident, $vectors:tt, $($word:literal)+) => {{
        $(word!($load $size, $word, $words, $tokens, $sums, $vectors);)+
    }};
}

/// See [`Format::add_groups`]. Two rows (or eights of rows) share what is read of the tokens: with one, reading takes longer
/// than multiplying.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_groups<const V: usize, const ROWS: bool>(
    words: *const u8,
    scales: *const f32,
    num: usize,
    tokens: *const u8,
    (sums, size): (*mut f32, usize),
) {
    // SAFETY: promised by the caller.
    unsafe {
        for g in 0..num {
            let words = [0, 1].map(|row| words.add((row * BLOCK + g) * unit(ROWS) * GROUP));
            let tokens = tokens.add(g * V * VnniCodes::GROUP_BYTES);
            let products = products::<V, ROWS>(words, tokens);
            for row in 0..2 {
                let scale = scales.add(row * unit(ROWS) * SCALES + g * unit(ROWS));
                let scale = if ROWS { _mm256_loadu_ps(scale) } else { _mm256_set1_ps(*scale) };
                for v in 0..V {
                    let place = sums.add(row * size + v * LANES);
                    let scale = _mm256_mul_ps(scale, _mm256_loadu_ps(tokens.add((9 * V + v) * VECTOR).cast()));
                    let sum = _mm256_cvtepi32_ps(products[row][v]);
                    _mm256_storeu_ps(place, _mm256_fmadd_ps(sum, scale, _mm256_loadu_ps(place)));
                }
            }
        }
    }
}

/// A group of two rows, or of two eights of rows, times V vectors of tokens.
///
/// # Safety
/// AVX2 and AVX-VNNI are present; the words and tokens can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn products<const V: usize, const ROWS: bool>(words: [*const u8; 2], tokens: *const u8) -> [[__m256i; V]; 2] {
    // SAFETY: promised by the caller.
    unsafe {
        // Sums begin at their offsets.
        let mut sums = [[_mm256_setzero_si256(); V]; 2];
        for v in 0..V {
            sums[0][v] = _mm256_loadu_si256(tokens.add((8 * V + v) * VECTOR).cast());
            sums[1][v] = sums[0][v];
        }
        match V {
            1 => words!(words, tokens, sums, (a b 0)),
            2 => words!(words, tokens, sums, (a b 0 c d 1)),
            3 => words!(words, tokens, sums, (a b 0 c d 1 e f 2)),
            4 => words!(words, tokens, sums, (a b 0 c d 1 e f 2 g h 3)),
            5 => words!(words, tokens, sums, (a b 0 c d 1 e f 2 g h 3 i j 4)),
            _ => words!(words, tokens, sums, (a b 0 c d 1 e f 2 g h 3 i j 4 k l 5)),
        }
        sums
    }
}
