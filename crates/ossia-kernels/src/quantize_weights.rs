//! Float weights to Q8_0, once, at load: a group's scale is max|w| / 127 as F16, its integers are w over that scale,
//! nearest with ties to even. They lie as in llama.cpp's files, a group's scale before its integers, so there is one layout of Q8_0.

use half::f16;

use crate::cpu::disjoint::Disjoint;
use crate::cpu::isa::Isa;
use crate::matrix::Matrix;
use crate::mxfp4::GROUP;
use crate::pool::Pool;
use crate::{Bytes, DType, Result};

/// Rows of a task.
const ROWS: usize = 64;

/// Bytes of a group: a scale and its integers.
const BLOCK: usize = 2 + GROUP;

/// A copy of `m` in Q8_0.
pub fn to_q8(pool: &Pool, isa: Isa, m: &Matrix) -> Result<Matrix> {
    let row_bytes = m.groups() * BLOCK;
    let mut blocks = vec![0u8; m.rows() * row_bytes];
    large_pages(&mut blocks);
    let out = Disjoint::new(&mut blocks);
    pool.run_ranges(m.rows(), ROWS, |range, _| {
        for row in range {
            // SAFETY: rows of one run do not overlap.
            let out = unsafe { out.part(row * row_bytes..(row + 1) * row_bytes) };
            match isa.of_floats() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: these are only made where the features were detected.
                Isa::Avx2 | Isa::Avx512 => unsafe { row_avx2(m, row, out) },
                _ => quantize_row(m, row, out),
            }
        }
    });
    Matrix::new(DType::Q8_0, m.rows(), m.cols(), Bytes::new(blocks))
}

/// Asks for pages of 2 MB where nothing was written yet: weights are read faster from them. Whoever refuses loses nothing.
fn large_pages(bytes: &mut [u8]) {
    #[cfg(target_os = "linux")]
    {
        const LARGE: usize = 2 << 20;
        let before = bytes.as_ptr().align_offset(LARGE);
        if let Some(whole) = bytes.get_mut(before..).filter(|rest| rest.len() >= LARGE) {
            // SAFETY: the range belongs to `bytes` and begins with a page; what it holds does not change.
            unsafe { libc::madvise(whole.as_mut_ptr().cast(), whole.len() / LARGE * LARGE, libc::MADV_HUGEPAGE) };
        }
    }
    let _ = bytes;
}

/// The same loop, compiled with wider vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn row_avx2(m: &Matrix, row: usize, blocks: &mut [u8]) {
    quantize_row(m, row, blocks);
}

#[inline(always)]
fn quantize_row(m: &Matrix, row: usize, blocks: &mut [u8]) {
    for (group, block) in blocks.chunks_exact_mut(BLOCK).enumerate() {
        let (scale, elements) = block.split_at_mut(2);
        let w = m.group(row, group);
        // Written so that not-a-number survives into the scale.
        let largest = w.iter().fold(0.0f32, |max, v| if max.is_nan() || v.abs() <= max { max } else { v.abs() });
        let rounded = f16::from_f32(largest / 127.0);
        scale.copy_from_slice(&rounded.to_le_bytes());
        let inverse = if rounded == f16::ZERO { 0.0 } else { 1.0 / rounded.to_f32() };
        for (out, w) in elements.iter_mut().zip(&w) {
            *out = (w * inverse).round_ties_even().clamp(-127.0, 127.0) as i8 as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Kind;
    use crate::testing::{Numbers, same_bits};

    #[test]
    fn large_pages_hold_what_they_held() {
        for (length, first) in [(0, 0), (100, 3), (5 << 20, 0), (7 << 20, 4097)] {
            let mut bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            large_pages(&mut bytes[first..]);
            assert!(bytes.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8), "{length} from {first}");
        }
    }

    #[test]
    fn within_half_a_step_and_the_same_everywhere() {
        let mut numbers = Numbers(40);
        for kind in [Kind::F32, Kind::F16, Kind::BF16] {
            let m = numbers.matrix(kind, 130, 96);
            let copies: Vec<Matrix> = Isa::all().iter().map(|&isa| to_q8(&Pool::new(2), isa, &m).unwrap()).collect();
            for row in 0..130 {
                for group in 0..3 {
                    let (want, got) = (m.group(row, group), copies[0].group(row, group));
                    let step = copies[0].scale(row, group);
                    let worst = want.iter().zip(&got).fold(0.0f32, |m, (w, g)| m.max((w - g).abs()));
                    assert!(worst <= 0.501 * step, "{kind:?}: off by {worst}, a step is {step}");
                    copies.iter().for_each(|c| same_bits(&c.group(row, group), &got, "isa"));
                }
            }
        }
    }

    #[test]
    fn faults_stay_visible_and_zeros_are_zero() {
        for (value, finite) in [(0.0f32, true), (1e-12, true), (f32::NAN, false), (f32::INFINITY, false)] {
            let mut bytes = [0.0f32; 32].map(f32::to_le_bytes);
            bytes[7] = value.to_le_bytes();
            let m = Matrix::new(crate::DType::F32, 1, 32, Bytes::new(bytes.concat())).unwrap();
            let q = to_q8(&Pool::new(1), Isa::detect(), &m).unwrap().group(0, 0);
            assert_eq!(q.iter().all(|v| v.is_finite()), finite, "{value}: {q:?}");
        }
    }
}
