//! A group of weights times up to eight vectors of activations, AVX-VNNI: as in `words_avx2`, but a word of four unsigned bytes of
//! weights is multiplied and added in one instruction, in 32 bits, so that MXFP4 and Q8 are the same.

use std::arch::asm;
use std::arch::x86_64::*;

use super::span::Span;
use super::words_avx2::{Codes, Format, LANES, VECTOR, dwords, word, words};
use crate::mxfp4::GROUP;

/// MXFP4: codes are value + 12.
pub struct VnniCodes;

/// Q8: bytes, to which 128 is added.
pub struct VnniBytes;

impl Format for VnniCodes {
    const WORDS: usize = 8;
    const OFFSETS: bool = true;

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

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const V: usize, const ROWS: bool>(words: *const u8, tokens: *const u8) -> [__m256i; V] {
        // SAFETY: promised by the caller.
        unsafe { sums::<V, ROWS>(words, tokens) }
    }
}

impl Format for VnniBytes {
    const WORDS: usize = 8;
    const OFFSETS: bool = true;

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

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const V: usize, const ROWS: bool>(words: *const u8, tokens: *const u8) -> [__m256i; V] {
        // SAFETY: promised by the caller.
        unsafe { sums::<V, ROWS>(words, tokens) }
    }
}

/// 128 more than signed bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub fn unsigned(bytes: __m256i) -> __m256i {
    _mm256_xor_si256(bytes, _mm256_set1_epi8(-128))
}

/// # Safety
/// As for [`Format::sums`], with AVX-VNNI.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums<const V: usize, const ROWS: bool>(words: *const u8, tokens: *const u8) -> [__m256i; V] {
    // SAFETY: promised by the caller. Sums begin at their offsets.
    unsafe {
        let mut sums: [__m256i; V] = [_mm256_setzero_si256(); V];
        for v in 0..V {
            sums[v] = _mm256_loadu_si256(tokens.add((8 * V + v) * VECTOR).cast());
        }
        words!("{{vex}} vpdpbusd", words, tokens, sums, (1 2 3 4 5 6 7));
        sums
    }
}
