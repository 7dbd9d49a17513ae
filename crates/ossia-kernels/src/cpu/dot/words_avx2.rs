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

/// Groups of a block.
pub const BLOCK: usize = 6;

/// Places for a block's scales of a row: eight are written at once.
pub const SCALES: usize = BLOCK.next_multiple_of(8);

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
    /// Rows, or eights of them, that meet vectors at once, and how many vectors, at most.
    const AT_ONCE: usize;
    const MOST_VECTORS: usize;
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

    /// sums [V, 8] += `num` groups of a row, or with ROWS of eight, times V vectors of tokens; and so for [`Format::AT_ONCE`] of
    /// them, which have blocks of words and of scales, and `size` sums.
    ///
    /// # Safety
    /// AVX2, FMA and what the format needs are present; so many groups lie at `words`, `scales` and `tokens`.
    unsafe fn add_groups<const V: usize, const ROWS: bool>(
        words: *const u8,
        scales: *const f32,
        num: usize,
        tokens: *const u8,
        sums: (*mut f32, usize),
    );
}

/// What has its products apart from their additions.
trait Sums: Format {
    /// A group of a row, or with ROWS of eight, times V vectors of tokens.
    ///
    /// # Safety
    /// AVX2 is present; the group's words lie at `words`, its tokens at `tokens`.
    unsafe fn sums<const V: usize, const ROWS: bool>(words: *const u8, tokens: *const u8) -> [__m256i; V];
}

/// Rows that meet vectors at once.
pub const fn unit(rows_in_lanes: bool) -> usize {
    if rows_in_lanes { LANES } else { 1 }
}

/// Of so many vectors the sums stay in registers while a block's groups are added.
const IN_REGISTERS: usize = 6;

/// See [`Format::add_groups`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_groups<F: Sums, const V: usize, const ROWS: bool>(
    words: *const u8,
    scales: *const f32,
    num: usize,
    tokens: *const u8,
    (sums, _): (*mut f32, usize),
) {
    // SAFETY: promised by the caller.
    unsafe {
        let place = |v: usize| sums.add(v * LANES);
        let load = || std::array::from_fn(|v| _mm256_loadu_ps(place(v)));
        let store = |acc: [__m256; V]| (0..V).for_each(|v| _mm256_storeu_ps(place(v), acc[v]));
        let mut acc: [__m256; V] = load();
        for g in 0..num {
            let tokens = tokens.add(g * V * F::GROUP_BYTES);
            let products = F::sums::<V, ROWS>(words.add(g * unit(ROWS) * 4 * F::WORDS), tokens);
            let scale = if ROWS { _mm256_loadu_ps(scales.add(g * LANES)) } else { _mm256_set1_ps(*scales.add(g)) };
            let token_scales = tokens.add((F::GROUP_BYTES / VECTOR - 1) * V * VECTOR).cast::<f32>();
            if V > IN_REGISTERS {
                acc = load();
            }
            for v in 0..V {
                let scale = _mm256_mul_ps(scale, _mm256_loadu_ps(token_scales.add(v * LANES)));
                acc[v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[v]), scale, acc[v]);
            }
            if V > IN_REGISTERS {
                store(acc);
            }
        }
        store(acc);
    }
}

/// A word of weights times the same word of some vectors of tokens, added to the vectors' sums; the first word's products begin
/// them.
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

/// Some words one after the other, for V vectors; how they are read is in `$how`.
macro_rules! words {
    ($mul:literal $add:literal, $words:ident, $tokens:ident, $sums:ident, $numbers:tt) => {
        if ROWS {
            words!(any ("vmovdqu {word}, ymmword" 32 $mul $add), $words, $tokens, $sums, $numbers)
        } else {
            words!(any ("vpbroadcastd {word}, dword" 4 $mul $add), $words, $tokens, $sums, $numbers)
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
    (next $word:literal ($($how:literal)+), $words:ident, $tokens:ident, $sums:ident, ($($vectors:tt)+)) => {
        word!($word $($how)+, $words, $tokens, $sums, $($vectors)+)
    };
}

/// MXFP4 with 8-bit activations: codes are value + 12, sums of sixteen products stay in 16 bits.
pub struct Codes;

impl Format for Codes {
    const WORDS: usize = 8;
    const OFFSETS: bool = true;
    const AT_ONCE: usize = 1;
    const MOST_VECTORS: usize = 8;

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
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add_groups<const V: usize, const ROWS: bool>(
        words: *const u8,
        scales: *const f32,
        num: usize,
        tokens: *const u8,
        sums: (*mut f32, usize),
    ) {
        // SAFETY: promised by the caller.
        unsafe { add_groups::<Self, V, ROWS>(words, scales, num, tokens, sums) }
    }
}

impl Sums for Codes {
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
    const AT_ONCE: usize = 1;
    const MOST_VECTORS: usize = 8;

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
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add_groups<const V: usize, const ROWS: bool>(
        words: *const u8,
        scales: *const f32,
        num: usize,
        tokens: *const u8,
        sums: (*mut f32, usize),
    ) {
        // SAFETY: promised by the caller.
        unsafe { add_groups::<Self, V, ROWS>(words, scales, num, tokens, sums) }
    }
}

impl Sums for Bytes {
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
