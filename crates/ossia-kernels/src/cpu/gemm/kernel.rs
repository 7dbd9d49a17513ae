//! The inner loop: some rows of x times a panel of 32 outputs, all sums in registers.

use super::WIDTH;
use crate::cpu::isa::Isa;
use crate::cpu::vector::Lanes;
#[cfg(target_arch = "x86_64")]
use crate::cpu::vector::{Eight, Sixteen};

/// Rows of x whose sums run side by side, at most.
pub const ROWS: usize = 12;

/// Terms of a chain in one turn of the loop.
const UNROLL: usize = 4;

/// Where the kernel finds x.
#[derive(Clone, Copy)]
pub enum Operand {
    /// Element (row, k) lies at `start + row * stride + k`.
    Rows { start: *const f32, stride: usize },
    /// Element (row, k) lies at `start + k * 12 + row`.
    Strip(*const f32),
}

impl Operand {
    fn skip(self, rows: usize) -> Self {
        match self {
            Operand::Rows { start, stride } => Operand::Rows { start: start.wrapping_add(rows * stride), stride },
            Operand::Strip(start) => Operand::Strip(start.wrapping_add(rows)),
        }
    }
}

/// Where the sums go, and what becomes of what was there: element (row, j) lies at `start + row * stride + j`.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    pub start: *mut f32,
    pub stride: usize,
    /// Outputs that are written, at most 32.
    pub width: usize,
    /// Where the chains begin.
    pub bias: &'a [f32; WIDTH],
    /// Whether they begin at the bias plus what was there.
    pub old: bool,
    /// Whether they are added to what was there, rather than put in its place.
    pub add: bool,
}

/// out(r, j) = sum over k of x(r, k) panel[k][j] for the first `rows` rows: one chain over k each.
///
/// # Safety
/// `x` can be read for `rows` rows and as many k as the panel has, `out` written for `rows` rows; the instruction set is
/// present.
pub unsafe fn strip(isa: Isa, x: Operand, rows: usize, panel: &[[f32; WIDTH]], out: Output) {
    assert!(rows <= ROWS && out.width <= WIDTH);
    if out.width == WIDTH {
        // SAFETY: promised by the caller.
        return unsafe { full_width(isa, x, rows, panel, out) };
    }
    let mut wide = [[0.0f32; WIDTH]; ROWS];
    for (r, wide) in wide[..rows].iter_mut().enumerate().filter(|_| out.old || out.add) {
        // SAFETY: promised by the caller.
        unsafe { wide.as_mut_ptr().copy_from(out.start.add(r * out.stride), out.width) };
    }
    let into = Output { start: wide.as_flattened_mut().as_mut_ptr(), stride: WIDTH, width: WIDTH, ..out };
    // SAFETY: x is promised by the caller; `wide` has room for all rows.
    unsafe { full_width(isa, x, rows, panel, into) };
    for (r, wide) in wide[..rows].iter().enumerate() {
        // SAFETY: promised by the caller.
        unsafe { out.start.add(r * out.stride).copy_from(wide.as_ptr(), out.width) };
    }
}

/// # Safety
/// As for `strip`.
unsafe fn full_width(isa: Isa, x: Operand, rows: usize, panel: &[[f32; WIDTH]], out: Output) {
    /// Calls `$kernel::<R>` with `R` as large as `$rows` says, at most `$most`, until all rows are done.
    macro_rules! by_rows {
        ($kernel:ident, $most:literal, $($n:literal)*) => {{
            let mut done = 0;
            while done < rows {
                let x = x.skip(done);
                let out = Output { start: out.start.wrapping_add(done * out.stride), ..out };
                let n = (rows - done).min($most);
                // SAFETY: promised by the caller.
                unsafe {
                    match n {
                        $($n => $kernel::<$n>(x, panel, out),)*
                        _ => unreachable!("at most {ROWS} rows"),
                    }
                }
                done += n;
            }
        }};
    }
    match isa.of_floats() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => by_rows!(avx512, 12, 1 2 3 4 5 6 7 8 9 10 11 12),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => by_rows!(avx2, 6, 1 2 3 4 5 6),
        _ => by_rows!(plain, 4, 1 2 3 4),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const R: usize>(x: Operand, panel: &[[f32; WIDTH]], out: Output) {
    // SAFETY: promised by the caller.
    unsafe { tile::<Sixteen, R>(x, panel, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const R: usize>(x: Operand, panel: &[[f32; WIDTH]], out: Output) {
    // SAFETY: promised by the caller.
    unsafe { tile::<Eight, R>(x, panel, out) }
}

unsafe fn plain<const R: usize>(x: Operand, panel: &[[f32; WIDTH]], out: Output) {
    // SAFETY: promised by the caller.
    unsafe { tile::<[f32; 16], R>(x, panel, out) }
}

/// R rows of x, two vectors of outputs at a time.
///
/// # Safety
/// As for `strip`, with a full width.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize>(x: Operand, panel: &[[f32; WIDTH]], out: Output) {
    for half in (0..WIDTH).step_by(2 * L::LANES) {
        let at = |r: usize, v: usize| out.start.wrapping_add(r * out.stride + half + v * L::LANES);
        // SAFETY: rows of the bias and of the panel hold 32 numbers; x and out are promised by the caller.
        unsafe {
            let bias = out.bias.as_ptr().add(half);
            let mut acc = [[L::load(bias), L::load(bias.add(L::LANES))]; R];
            if out.old {
                for r in 0..R {
                    acc[r][0] = acc[r][0].add(L::load(at(r, 0)));
                    acc[r][1] = acc[r][1].add(L::load(at(r, 1)));
                }
            }
            match x {
                Operand::Rows { start, stride } => chains::<L, R, 1>(&mut acc, start, stride, panel, half),
                Operand::Strip(start) => chains::<L, R, ROWS>(&mut acc, start, 1, panel, half),
            }
            for r in 0..R {
                for v in 0..2 {
                    let sum = if out.add { L::load(at(r, v)).add(acc[r][v]) } else { acc[r][v] };
                    sum.store(at(r, v));
                }
            }
        }
    }
}

/// Goes on with the chains over all k, whose x lie `K_STRIDE` apart.
///
/// # Safety
/// As for `strip`.
#[inline(always)]
unsafe fn chains<L: Lanes, const R: usize, const K_STRIDE: usize>(
    acc: &mut [[L; 2]; R],
    start: *const f32,
    row_stride: usize,
    panel: &[[f32; WIDTH]],
    half: usize,
) {
    let (turns, rest) = panel.as_chunks::<UNROLL>();
    // Four rows are reached from one pointer without arithmetic.
    let mut fours: [*const f32; 3] = [0, 4, 8].map(|r| start.wrapping_add(r * row_stride));
    for turn in turns {
        for (k, weights) in turn.iter().enumerate() {
            // SAFETY: promised by the caller.
            unsafe { term(acc, &fours, row_stride, k * K_STRIDE, &weights[half..]) };
        }
        fours = fours.map(|p| p.wrapping_add(UNROLL * K_STRIDE));
    }
    for (k, weights) in rest.iter().enumerate() {
        // SAFETY: promised by the caller.
        unsafe { term(acc, &fours, row_stride, k * K_STRIDE, &weights[half..]) };
    }
}

/// One term of each chain.
///
/// # Safety
/// As for `strip`.
#[inline(always)]
unsafe fn term<L: Lanes, const R: usize>(
    acc: &mut [[L; 2]; R],
    fours: &[*const f32; 3],
    row_stride: usize,
    offset: usize,
    weights: &[f32],
) {
    // SAFETY: promised by the caller.
    unsafe {
        let w = [L::load(weights.as_ptr()), L::load(weights.as_ptr().add(L::LANES))];
        for r in 0..R {
            let v = L::splat(*fours[r / 4].add(r % 4 * row_stride + offset));
            acc[r][0] = v.mul_add(w[0], acc[r][0]);
            acc[r][1] = v.mul_add(w[1], acc[r][1]);
        }
    }
}

/// Asks for `floats` numbers before they are read; `TO_WRITE` if they will be written.
#[inline]
pub fn prefetch<const TO_WRITE: bool>(from: *const f32, floats: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..floats).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
        let line = from.wrapping_add(line).cast();
        // SAFETY: a prefetch touches no memory and may point anywhere.
        unsafe { if TO_WRITE { _mm_prefetch::<_MM_HINT_ET0>(line) } else { _mm_prefetch::<_MM_HINT_T0>(line) } };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, floats);
}
