//! C = A B or C += A B for the small matrices of a tile: A [m, depth], B [depth, n], C [m, n].
//!
//! A is read number by number, B and C in vectors along their rows. **Order of sums**: one chain of multiply-adds over
//! the depth for each element of C, whatever block of registers it falls into.

use crate::cpu::vector::Lanes;

/// The left factor.
#[derive(Clone, Copy)]
pub struct Left<const ACROSS: bool> {
    /// The first number.
    pub at: *const f32,
    /// Numbers from one row to the next; with ACROSS the matrix lies transposed, and they lie from one step of the
    /// depth to the next.
    pub stride: usize,
}

/// The right factor.
#[derive(Clone, Copy)]
pub struct Right {
    /// The first number.
    pub at: *const f32,
    /// Numbers from one row to the next.
    pub stride: usize,
}

/// The result, row by row.
#[derive(Clone, Copy)]
pub struct Out {
    /// The first number.
    pub at: *mut f32,
    /// Numbers from one row to the next.
    pub stride: usize,
}

/// m, n, depth.
#[derive(Clone, Copy)]
pub struct Size {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C, a multiple of the lanes.
    pub n: usize,
    /// Columns of A, rows of B.
    pub depth: usize,
}

/// C = A B, or C += A B with ADD.
///
/// # Safety
/// The machine has V's instruction set, the matrices of these sizes may be read and written, and C overlaps neither
/// factor nor anything that another thread uses.
#[inline(always)]
pub unsafe fn product<V: Lanes, const ACROSS: bool, const ADD: bool>(a: Left<ACROSS>, b: Right, c: Out, size: Size) {
    let mut column = 0;
    while column + 2 * V::LANES <= size.n {
        // SAFETY: promised by the caller.
        unsafe { columns::<V, 2, ACROSS, ADD>(a, b, c, size, column) };
        column += 2 * V::LANES;
    }
    if column < size.n {
        // SAFETY: promised by the caller.
        unsafe { columns::<V, 1, ACROSS, ADD>(a, b, c, size, column) };
    }
}

/// N vectors of columns from `column` on, all rows: in blocks that fill the registers, then in smaller ones.
///
/// # Safety
/// As `product`.
#[inline(always)]
unsafe fn columns<V: Lanes, const N: usize, const ACROSS: bool, const ADD: bool>(
    a: Left<ACROSS>,
    b: Right,
    c: Out,
    size: Size,
    column: usize,
) {
    let mut row = 0;
    // SAFETY: the blocks lie within the sizes that the caller vouches for.
    unsafe {
        let b = Right { at: b.at.add(column), ..b };
        let c = Out { at: c.at.add(column), ..c };
        // 32 vector registers hold sixteen sums and their factors, 16 hold eight.
        if V::LANES == 16 {
            while row + 8 <= size.m {
                block::<V, 8, N, ACROSS, ADD>(a, b, c, row, size.depth);
                row += 8;
            }
        }
        while row + 4 <= size.m {
            block::<V, 4, N, ACROSS, ADD>(a, b, c, row, size.depth);
            row += 4;
        }
        while row < size.m {
            block::<V, 1, N, ACROSS, ADD>(a, b, c, row, size.depth);
            row += 1;
        }
    }
}

/// M rows and N vectors of columns, in registers.
///
/// # Safety
/// As `product`.
#[inline(always)]
unsafe fn block<V: Lanes, const M: usize, const N: usize, const ACROSS: bool, const ADD: bool>(
    a: Left<ACROSS>,
    b: Right,
    c: Out,
    row: usize,
    depth: usize,
) {
    let (row_step, depth_step) = if ACROSS { (1, a.stride) } else { (a.stride, 1) };
    // SAFETY: promised by the caller; pointers move past the last row only to be dropped.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; M];
        if ADD {
            for i in 0..M {
                for j in 0..N {
                    sums[i][j] = V::load(c.at.add((row + i) * c.stride + j * V::LANES));
                }
            }
        }
        let mut left = a.at.add(row * row_step);
        let mut right = b.at;
        for _ in 0..depth {
            let mut factors = [V::splat(0.0); N];
            for j in 0..N {
                factors[j] = V::load(right.add(j * V::LANES));
            }
            for i in 0..M {
                let x = V::splat(*left.add(i * row_step));
                for j in 0..N {
                    sums[i][j] = x.mul_add(factors[j], sums[i][j]);
                }
            }
            left = left.wrapping_add(depth_step);
            right = right.wrapping_add(b.stride);
        }
        for i in 0..M {
            for j in 0..N {
                sums[i][j].store(c.at.add((row + i) * c.stride + j * V::LANES));
            }
        }
    }
}
