//! Sixteen rows on Zen 4, which computes 512 bits in two halves: groups of weights for the kernels of `few_avx512`.
//!
//! What it does per clock, as measured (vectors of 512 bits): one product (of floats, words or bytes), one permutation of
//! bytes or insertion of a half, one addition of floats or shift, one and a half unpackings, two additions of integers, one
//! load, and products share nothing with additions. So rows are put into halves before these are joined, and scales,
//! which need no vectors, are gathered a few groups before they are wanted. Decoding is bound by how many instructions a
//! group takes: distances that a file's format fixes are constants here, and serve elements and scales alike.

use std::arch::x86_64::*;

use super::TILE;
use super::few_avx512::Groups;
use super::int8_avx512::{apart, code_table, scales};
use super::int16_avx512::widened;
use super::rows_avx512::{Addresses, Span, addresses, words_of};
use crate::mxfp4::GROUP;

/// Bytes of a group of MXFP4 and of Q8, without its scale.
const CODES: usize = GROUP / 2;
const BYTES: usize = GROUP;

/// Groups between the gathering of their scales and their use: time for small writes to become one read.
const SCALES_AHEAD: usize = 4;

/// The scales' bits of some groups of sixteen rows. BETWEEN: they lie before their groups, which are SIZE bytes with them.
struct Scales<T, const SIZE: usize, const BETWEEN: bool>([[T; TILE]; 2 * SCALES_AHEAD]);

impl<T: Copy + Default, const SIZE: usize, const BETWEEN: bool> Scales<T, SIZE, BETWEEN> {
    /// # Safety
    /// The rows hold `groups` groups, whose scales are numbers of T's size.
    #[inline(always)]
    unsafe fn new(rows: &Span, groups: usize) -> Self {
        let mut scales = Self([[T::default(); TILE]; 2 * SCALES_AHEAD]);
        for g in 0..SCALES_AHEAD.min(groups) {
            // SAFETY: promised by the caller.
            unsafe { rows.scales_of(g, &mut scales.0[g]) };
        }
        scales
    }

    /// Those of group `g`, which follows the one before and lies at `at`.
    ///
    /// # Safety
    /// As for `new`.
    #[inline(always)]
    unsafe fn of(&mut self, rows: &Span, groups: usize, g: usize, at: &Addresses) -> &[T; TILE] {
        let next = g + SCALES_AHEAD;
        if next < groups {
            let out = &mut self.0[next % (2 * SCALES_AHEAD)];
            // SAFETY: promised by the caller.
            unsafe {
                if BETWEEN {
                    for r in 0..TILE {
                        let p = at[r % 4][r / 4].wrapping_add(SCALES_AHEAD * SIZE - size_of::<T>());
                        out[r] = p.cast::<T>().read_unaligned();
                    }
                } else {
                    rows.scales_of(next, out);
                }
            }
        }
        &self.0[g % (2 * SCALES_AHEAD)]
    }
}

/// MXFP4: codes. BETWEEN: a group's scale lies before it.
pub struct Codes<'a, const BETWEEN: bool> {
    rows: &'a Span,
    groups: usize,
    table: __m512i,
    exponents: Scales<u8, { CODES + 1 }, BETWEEN>,
}

impl<'a, const BETWEEN: bool> Codes<'a, BETWEEN> {
    /// # Safety
    /// `groups` groups lie at every row, AVX-512 (F, BW) is present.
    #[inline(always)]
    pub unsafe fn new(rows: &'a Span, groups: usize) -> Self {
        // SAFETY: promised by the caller; a byte is a scale.
        unsafe {
            let (table, exponents) = (code_table(), Scales::new(rows, groups));
            Self { rows, groups, table, exponents }
        }
    }
}

impl<const BETWEEN: bool> Groups for Codes<'_, BETWEEN> {
    #[inline(always)]
    unsafe fn next(&mut self, g: usize) -> ([__m512i; 8], __m512) {
        // SAFETY: promised by the caller.
        unsafe {
            let at = if BETWEEN {
                // Rows of this form leave no gap between them.
                let next = self.rows.elements.wrapping_add(TILE * (self.rows.row + g * (CODES + 1)));
                for line in (0..TILE * (CODES + 1)).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line).cast());
                }
                addresses(self.rows.elements.add(g * (CODES + 1)), self.rows.row)
            } else {
                self.rows.prefetch_next::<4>(g);
                addresses(self.rows.elements.add(g * CODES), self.rows.row)
            };
            let mut codes = apart(words_of::<true>(&at, 0));
            for codes in &mut codes {
                *codes = _mm512_permutexvar_epi8(*codes, self.table);
            }
            let exponents = self.exponents.of(self.rows, self.groups, g, &at);
            (codes, scales(_mm_loadu_si128(exponents.as_ptr().cast())))
        }
    }
}

/// Q8: elements. BETWEEN: a group's scale lies before it.
pub struct Bytes<'a, const BETWEEN: bool> {
    rows: &'a Span,
    groups: usize,
    scales: Scales<[u8; 2], { BYTES + 2 }, BETWEEN>,
}

impl<'a, const BETWEEN: bool> Bytes<'a, BETWEEN> {
    /// # Safety
    /// `groups` groups lie at every row.
    #[inline(always)]
    pub unsafe fn new(rows: &'a Span, groups: usize) -> Self {
        // SAFETY: promised by the caller; two bytes are a scale.
        let scales = unsafe { Scales::new(rows, groups) };
        Self { rows, groups, scales }
    }
}

impl<const BETWEEN: bool> Groups for Bytes<'_, BETWEEN> {
    #[inline(always)]
    unsafe fn next(&mut self, g: usize) -> ([__m512i; 8], __m512) {
        // SAFETY: promised by the caller.
        unsafe {
            // Rows of Q8 leave no gap between them.
            let size = if BETWEEN { BYTES + 2 } else { BYTES };
            let next = self.rows.elements.wrapping_add(TILE * (self.rows.row + g * size));
            for line in (0..TILE * size).step_by(64) {
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line).cast());
            }
            let at = addresses(self.rows.elements.add(g * size), self.rows.row);
            let [a, b, c, d] = words_of::<true>(&at, 0);
            let [e, f, g_, h] = words_of::<true>(&at, CODES);
            let scales = self.scales.of(self.rows, self.groups, g, &at);
            ([a, b, c, d, e, f, g_, h], widened(scales))
        }
    }
}
