//! e^x in eight lanes.
//!
//! x = n ln 2 + r with |r| <= ln 2 / 2, e^x = 2^n p(r), p the Taylor polynomial of degree 7 (truncation below 1e-8
//! relative). Largest error against f64 over [-87, 0] is about one unit in the last place (see the test).

/// e^x for eight x; 0 below -87.3, infinity above 88.3, not-a-number stays.
///
/// # Safety
/// AVX2 and FMA are present; code compiled for them calls this as it would a safe function.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
pub fn exp8(x: std::arch::x86_64::__m256) -> std::arch::x86_64::__m256 {
    use std::arch::x86_64::*;
    let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
        x,
        _mm256_set1_ps(std::f32::consts::LOG2_E),
    ));
    // ln 2 in two parts, the first with trailing zeros so that n times it is exact.
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693_359_4), x);
    let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm256_set1_ps(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
    }
    let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
    let y = _mm256_mul_ps(p, _mm256_castsi256_ps(power));
    let y = _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(-87.3)), y);
    let over = _mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_set1_ps(88.3));
    let y = _mm256_blendv_ps(y, _mm256_set1_ps(f32::INFINITY), over);
    _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use crate::cpu::isa::Isa;
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma")]
    fn exp_of(x: f32) -> f32 {
        _mm256_cvtss_f32(super::exp8(_mm256_set1_ps(x)))
    }

    #[test]
    fn close_to_the_exact_exponential() {
        if Isa::detect() == Isa::Scalar {
            return;
        }
        for i in 0..200_000 {
            let x = -87.0 + i as f32 * (175.0 / 200_000.0);
            // SAFETY: AVX2 and FMA were detected.
            let (got, want) = (unsafe { exp_of(x) } as f64, (x as f64).exp());
            assert!(((got - want) / want).abs() < 1.5e-7, "exp({x}) = {got}, wanted {want}");
        }
        for (x, want) in [(f32::NEG_INFINITY, 0.0), (-1e30, 0.0), (0.0, 1.0), (100.0, f32::INFINITY)] {
            // SAFETY: AVX2 and FMA were detected.
            assert_eq!(unsafe { exp_of(x) }, want);
        }
        // SAFETY: AVX2 and FMA were detected.
        assert!(unsafe { exp_of(f32::NAN) }.is_nan());
    }
}
