//! A square of 32 by 32 numbers, turned.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::WIDTH;
use crate::cpu::isa::Isa;

/// out[k][j] = square[j][k] for the first `out.len()` k, at most 32.
pub fn transpose(isa: Isa, square: &[[f32; WIDTH]; WIDTH], out: &mut [[f32; WIDTH]]) {
    #[cfg(target_arch = "x86_64")]
    if let (Isa::Avx2 | Isa::Avx512, Ok(out)) = (isa.of_floats(), <&mut [[f32; WIDTH]; WIDTH]>::try_from(&mut *out)) {
        // SAFETY: these versions are only named where their features were detected.
        return unsafe { by_eight(square, out) };
    }
    let _ = isa;
    for (k, out) in out.iter_mut().enumerate() {
        *out = std::array::from_fn(|j| square[j][k]);
    }
}

/// Squares of 8 by 8, in registers: pairs of rows, pairs of pairs, halves.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn by_eight(square: &[[f32; WIDTH]; WIDTH], out: &mut [[f32; WIDTH]; WIDTH]) {
    for j in (0..WIDTH).step_by(8) {
        for k in (0..WIDTH).step_by(8) {
            let mut rows = [_mm256_setzero_ps(); 8];
            for i in 0..8 {
                // SAFETY: k + 8 <= 32.
                rows[i] = unsafe { _mm256_loadu_ps(square[j + i].as_ptr().add(k)) };
            }
            let mut pairs = rows;
            for i in 0..4 {
                pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            let mut fours = pairs;
            for i in [0, 4] {
                fours[i] = _mm256_shuffle_ps::<0x44>(pairs[i], pairs[i + 2]);
                fours[i + 1] = _mm256_shuffle_ps::<0xee>(pairs[i], pairs[i + 2]);
                fours[i + 2] = _mm256_shuffle_ps::<0x44>(pairs[i + 1], pairs[i + 3]);
                fours[i + 3] = _mm256_shuffle_ps::<0xee>(pairs[i + 1], pairs[i + 3]);
            }
            for i in 0..4 {
                let low = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
                let high = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
                // SAFETY: j + 8 <= 32.
                unsafe {
                    _mm256_storeu_ps(out[k + i].as_mut_ptr().add(j), low);
                    _mm256_storeu_ps(out[k + i + 4].as_mut_ptr().add(j), high);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_goes_to_its_place() {
        let mut square = [[0.0; WIDTH]; WIDTH];
        square.as_flattened_mut().iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
        for isa in Isa::all() {
            for len in [1, 31, 32] {
                let mut out = vec![[f32::NAN; WIDTH]; len];
                transpose(isa, &square, &mut out);
                for (k, row) in out.iter().enumerate() {
                    for (j, value) in row.iter().enumerate() {
                        assert_eq!(*value, (j * WIDTH + k) as f32, "{isa:?}, {len} rows, ({k}, {j})");
                    }
                }
            }
        }
    }
}
