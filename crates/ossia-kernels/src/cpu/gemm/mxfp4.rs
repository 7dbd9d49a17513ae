//! Squares of 32 by 32 numbers out of MXFP4 weights, with vectors: what `Matrix::group` gives, to the bit.
//!
//! A code's doubled value is a byte in a table of sixteen (`pshufb`), which becomes a float times half the scale; both
//! steps are exact. Where a square must be turned, its bytes are turned before they are unpacked: an eighth of the work
//! of turning floats.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::WIDTH;
use crate::cpu::isa::Isa;
use crate::matrix::{Kind, Matrix};
#[cfg(target_arch = "x86_64")]
use crate::mxfp4::DOUBLED;

/// panel[k][j] = W[first + j][32 group + k] for 32 rows; false where there is no vector version for this, and nothing
/// was done.
pub fn turned(isa: Isa, m: &Matrix, first: usize, group: usize, panel: &mut [[f32; WIDTH]]) -> bool {
    let Some(halves) = halves(m) else { return false };
    let Ok(panel) = <&mut [[f32; WIDTH]; WIDTH]>::try_from(panel) else { return false };
    match isa.of_floats() {
        // SAFETY: these versions are only named where their features were detected.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { turned_avx512(m, (first, group), halves, panel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { turned_avx2(m, (first, group), halves, panel) },
        _ => return false,
    }
    true
}

/// panel[k] = W[first + k][32 group ..] for as many rows as the panel has; false as in [`turned`].
pub fn straight(isa: Isa, m: &Matrix, first: usize, group: usize, panel: &mut [[f32; WIDTH]]) -> bool {
    let Some(halves) = halves(m) else { return false };
    match isa.of_floats() {
        // SAFETY: these versions are only named where their features were detected.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { straight_avx512(m, (first, group), halves, panel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { straight_avx2(m, (first, group), halves, panel) },
        _ => return false,
    }
    true
}

/// Whether a byte holds codes that lie 16 apart, rather than neighbours; nothing for other kinds.
fn halves(m: &Matrix) -> Option<bool> {
    match m.kind() {
        Kind::Mxfp4Pairs => Some(false),
        Kind::Mxfp4Halves => Some(true),
        _ => None,
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
unsafe fn turned_avx512(m: &Matrix, at: (usize, usize), halves: bool, panel: &mut [[f32; WIDTH]; WIDTH]) {
    // SAFETY: promised by the caller.
    unsafe { turned_body::<Wide>(m, at, halves, panel) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn turned_avx2(m: &Matrix, at: (usize, usize), halves: bool, panel: &mut [[f32; WIDTH]; WIDTH]) {
    // SAFETY: promised by the caller.
    unsafe { turned_body::<Narrow>(m, at, halves, panel) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
unsafe fn straight_avx512(m: &Matrix, at: (usize, usize), halves: bool, panel: &mut [[f32; WIDTH]]) {
    // SAFETY: promised by the caller.
    unsafe { straight_body::<Wide>(m, at, halves, panel) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn straight_avx2(m: &Matrix, at: (usize, usize), halves: bool, panel: &mut [[f32; WIDTH]]) {
    // SAFETY: promised by the caller.
    unsafe { straight_body::<Narrow>(m, at, halves, panel) }
}

/// How an instruction set writes sixteen values.
#[cfg(target_arch = "x86_64")]
trait Put {
    /// out[i] = scales[i] times byte i of `doubled`.
    ///
    /// # Safety
    /// The machine has the instruction set, sixteen numbers can be read and written.
    unsafe fn put(doubled: __m128i, scales: *const f32, out: *mut f32);
}

#[cfg(target_arch = "x86_64")]
struct Wide;

#[cfg(target_arch = "x86_64")]
impl Put for Wide {
    #[inline(always)]
    unsafe fn put(doubled: __m128i, scales: *const f32, out: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe {
            let values = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(doubled));
            _mm512_storeu_ps(out, _mm512_mul_ps(values, _mm512_loadu_ps(scales)));
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct Narrow;

#[cfg(target_arch = "x86_64")]
impl Put for Narrow {
    #[inline(always)]
    unsafe fn put(doubled: __m128i, scales: *const f32, out: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe {
            for (half, doubled) in [(0, doubled), (8, _mm_srli_si128::<8>(doubled))] {
                let values = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(doubled));
                _mm256_storeu_ps(out.add(half), _mm256_mul_ps(values, _mm256_loadu_ps(scales.add(half))));
            }
        }
    }
}

/// The doubled values of the low and of the high nibbles.
///
/// # Safety
/// The machine has SSSE3.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn doubled(bytes: __m128i) -> [__m128i; 2] {
    // SAFETY: promised by the caller; the table has sixteen bytes.
    unsafe {
        let (table, low) = (_mm_loadu_si128(DOUBLED.as_ptr().cast()), _mm_set1_epi8(15));
        let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), low);
        [_mm_and_si128(bytes, low), high].map(|codes| _mm_shuffle_epi8(table, codes))
    }
}

/// The bytes of a group's codes.
///
/// # Safety
/// None on x86-64, where SSE2 is always there.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn codes(m: &Matrix, row: usize, group: usize) -> __m128i {
    let bytes = &m.elements().at(row, group)[..16];
    // SAFETY: sixteen bytes.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// # Safety
/// The machine has P's instruction set.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn turned_body<P: Put>(
    m: &Matrix,
    (first, group): (usize, usize),
    halves: bool,
    panel: &mut [[f32; WIDTH]; WIDTH],
) {
    for from in [0, 16] {
        let scales: [f32; 16] = std::array::from_fn(|i| 0.5 * m.scale(first + from + i, group));
        // SAFETY: promised by the caller; rows of the panel have room for sixteen numbers from `from` on.
        unsafe {
            let mut bytes: [__m128i; 16] = [_mm_setzero_si128(); 16];
            for (i, bytes) in bytes.iter_mut().enumerate() {
                *bytes = codes(m, first + from + i, group);
            }
            // Each round moves a bit of the place (row, byte) from the front to the back; four turn the square.
            for _ in 0..4 {
                let old = bytes;
                for i in 0..8 {
                    bytes[2 * i] = _mm_unpacklo_epi8(old[i], old[i + 8]);
                    bytes[2 * i + 1] = _mm_unpackhi_epi8(old[i], old[i + 8]);
                }
            }
            for (i, bytes) in bytes.into_iter().enumerate() {
                let [low, high] = doubled(bytes);
                let (low_at, high_at) = if halves { (i, i + 16) } else { (2 * i, 2 * i + 1) };
                P::put(low, scales.as_ptr(), panel[low_at].as_mut_ptr().add(from));
                P::put(high, scales.as_ptr(), panel[high_at].as_mut_ptr().add(from));
            }
        }
    }
}

/// # Safety
/// The machine has P's instruction set.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn straight_body<P: Put>(m: &Matrix, (first, group): (usize, usize), halves: bool, panel: &mut [[f32; WIDTH]]) {
    for (k, out) in panel.iter_mut().enumerate() {
        let scales = [0.5 * m.scale(first + k, group); 16];
        // SAFETY: promised by the caller; a row of the panel has 32 numbers.
        unsafe {
            let [low, high] = doubled(codes(m, first + k, group));
            let parts = if halves { [low, high] } else { [_mm_unpacklo_epi8(low, high), _mm_unpackhi_epi8(low, high)] };
            P::put(parts[0], scales.as_ptr(), out.as_mut_ptr());
            P::put(parts[1], scales.as_ptr(), out.as_mut_ptr().add(16));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, same_bits};
    use crate::{Bytes, DType};

    /// Every scale byte but not-a-number's, and every code.
    fn matrices() -> [Matrix; 2] {
        let mut numbers = Numbers(91);
        let (rows, cols) = (70, 128);
        let scales: Vec<u8> = (0..rows * cols / 32).map(|i| (i % 255) as u8).collect();
        let planar = Matrix::mxfp4(rows, cols, Bytes::new(numbers.bytes(rows * cols / 2)), Bytes::new(scales.clone()));
        let blocks: Vec<u8> = scales.iter().flat_map(|&s| [vec![s], numbers.bytes(16)].concat()).collect();
        [planar.unwrap(), Matrix::new(DType::Mxfp4, rows, cols, Bytes::new(blocks)).unwrap()]
    }

    #[test]
    fn squares_are_the_groups_of_the_matrix() {
        for (m, isa) in matrices().iter().flat_map(|m| Isa::all().into_iter().map(move |isa| (m, isa))) {
            for (first, group) in [(0, 0), (7, 1), (38, 3)] {
                let mut panel = [[f32::NAN; WIDTH]; WIDTH];
                let done = straight(isa, m, first, group, &mut panel);
                assert_eq!(done, isa != Isa::Scalar);
                if done {
                    (0..WIDTH).for_each(|k| same_bits(&panel[k], &m.group(first + k, group), "straight"));
                    let mut few = [[f32::NAN; WIDTH]; 5];
                    straight(isa, m, first, group, &mut few);
                    same_bits(few.as_flattened(), panel[..5].as_flattened(), "five rows");
                    assert!(turned(isa, m, first, group, &mut panel) && !turned(isa, m, first, group, &mut few));
                    for j in 0..WIDTH {
                        let column: Vec<f32> = panel.iter().map(|row| row[j]).collect();
                        same_bits(&column, &m.group(first + j, group), "turned");
                    }
                }
            }
        }
    }
}
