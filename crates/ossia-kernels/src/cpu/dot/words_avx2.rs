//! A group of weights times up to eight vectors of activations, AVX2: the innermost loop of many tokens, as instructions.
//!
//! A word of 32 bits (four bytes, or two numbers of 16 bits) of weights meets the same word of activations in each lane. In
//! [`Side::Tokens`] lanes are tokens, and one row's word is read into all of them; in [`Side::Rows`] lanes are eight rows, and
//! each token's word lies in memory eight times.

use std::arch::asm;
use std::arch::x86_64::*;

use super::few_avx2::{both_halves, code_table, powers_of_two, wide};
use super::span::Span;
use crate::mxfp4::GROUP;

/// Bytes of a vector.
pub const VECTOR: usize = 32;

/// Lanes of a vector.
pub const LANES: usize = 8;

/// What lies in the lanes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Tokens,
    Rows,
}

/// Weights and activations that meet.
pub trait Format {
    /// Words of 32 bits of a group of weights, unpacked.
    const WORDS: usize;
    /// Whether a group of tokens has its offsets behind its values.
    const OFFSETS: bool;
    /// Bytes of a group of eight tokens: values, offsets, scales.
    const GROUP_BYTES: usize = VECTOR * (Self::WORDS + Self::OFFSETS as usize + 1);

    /// Writes some groups of a row as words, and the bits of their scales.
    ///
    /// # Safety
    /// AVX2 is present; the groups lie at `elements` and `scales`, at the distances of `rows`; there is room for a block.
    unsafe fn unpack(rows: &Span, elements: *const u8, scales: *const u8, num: usize, words: *mut u8, bits: *mut u16);

    /// The same for eight rows from `row` on, groups from `first` on: words of eight rows side by side, bits of eight rows too.
    ///
    /// # Safety
    /// AVX2 is present; the rows hold the groups; there is room for a block.
    unsafe fn unpack_eight(rows: &Span, row: usize, first: usize, num: usize, words: *mut u8, bits: *mut u16);

    /// Eight scales.
    ///
    /// # Safety
    /// AVX2 and F16C are present.
    unsafe fn scales(bits: __m128i) -> __m256;

    /// A group of a row, or with ROWS of eight, times V vectors of tokens.
    ///
    /// # Safety
    /// AVX2 is present; the group's words lie at `words`, its tokens at `tokens`.
    unsafe fn sums<const V: usize, const ROWS: bool>(words: *const u8, tokens: *const u8) -> [__m256i; V];
}

/// A word of weights times the same word of some vectors of tokens, added to the vectors' sums; the first word's products begin
/// them, except where an instruction multiplies and adds.
///
/// These are instructions since the compiler would keep more products at once than there are registers: half as fast.
macro_rules! word {
    (first $load:literal $mul:literal, $words:ident, $tokens:ident, $sums:ident, $($acc:ident $v:literal)+) => {
        asm!(
            concat!($load, " ptr [{words}]"),
            $(concat!($mul, " {", stringify!($acc), "}, {word}, ymmword ptr [{tokens} + 32 * ", $v, "]"),)+
            words = in(reg) $words,
            tokens = in(reg) $tokens,
            $($acc = out(ymm_reg) $sums[$v],)+
            word = out(ymm_reg) _,
            options(readonly, nostack, preserves_flags)
        )
    };
    ($word:literal $load:literal $size:literal $mul:literal, $words:ident, $tokens:ident, $sums:ident, $($acc:ident $v:literal)+) => {
        asm!(
            concat!($load, " ptr [{words} + {word_at}]"),
            $(concat!($mul, " {", stringify!($acc), "}, {word}, ymmword ptr [{tokens} + {tokens_at} + 32 * ", $v, "]"),)+
            words = in(reg) $words,
            tokens = in(reg) $tokens,
            word_at = const $size * $word,
            tokens_at = const VECTOR * $word * [$($v),+].len(),
            $($acc = inout(ymm_reg) $sums[$v],)+
            word = out(ymm_reg) _,
            options(readonly, nostack, preserves_flags)
        )
    };
    ($word:literal $load:literal $size:literal $mul:literal $add:literal, $words:ident, $tokens:ident, $sums:ident, $($acc:ident $v:literal)+) => {
        asm!(
            concat!($load, " ptr [{words} + {word_at}]"),
            $(
                concat!($mul, " {product}, {word}, ymmword ptr [{tokens} + {tokens_at} + 32 * ", $v, "]"),
                concat!($add, " {", stringify!($acc), "}, {", stringify!($acc), "}, {product}"),
            )+
            words = in(reg) $words,
            tokens = in(reg) $tokens,
            word_at = const $size * $word,
            tokens_at = const VECTOR * $word * [$($v),+].len(),
            $($acc = inout(ymm_reg) $sums[$v],)+
            word = out(ymm_reg) _,
            product = out(ymm_reg) _,
            options(readonly, nostack, preserves_flags)
        )
    };
}

/// Some words one after the other, for V vectors; how they are read, multiplied and added is in `$how`.
macro_rules! words {
    ($($mul_add:literal)+, $words:ident, $tokens:ident, $sums:ident, $numbers:tt) => {
        if ROWS {
            words!(any ("vmovdqu {word}, ymmword" 32 $($mul_add)+), $words, $tokens, $sums, $numbers)
        } else {
            words!(any ("vpbroadcastd {word}, dword" 4 $($mul_add)+), $words, $tokens, $sums, $numbers)
        }
    };
    (any $how:tt, $words:ident, $tokens:ident, $sums:ident, $numbers:tt) => {
        match V {
            1 => words!(of $how, $words, $tokens, $sums, $numbers, (a 0)),
            2 => words!(of $how, $words, $tokens, $sums, $numbers, (a 0 b 1)),
            3 => words!(of $how, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2)),
            4 => words!(of $how, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2 d 3)),
            5 => words!(of $how, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2 d 3 e 4)),
            6 => words!(of $how, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2 d 3 e 4 f 5)),
            7 => words!(of $how, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2 d 3 e 4 f 5 g 6)),
            _ => words!(of $how, $words, $tokens, $sums, $numbers, (a 0 b 1 c 2 d 3 e 4 f 5 g 6 h 7)),
        }
    };
    (of $how:tt, $words:ident, $tokens:ident, $sums:ident, ($($word:literal)+), $vectors:tt) => {{
        words!(first $how, $words, $tokens, $sums, $vectors);
        $(words!(next $word $how, $words, $tokens, $sums, $vectors);)+
    }};
    (first ($load:literal $size:literal $mul:literal $add:literal), $words:ident, $tokens:ident, $sums:ident, ($($vectors:tt)+)) => {
        word!(first $load $mul, $words, $tokens, $sums, $($vectors)+)
    };
    (first ($load:literal $size:literal $mul_and_add:literal), $words:ident, $tokens:ident, $sums:ident, ($($vectors:tt)+)) => {
        word!(0 $load $size $mul_and_add, $words, $tokens, $sums, $($vectors)+)
    };
    (next $word:literal ($($how:literal)+), $words:ident, $tokens:ident, $sums:ident, ($($vectors:tt)+)) => {
        word!($word $($how)+, $words, $tokens, $sums, $($vectors)+)
    };
}

pub(super) use {word, words};

/// MXFP4 with 8-bit activations: codes are value + 12, sums of sixteen products stay in 16 bits.
pub struct Codes;

impl Format for Codes {
    const WORDS: usize = 8;
    const OFFSETS: bool = true;

    #[inline(always)]
    unsafe fn unpack(rows: &Span, elements: *const u8, scales: *const u8, num: usize, words: *mut u8, bits: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe {
            let (table, mask) = (code_table(), _mm256_set1_epi8(15));
            let shifts = _mm256_setr_epi64x(0, 0, 4, 4);
            for g in 0..num {
                let nibbles = _mm256_srlv_epi64(both_halves(elements.add(g * rows.group)), shifts);
                let codes = _mm256_shuffle_epi8(table, _mm256_and_si256(nibbles, mask));
                _mm256_storeu_si256(words.add(g * GROUP).cast(), codes);
                bits.add(g).write(u16::from(*scales.add(g * rows.scale_group())));
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack_eight(rows: &Span, row: usize, first: usize, num: usize, words: *mut u8, bits: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe {
            let (table, mask) = (code_table(), _mm256_set1_epi8(15));
            for g in 0..num {
                let words = words.add(g * 8 * VECTOR).cast::<__m256i>();
                for (k, nibbles) in dwords(rows.element(row, first + g), rows.row).into_iter().enumerate() {
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(nibbles), mask);
                    _mm256_storeu_si256(words.add(k), _mm256_shuffle_epi8(table, _mm256_and_si256(nibbles, mask)));
                    _mm256_storeu_si256(words.add(k + 4), _mm256_shuffle_epi8(table, high));
                }
                for r in 0..LANES {
                    bits.add(g * LANES + r).write(u16::from(*rows.scale(row + r, first + g)));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn scales(bits: __m128i) -> __m256 {
        // SAFETY: promised by the caller.
        unsafe { powers_of_two(_mm256_cvtepu16_epi32(bits)) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const V: usize, const ROWS: bool>(words: *const u8, tokens: *const u8) -> [__m256i; V] {
        // SAFETY: promised by the caller. Sums with their offsets stay in 16 bits; without them they wrap around and come back.
        unsafe {
            let mut sums: [__m256i; V] = [_mm256_setzero_si256(); V];
            words!("vpmaddubsw" "vpaddw", words, tokens, sums, (1 2 3 4 5 6 7));
            let offset = |v: usize| _mm256_loadu_si256(tokens.add((Self::WORDS * V + v) * VECTOR).cast());
            let ones = _mm256_set1_epi16(1);
            std::array::from_fn(|v| _mm256_madd_epi16(_mm256_add_epi16(sums[v], offset(v)), ones))
        }
    }
}

/// Q8, weights and activations widened to 16 bits.
pub struct Bytes;

impl Format for Bytes {
    const WORDS: usize = 16;
    const OFFSETS: bool = false;

    #[inline(always)]
    unsafe fn unpack(rows: &Span, elements: *const u8, scales: *const u8, num: usize, words: *mut u8, bits: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe {
            for g in 0..num {
                let p = elements.add(g * rows.group);
                _mm256_storeu_si256(words.add(2 * g * GROUP).cast(), wide(p));
                _mm256_storeu_si256(words.add((2 * g + 1) * GROUP).cast(), wide(p.add(16)));
                bits.add(g).write(scales.add(g * rows.scale_group()).cast::<u16>().read_unaligned());
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack_eight(rows: &Span, row: usize, first: usize, num: usize, words: *mut u8, bits: *mut u16) {
        // SAFETY: promised by the caller.
        unsafe {
            for g in 0..num {
                let words = words.add(g * 16 * VECTOR).cast::<__m256i>();
                for half in 0..2 {
                    let p = rows.element(row, first + g).add(16 * half);
                    for (k, bytes) in dwords(p, rows.row).into_iter().enumerate() {
                        let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes));
                        _mm256_storeu_si256(words.add(8 * half + 2 * k), even);
                        _mm256_storeu_si256(words.add(8 * half + 2 * k + 1), _mm256_srai_epi16::<8>(bytes));
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

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const V: usize, const ROWS: bool>(words: *const u8, tokens: *const u8) -> [__m256i; V] {
        // SAFETY: promised by the caller.
        unsafe {
            let mut sums: [__m256i; V] = [_mm256_setzero_si256(); V];
            words!("vpmaddwd" "vpaddd", words, tokens, sums, (1 2 3 4 5 6 7 8 9 10 11 12 13 14 15));
            sums
        }
    }
}

/// Of eight rows, the words of 32 bits of sixteen bytes: word k of all of them at [k].
///
/// # Safety
/// AVX2 is present; sixteen bytes lie at each row, `row` bytes apart.
#[inline(always)]
pub unsafe fn dwords(p: *const u8, row: usize) -> [__m256i; 4] {
    // SAFETY: promised by the caller.
    unsafe {
        let two = |r: usize| _mm256_loadu2_m128i(p.add((r + 4) * row).cast(), p.add(r * row).cast());
        side_by_side([two(0), two(1), two(2), two(3)])
    }
}

/// The same of sixteen bytes each of rows r and r + 4 at [r].
#[inline]
#[target_feature(enable = "avx2")]
pub fn side_by_side([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (low2, high2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(low, high),
        _mm256_unpackhi_epi64(low, high),
        _mm256_unpacklo_epi64(low2, high2),
        _mm256_unpackhi_epi64(low2, high2),
    ]
}
