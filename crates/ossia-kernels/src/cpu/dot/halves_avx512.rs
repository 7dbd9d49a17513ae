//! Sixteen rows, group by group, for the kernels of `few_avx512` and `amx`: halves of vectors are filled before they are joined,
//! and scales, which need no vectors, are gathered a few groups before they are wanted.
//!
//! Laid out for Zen 4, which computes 512 bits in two halves and does per clock, as measured (vectors of 512 bits): one product
//! (of floats, words or bytes), one permutation of bytes or insertion of a half, one addition of floats or shift, one and a half
//! unpackings, two additions of integers, one load, and products share nothing with additions. On Granite Rapids
//! it is twice as fast in cache as the way whose scales go through vectors. Decoding is bound by how many instructions
//! a group takes: distances that a file's format fixes are constants here, and serve elements and scales alike.

use std::arch::x86_64::*;

use super::few_avx512::{Groups, flipped};
use super::int8_avx512::{apart, scales, widened};
use super::rows_avx512::words_of;
use super::span::{Scales, Span, addresses};
use crate::mxfp4::GROUP;

/// Bytes of a group of MXFP4 and of Q8, without its scale.
const CODES: usize = GROUP / 2;
const BYTES: usize = GROUP;

/// MXFP4: codes. BETWEEN, QUARTERS: see [`Span::prefetch_known`].
pub struct Codes<'a, const BETWEEN: bool, const QUARTERS: bool> {
    rows: &'a Span,
    groups: usize,
    table: __m512i,
    exponents: Scales<u8>,
}

impl<'a, const BETWEEN: bool, const QUARTERS: bool> Codes<'a, BETWEEN, QUARTERS> {
    /// Rows of `groups` groups.
    #[inline(always)]
    pub fn new(rows: &'a Span, groups: usize, table: __m512i) -> Self {
        Self { rows, groups, table, exponents: Scales::new() }
    }
}

impl<const BETWEEN: bool, const QUARTERS: bool> Groups for Codes<'_, BETWEEN, QUARTERS> {
    #[inline(always)]
    unsafe fn begin(&mut self) {
        // SAFETY: promised by the caller; a byte is a scale.
        unsafe { self.exponents.begin(self.rows, self.groups) }
    }

    #[inline(always)]
    unsafe fn next(&mut self, g: usize) -> ([__m512i; 8], __m512) {
        self.rows.prefetch_known::<BETWEEN, QUARTERS>(g, CODES, 1);
        let size = if BETWEEN { CODES + 1 } else { CODES };
        let at = addresses(self.rows.elements.wrapping_add(g * size), self.rows.row);
        // SAFETY: promised by the caller.
        unsafe {
            let mut codes = apart(words_of::<true>(&at, 0));
            for codes in &mut codes {
                *codes = _mm512_permutexvar_epi8(*codes, self.table);
            }
            let exponents = if BETWEEN {
                self.exponents.of_between::<{ CODES + 1 }>(self.groups, g, &at)
            } else {
                self.exponents.of(self.rows, self.groups, g)
            };
            (codes, scales(_mm_loadu_si128(exponents.as_ptr().cast())))
        }
    }
}

/// Q8: elements. A group's scale lies before it. QUARTERS: see [`Span::prefetch_known`]; UNSIGNED: 128 is added.
pub struct Bytes<'a, const QUARTERS: bool, const UNSIGNED: bool> {
    rows: &'a Span,
    groups: usize,
    scales: Scales<[u8; 2]>,
}

impl<'a, const QUARTERS: bool, const UNSIGNED: bool> Bytes<'a, QUARTERS, UNSIGNED> {
    /// Rows of `groups` groups.
    #[inline(always)]
    pub fn new(rows: &'a Span, groups: usize) -> Self {
        Self { rows, groups, scales: Scales::new() }
    }
}

impl<const QUARTERS: bool, const UNSIGNED: bool> Groups for Bytes<'_, QUARTERS, UNSIGNED> {
    #[inline(always)]
    unsafe fn begin(&mut self) {
        // SAFETY: promised by the caller; two bytes are a scale.
        unsafe { self.scales.begin(self.rows, self.groups) }
    }

    #[inline(always)]
    unsafe fn next(&mut self, g: usize) -> ([__m512i; 8], __m512) {
        self.rows.prefetch_known::<true, QUARTERS>(g, BYTES, 2);
        let at = addresses(self.rows.elements.wrapping_add(g * (BYTES + 2)), self.rows.row);
        // SAFETY: promised by the caller.
        unsafe {
            let [a, b, c, d] = words_of::<true>(&at, 0);
            let [e, f, g_, h] = words_of::<true>(&at, CODES);
            let scales = self.scales.of_between::<{ BYTES + 2 }>(self.groups, g, &at);
            let bytes = [a, b, c, d, e, f, g_, h];
            (if UNSIGNED { flipped(bytes) } else { bytes }, widened(scales))
        }
    }
}
