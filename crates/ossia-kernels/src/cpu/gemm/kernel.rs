//! The inner loop: some rows of x times a panel of 32 outputs, all sums in registers.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::WIDTH;
use crate::cpu::isa::Isa;

/// Rows of x whose sums run side by side, at most.
pub const ROWS: usize = 12;

/// Where the kernel finds x: element (row, k) lies at `start + row * row_stride + k * k_stride`.
#[derive(Clone, Copy)]
pub struct Operand {
    pub start: *const f32,
    pub row_stride: usize,
    pub k_stride: usize,
}

/// The sums of a strip.
pub type Sums = [[f32; WIDTH]; ROWS];

/// out[r][j] = sum over k of x(r, k) panel[k][j] for the first `rows` rows: one chain over k each.
///
/// # Safety
/// `x` can be read for `rows` rows and as many k as the panel has; the instruction set is present.
pub unsafe fn strip(isa: Isa, x: Operand, rows: usize, panel: &[[f32; WIDTH]], out: &mut Sums) {
    /// Calls `$kernel::<R>` with `R` as large as `$rows` says, at most `$most`, until all rows are done.
    macro_rules! by_rows {
        ($kernel:ident, $most:literal, $($n:literal)*) => {{
            let mut done = 0;
            while done < rows {
                let start = x.start.wrapping_add(done * x.row_stride);
                let part = Operand { start, ..x };
                let n = (rows - done).min($most);
                // SAFETY: promised by the caller.
                unsafe {
                    match n {
                        $($n => $kernel::<$n>(part, panel, &mut out[done..]),)*
                        _ => unreachable!("at most {ROWS} rows"),
                    }
                }
                done += n;
            }
        }};
    }
    assert!(rows <= ROWS);
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => by_rows!(avx512, 12, 1 2 3 4 5 6 7 8 9 10 11 12),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => by_rows!(avx2, 6, 1 2 3 4 5 6),
        _ => by_rows!(plain, 4, 1 2 3 4),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const R: usize>(x: Operand, panel: &[[f32; WIDTH]], out: &mut [[f32; WIDTH]]) {
    let mut acc = [[_mm512_setzero_ps(); 2]; R];
    for (k, weights) in panel.iter().enumerate() {
        // SAFETY: the panel's row holds 32 numbers; x is promised by the caller.
        unsafe {
            let w = [_mm512_loadu_ps(weights.as_ptr()), _mm512_loadu_ps(weights.as_ptr().add(16))];
            for r in 0..R {
                let v = _mm512_set1_ps(*x.start.add(r * x.row_stride + k * x.k_stride));
                acc[r][0] = _mm512_fmadd_ps(v, w[0], acc[r][0]);
                acc[r][1] = _mm512_fmadd_ps(v, w[1], acc[r][1]);
            }
        }
    }
    for (acc, out) in acc.iter().zip(out) {
        // SAFETY: a row of out holds 32 numbers.
        unsafe {
            _mm512_storeu_ps(out.as_mut_ptr(), acc[0]);
            _mm512_storeu_ps(out.as_mut_ptr().add(16), acc[1]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const R: usize>(x: Operand, panel: &[[f32; WIDTH]], out: &mut [[f32; WIDTH]]) {
    for half in [0, 16] {
        let mut acc = [[_mm256_setzero_ps(); 2]; R];
        for (k, weights) in panel.iter().enumerate() {
            // SAFETY: the panel's row holds 32 numbers; x is promised by the caller.
            unsafe {
                let weights = weights.as_ptr().add(half);
                let w = [_mm256_loadu_ps(weights), _mm256_loadu_ps(weights.add(8))];
                for r in 0..R {
                    let v = _mm256_set1_ps(*x.start.add(r * x.row_stride + k * x.k_stride));
                    acc[r][0] = _mm256_fmadd_ps(v, w[0], acc[r][0]);
                    acc[r][1] = _mm256_fmadd_ps(v, w[1], acc[r][1]);
                }
            }
        }
        for (acc, out) in acc.iter().zip(&mut *out) {
            // SAFETY: a row of out holds 32 numbers.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr().add(half), acc[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(half + 8), acc[1]);
            }
        }
    }
}

unsafe fn plain<const R: usize>(x: Operand, panel: &[[f32; WIDTH]], out: &mut [[f32; WIDTH]]) {
    let mut acc = [[0.0f32; WIDTH]; R];
    for (k, weights) in panel.iter().enumerate() {
        for r in 0..R {
            // SAFETY: promised by the caller.
            let v = unsafe { *x.start.add(r * x.row_stride + k * x.k_stride) };
            for j in 0..WIDTH {
                acc[r][j] += v * weights[j];
            }
        }
    }
    out[..R].copy_from_slice(&acc);
}
