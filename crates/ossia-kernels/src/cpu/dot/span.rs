//! A tile as the integer kernels see it: sixteen rows at even distances, their scales, what is asked for ahead.
//!
//! Decoding is bound by how many instructions a group takes, so rows are addressed from one pointer and two distances
//! (pointers for sixteen rows would not fit into registers), and scales are gathered well before they are used.

use std::arch::x86_64::*;

use super::TILE;
use crate::cpu::isa::{Processor, processor};
use crate::matrix::{Matrix, Plane};

/// Sixteen rows of a matrix, as addresses: the first, and distances.
#[derive(Clone, Copy)]
pub struct Span {
    pub elements: *const u8,
    /// Bytes from row to row.
    pub row: usize,
    /// Bytes from group to group.
    pub group: usize,
    /// Whether rows follow each other without a gap.
    pub dense: bool,
    /// What is asked for ahead, a tile's bytes in one run: the next tile, or of two matrices whose rows lie in turn the half of both
    /// next tiles.
    next: *const u8,
    /// Bytes of a quarter of it.
    quarter: usize,
    /// The same for scales that lie elsewhere, and the bytes of all of them.
    next_scales: *const u8,
    all_scales: usize,
    scales: *const u8,
    scale_row: usize,
    scale_group: usize,
    processor: Processor,
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Groups between the gathering of their scales and their use: time for small writes to become one read.
const SCALES_AHEAD: usize = 8;

impl Span {
    /// The rows from `row` on.
    pub fn new(m: &Matrix, row: usize) -> Self {
        Self::of_tiles(m, row, 1)
    }

    /// The same of some tiles: as many rows, after which as many are asked for.
    pub fn of_tiles(m: &Matrix, row: usize, tiles: usize) -> Self {
        let num = tiles * TILE;
        assert!(row + num <= m.rows());
        // The distance between rows of the file, of which a matrix may have every other.
        let apart = |plane: &Plane| plane.row_stride() / if m.half().is_some() { 2 } else { 1 };
        let half = m.half().unwrap_or(0);
        let next = |plane: &Plane| {
            let pair = plane.at(row, 0).as_ptr().wrapping_sub(half * apart(plane));
            pair.wrapping_add(num * (plane.row_stride() + half * apart(plane)))
        };
        Self {
            elements: m.elements().at(row, 0).as_ptr(),
            row: m.elements().row_stride(),
            group: m.elements().group_stride(),
            dense: m.groups() * m.elements().group_stride() == m.elements().row_stride(),
            next: next(m.elements()),
            quarter: num / 4 * apart(m.elements()),
            next_scales: next(m.scales()),
            all_scales: num * apart(m.scales()),
            scales: m.scales().at(row, 0).as_ptr(),
            scale_row: m.scales().row_stride(),
            scale_group: m.scales().group_stride(),
            processor: processor(),
        }
    }

    /// Asks for group `g`'s share of the next tile, into the second cache: a group has `elements` bytes and a scale of `scale`,
    /// which lies between them or elsewhere. Both are constants where this is called.
    #[inline(always)]
    pub fn prefetch_next(&self, g: usize, elements: usize, scale: usize) {
        let size = TILE * if self.scales_between() { elements + scale } else { elements };
        match self.processor {
            Processor::Intel => self.prefetch_quarters(g, size),
            Processor::Zen4 => self.prefetch_twice(g, size),
            Processor::Zen5 => prefetch_lines(self.next.wrapping_add(g * size), size),
        }
        if !self.scales_between() && self.processor != Processor::Zen5 {
            self.prefetch_scales(g);
        }
    }

    /// The same where the answers are known, which are BETWEEN: whether scales lie between the groups; and QUARTERS: whether this is
    /// Intel's processor, or the kernel AVX2's, else it is Zen 4. A group takes so few instructions that finding out costs a twentieth
    /// of them.
    #[inline(always)]
    pub fn prefetch_known<const BETWEEN: bool, const QUARTERS: bool>(&self, g: usize, elements: usize, scale: usize) {
        let size = TILE * if BETWEEN { elements + scale } else { elements };
        if QUARTERS {
            self.prefetch_quarters(g, size);
        } else {
            self.prefetch_twice(g, size);
        }
        if !BETWEEN {
            self.prefetch_scales(g);
        }
    }

    /// A group's `size` bytes, in the order of their addresses. Zen 4 drops what it is asked for while many lines are on their way;
    /// asked again a little later, it reads 1.2 to 1.3 times as much.
    #[inline(always)]
    fn prefetch_twice(&self, g: usize, size: usize) {
        let next = self.next.wrapping_add(g * size);
        prefetch_lines(next.wrapping_add(self.quarter), size);
        prefetch_lines(next, size);
    }

    /// The same in four places side by side, each a quarter of the tile: the processor reads on by itself from each, so more
    /// lines are on their way.
    #[inline(always)]
    fn prefetch_quarters(&self, g: usize, size: usize) {
        let share = size / 4;
        let next = self.next.wrapping_add(share * g / 64 * 64);
        for line in 0..share / 64 {
            self.prefetch_in_quarters(next.wrapping_add(64 * line));
        }
        // What lies between groups adds up to a line now and then.
        if share * g % 64 + share % 64 >= 64 {
            self.prefetch_in_quarters(next.wrapping_add(share / 64 * 64));
        }
    }

    /// A line in each quarter of a tile.
    #[inline(always)]
    fn prefetch_in_quarters(&self, line: *const u8) {
        for quarter in 0..4 {
            prefetch_lines(line.wrapping_add(quarter * self.quarter), 1);
        }
    }

    /// What is asked for ahead, for kernels that use rows for long and ask in `steps`: many lines at once would be dropped.
    pub fn ahead(&self, steps: usize) -> Ahead {
        let part = |line: *const u8, bytes: usize| {
            let left = bytes.div_ceil(LINE);
            Part { line, left, size: left.div_ceil(steps) }
        };
        let scales = if self.scales_between() { 0 } else { self.all_scales };
        Ahead([part(self.next, 4 * self.quarter), part(self.next_scales, scales)])
    }

    /// Asks for some groups of a row, into the first cache.
    #[inline(always)]
    pub fn prefetch_groups(&self, row: usize, first: usize, num: usize) {
        let (start, bytes) = (self.element(row, first), num * self.group);
        for at in (0..bytes).step_by(LINE).chain([bytes - 1]) {
            // SAFETY: a prefetch touches no memory and may point anywhere.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast()) };
        }
    }

    /// A line of the scales that lie elsewhere, while there are any.
    #[inline(always)]
    fn prefetch_scales(&self, g: usize) {
        if 64 * g < self.all_scales {
            prefetch_lines(self.next_scales.wrapping_add(64 * g), 1);
        }
    }

    /// Asks for a line, into the cache that suits the processor.
    #[inline(always)]
    pub fn prefetch(&self, line: *const u8) {
        // SAFETY: a prefetch touches no memory and may point anywhere.
        unsafe {
            match self.processor {
                Processor::Zen5 => _mm_prefetch::<_MM_HINT_T0>(line.cast()),
                _ => _mm_prefetch::<_MM_HINT_T1>(line.cast()),
            }
        }
    }

    /// Whether memory is best asked for in four places.
    pub fn in_quarters(&self) -> bool {
        self.processor == Processor::Intel
    }

    /// The address of a group of a row.
    pub fn element(&self, row: usize, g: usize) -> *const u8 {
        self.elements.wrapping_add(row * self.row + g * self.group)
    }

    /// The address of its scale.
    pub fn scale(&self, row: usize, g: usize) -> *const u8 {
        self.scales.wrapping_add(row * self.scale_row + g * self.scale_group)
    }

    /// Bytes from scale to scale of a row.
    pub fn scale_group(&self) -> usize {
        self.scale_group
    }

    /// Whether scales lie between the groups of elements.
    pub fn scales_between(&self) -> bool {
        self.scale_group == self.group
    }

    /// Scales of `num` groups, up to four, from `g` on of four rows from `row` on: that of group k of row r at [k][r].
    ///
    /// # Safety
    /// The rows hold the groups; AVX-512 is present.
    #[inline(always)]
    pub unsafe fn four_scales<T: Copy + Default>(&self, row: usize, g: usize, num: usize) -> [[T; 4]; 4] {
        let mut out = [[T::default(); 4]; 4];
        for r in 0..4 {
            let p = self.scales.wrapping_add((row + r) * self.scale_row + g * self.scale_group);
            for (k, out) in out.iter_mut().enumerate().take(num) {
                // SAFETY: promised by the caller.
                out[r] = unsafe { p.wrapping_add(k * self.scale_group).cast::<T>().read_unaligned() };
            }
        }
        out
    }

    /// The scales' bits of one group.
    ///
    /// # Safety
    /// The rows hold the group, whose scales are numbers of T's size.
    #[inline(always)]
    pub unsafe fn scales_of<T: Copy>(&self, g: usize, out: &mut [T; TILE]) {
        let rows = addresses(self.scales.wrapping_add(g * self.scale_group), self.scale_row);
        for r in 0..TILE {
            // SAFETY: promised by the caller.
            out[r] = unsafe { rows[r % 4][r / 4].cast::<T>().read_unaligned() };
        }
    }
}

/// Lines to ask for, step by step: those of elements, and of scales that lie elsewhere.
pub struct Ahead([Part; 2]);

struct Part {
    /// The next line.
    line: *const u8,
    /// How many are left, and how many are asked for in a step.
    left: usize,
    size: usize,
}

impl Ahead {
    /// Asks for the next ones.
    #[inline(always)]
    pub fn step(&mut self) {
        for part in &mut self.0 {
            for _ in 0..part.size.min(part.left) {
                prefetch_lines(part.line, 1);
                part.line = part.line.wrapping_add(LINE);
                part.left -= 1;
            }
        }
    }
}

/// Asks for some lines, into the second cache.
#[inline(always)]
fn prefetch_lines(from: *const u8, size: usize) {
    for line in (0..size).step_by(64) {
        // SAFETY: a prefetch touches no memory and may point anywhere.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(line).cast()) };
    }
}

/// The scales' bits of one group after the other, gathered some groups before they are used.
pub struct Scales<T>([[T; TILE]; 2 * SCALES_AHEAD]);

impl<T: Copy + Default> Scales<T> {
    /// None yet.
    #[inline(always)]
    pub fn new() -> Self {
        Self([[T::default(); TILE]; 2 * SCALES_AHEAD])
    }

    /// Gathers the first. Where the scales are to stay: moving them would wait for each of their bytes to be written.
    ///
    /// # Safety
    /// The rows hold `groups` groups, whose scales are numbers of T's size.
    #[inline(always)]
    pub unsafe fn begin(&mut self, rows: &Span, groups: usize) {
        for g in 0..SCALES_AHEAD.min(groups) {
            // SAFETY: promised by the caller.
            unsafe { rows.scales_of(g, &mut self.0[g]) };
        }
    }

    /// Those of group `g`, which follows the one before.
    ///
    /// # Safety
    /// As for `begin`, which came first.
    #[inline(always)]
    pub unsafe fn of(&mut self, rows: &Span, groups: usize, g: usize) -> &[T; TILE] {
        if g + SCALES_AHEAD < groups {
            // SAFETY: promised by the caller.
            unsafe { rows.scales_of(g + SCALES_AHEAD, &mut self.0[(g + SCALES_AHEAD) % (2 * SCALES_AHEAD)]) };
        }
        &self.0[g % (2 * SCALES_AHEAD)]
    }

    /// The same where they lie before their groups, which are SIZE bytes with them and lie at `at`.
    ///
    /// # Safety
    /// As for `begin`, which came first.
    #[inline(always)]
    pub unsafe fn of_between<const SIZE: usize>(&mut self, groups: usize, g: usize, at: &Addresses) -> &[T; TILE] {
        if g + SCALES_AHEAD < groups {
            let out = &mut self.0[(g + SCALES_AHEAD) % (2 * SCALES_AHEAD)];
            for r in 0..TILE {
                let p = at[r % 4][r / 4].wrapping_add(SCALES_AHEAD * SIZE - size_of::<T>());
                // SAFETY: promised by the caller.
                out[r] = unsafe { p.cast::<T>().read_unaligned() };
            }
        }
        &self.0[g % (2 * SCALES_AHEAD)]
    }
}

/// Runs `whole` on sixteen rows of `m` that include those from `row` on, and moves their results to the front of `out`.
/// A matrix's last tile reaches back into the one before it.
#[inline(always)]
pub fn with_whole_tile(m: &Matrix, row: usize, out: &mut [[f32; TILE]], whole: impl FnOnce(usize, &mut [[f32; TILE]])) {
    let first = row.min(m.rows() - TILE);
    whole(first, out);
    from_row(row - first, out);
}

/// Moves results from some row on to the front.
#[inline(always)]
pub fn from_row(row: usize, out: &mut [[f32; TILE]]) {
    if row > 0 {
        out.iter_mut().for_each(|out| out.copy_within(row.., 0));
    }
}

/// The same address, of which the compiler knows nothing: else it keeps one for each row of a loop, which do not fit into
/// registers, and moves them all on in memory.
#[inline(always)]
fn unknown(p: *const u8) -> *const u8 {
    std::ptr::with_exposed_provenance(unknown_distance(p.expose_provenance()))
}

/// The same distance, of which the compiler knows nothing.
#[inline(always)]
pub fn unknown_distance(d: usize) -> usize {
    let mut d = d;
    // SAFETY: does nothing.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) d, options(pure, nomem, nostack, preserves_flags)) };
    d
}

/// Addresses of sixteen rows: row 4 a + r at [r][a].
pub type Addresses = [[*const u8; 4]; 4];

/// Those of rows at even distances.
#[inline(always)]
pub fn addresses(p: *const u8, row: usize) -> Addresses {
    let (p, row) = (unknown(p), unknown_distance(row));
    let one = p.wrapping_add(row);
    let two = p.wrapping_add(2 * row);
    let three = one.wrapping_add(2 * row);
    let twelve = unknown_distance(12 * row);
    [p, one, two, three].map(|p| [p, p.wrapping_add(4 * row), p.wrapping_add(8 * row), p.wrapping_add(twelve)])
}

/// Tokens in parts of at most `most`, whose sizes differ by one at most, with what they have in `out`: a part of one or two would
/// wait for its own sums, and take as long as one of eight.
pub fn parts<'a>(
    mut tokens: &'a [u32],
    mut out: &'a mut [[f32; TILE]],
    most: usize,
) -> impl Iterator<Item = (&'a [u32], &'a mut [[f32; TILE]])> {
    let num = tokens.len().div_ceil(most);
    (0..num).map(move |part| {
        let size = tokens.len().div_ceil(num - part);
        let (own, rest) = std::mem::take(&mut tokens).split_at(size);
        let (own_out, rest_out) = std::mem::take(&mut out).split_at_mut(size);
        (tokens, out) = (rest, rest_out);
        (own, own_out)
    })
}

/// Computes an expression with as many tokens as there are, up to eight, as an array of their number.
macro_rules! by_number {
    (|$tokens:ident| $call:expr) => {
        by_number!(|$tokens| $call, [a] [a b] [a b c] [a b c d] [a b c d e] [a b c d e f] [a b c d e f g] [a b c d e f g h])
    };
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
pub(super) use by_number;
