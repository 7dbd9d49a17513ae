//! A vector of f32, one type for each instruction set, so that a kernel's body is written once.
//!
//! A body is generic over [`Lanes`], marked `#[inline(always)]`, and called from one function for each instruction set
//! that carries `#[target_feature]`; there every operation becomes one instruction. Lanes never mix: a lane's result
//! does not depend on how many there are, and the two x86 types give the same bits. The plain type rounds the product
//! in `mul_add`, the others do not.
//!
//! x = n ln 2 + r with |r| <= ln 2 / 2, e^x = 2^n p(r), p the Taylor polynomial of degree 7 (truncation below 1e-8 relative).

use crate::cpu::dot::add_lanes;

/// 1.5 * 2^23, which rounds what is added to it to an integer, plus the bias of an exponent.
const ROUND: f32 = 12_582_912.0 + 127.0;
/// Below this e^x is 0 here (2^n would be denormal).
const LOWEST: f32 = -87.3;
/// 1, 1, 1/2!, ... 1/7!, the highest first.
const TAYLOR: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// Some f32 that are computed side by side.
pub trait Lanes: Copy {
    /// How many.
    const LANES: usize;

    /// The same number in every lane.
    ///
    /// # Safety
    /// The machine has the type's instruction set.
    unsafe fn splat(x: f32) -> Self;

    /// `LANES` numbers from memory.
    ///
    /// # Safety
    /// The machine has the type's instruction set, and the numbers may be read.
    unsafe fn load(from: *const f32) -> Self;

    /// Writes the lanes to memory.
    ///
    /// # Safety
    /// `LANES` numbers may be written there.
    unsafe fn store(self, to: *mut f32);

    /// self + other.
    fn add(self, other: Self) -> Self;

    /// self - other.
    fn sub(self, other: Self) -> Self;

    /// self * other.
    fn mul(self, other: Self) -> Self;

    /// self * factor + term.
    fn mul_add(self, factor: Self, term: Self) -> Self;

    /// self / other.
    fn div(self, other: Self) -> Self;

    /// The smaller one; `other` where either is not-a-number.
    fn min(self, other: Self) -> Self;

    /// The larger one; `other` where either is not-a-number.
    fn max(self, other: Self) -> Self;

    /// The largest lane, if none is not-a-number.
    fn largest(self) -> f32;

    /// The sum of all lanes of some vectors: eight chains, of every eighth number, which are then added as
    /// [`add_lanes`](crate::cpu::dot::add_lanes) does.
    fn sum_in_eights<const V: usize>(v: &[Self; V]) -> f32;

    /// `self` where `from <= index < to`, else minus infinity.
    fn keep(self, index: Self, from: Self, to: Self) -> Self;

    /// 2^n of `self` = n + ROUND for integers n from -126 to 127.
    fn power_of_two(self) -> Self;

    /// 0 where `x` lies below LOWEST, else `self`.
    fn zero_below_lowest(self, x: Self) -> Self;

    /// e^self for numbers up to 88; 0 below -87.3, not-a-number stays.
    #[inline(always)]
    fn exp(self) -> Self {
        // SAFETY: a value of the type exists, so the machine has its instruction set.
        let constant = |x: f32| unsafe { Self::splat(x) };
        let rounded = self.mul_add(constant(std::f32::consts::LOG2_E), constant(ROUND));
        let n = rounded.sub(constant(ROUND));
        // ln 2 in two parts, the first with trailing zeros so that n times it is exact.
        let r = n.mul_add(constant(-0.693_359_4), self);
        let r = n.mul_add(constant(2.121_944_4e-4), r);
        let mut p = constant(TAYLOR[0]);
        for c in &TAYLOR[1..] {
            p = p.mul_add(r, constant(*c));
        }
        p.mul(rounded.power_of_two()).zero_below_lowest(self)
    }
}

/// Plain Rust: N numbers, which the compiler may put into the vectors of its target.
impl<const N: usize> Lanes for [f32; N] {
    const LANES: usize = N;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        [x; N]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: promised by the caller; an array of f32 may lie wherever an f32 may.
        unsafe { from.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: promised by the caller.
        unsafe { to.cast::<Self>().write(self) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        std::array::from_fn(|i| self[i] * factor[i] + term[i])
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] / other[i])
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] < other[i] { self[i] } else { other[i] })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn sum_in_eights<const V: usize>(v: &[Self; V]) -> f32 {
        let mut lanes = [0.0; 8];
        v.as_flattened().iter().enumerate().for_each(|(i, v)| lanes[i % 8] += v);
        add_lanes(&lanes)
    }

    #[inline(always)]
    fn keep(self, index: Self, from: Self, to: Self) -> Self {
        let inside = |i: usize| index[i] >= from[i] && index[i] < to[i];
        std::array::from_fn(|i| if inside(i) { self[i] } else { f32::NEG_INFINITY })
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        std::array::from_fn(|i| f32::from_bits(self[i].to_bits() << 23))
    }

    #[inline(always)]
    fn zero_below_lowest(self, x: Self) -> Self {
        std::array::from_fn(|i| if x[i] < LOWEST { 0.0 } else { self[i] })
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Eight, Sixteen};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LOWEST, Lanes};
    use std::arch::x86_64::*;

    /// AVX2 with FMA.
    #[derive(Clone, Copy)]
    pub struct Eight(__m256);

    /// AVX-512 (F and DQ).
    #[derive(Clone, Copy)]
    pub struct Sixteen(__m512);

    /// Methods that are one instruction. Values come from `splat` and `load` only, whose callers vouch for the
    /// instruction set.
    macro_rules! instructions {
        ($($name:ident($($arg:ident),*) = $instruction:expr;)*) => {$(
            #[inline(always)]
            fn $name(self, $($arg: Self),*) -> Self {
                // SAFETY: a value of the type exists, so the machine has its instruction set.
                Self(unsafe { $instruction(self.0, $($arg.0),*) })
            }
        )*};
    }

    impl Lanes for Eight {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: promised by the caller.
            Self(unsafe { _mm256_set1_ps(x) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: promised by the caller.
            Self(unsafe { _mm256_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: promised by the caller.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        instructions! {
            add(other) = _mm256_add_ps;
            sub(other) = _mm256_sub_ps;
            mul(other) = _mm256_mul_ps;
            mul_add(factor, term) = _mm256_fmadd_ps;
            div(other) = _mm256_div_ps;
            min(other) = _mm256_min_ps;
            max(other) = _mm256_max_ps;
        }

        #[inline(always)]
        fn largest(self) -> f32 {
            // SAFETY: a value of the type exists, so the machine has its instruction set.
            unsafe {
                let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
                let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
            }
        }

        #[inline(always)]
        fn sum_in_eights<const V: usize>(v: &[Self; V]) -> f32 {
            let all = v[1..].iter().fold(v[0], |sum, v| sum.add(*v));
            // SAFETY: a value of the type exists, so the machine has its instruction set.
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(all.0), _mm256_extractf128_ps::<1>(all.0));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }

        #[inline(always)]
        fn keep(self, index: Self, from: Self, to: Self) -> Self {
            // SAFETY: a value of the type exists, so the machine has its instruction set.
            Self(unsafe {
                let inside = _mm256_and_ps(
                    _mm256_cmp_ps::<_CMP_GE_OQ>(index.0, from.0),
                    _mm256_cmp_ps::<_CMP_LT_OQ>(index.0, to.0),
                );
                _mm256_blendv_ps(_mm256_set1_ps(f32::NEG_INFINITY), self.0, inside)
            })
        }

        #[inline(always)]
        fn power_of_two(self) -> Self {
            // SAFETY: a value of the type exists, so the machine has its instruction set.
            Self(unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(self.0))) })
        }

        #[inline(always)]
        fn zero_below_lowest(self, x: Self) -> Self {
            // SAFETY: a value of the type exists, so the machine has its instruction set.
            Self(unsafe { _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x.0, _mm256_set1_ps(LOWEST)), self.0) })
        }
    }

    impl Sixteen {
        #[inline(always)]
        fn halves(self) -> [Eight; 2] {
            // SAFETY: a value of the type exists, so the machine has its instruction set.
            unsafe { [Eight(_mm512_castps512_ps256(self.0)), Eight(_mm512_extractf32x8_ps::<1>(self.0))] }
        }
    }

    impl Lanes for Sixteen {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: promised by the caller.
            Self(unsafe { _mm512_set1_ps(x) })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: promised by the caller.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: promised by the caller.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        instructions! {
            add(other) = _mm512_add_ps;
            sub(other) = _mm512_sub_ps;
            mul(other) = _mm512_mul_ps;
            mul_add(factor, term) = _mm512_fmadd_ps;
            div(other) = _mm512_div_ps;
            min(other) = _mm512_min_ps;
            max(other) = _mm512_max_ps;
        }

        #[inline(always)]
        fn largest(self) -> f32 {
            let [low, high] = self.halves();
            low.max(high).largest()
        }

        #[inline(always)]
        fn sum_in_eights<const V: usize>(v: &[Self; V]) -> f32 {
            let [first, second] = v[0].halves();
            let mut sum = first.add(second);
            for v in &v[1..] {
                let [first, second] = v.halves();
                sum = sum.add(first).add(second);
            }
            Eight::sum_in_eights(&[sum])
        }

        #[inline(always)]
        fn keep(self, index: Self, from: Self, to: Self) -> Self {
            // SAFETY: a value of the type exists, so the machine has its instruction set.
            Self(unsafe {
                let after = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(index.0, from.0);
                let inside = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(after, index.0, to.0);
                _mm512_mask_blend_ps(inside, _mm512_set1_ps(f32::NEG_INFINITY), self.0)
            })
        }

        #[inline(always)]
        fn power_of_two(self) -> Self {
            // SAFETY: a value of the type exists, so the machine has its instruction set.
            Self(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0))) })
        }

        #[inline(always)]
        fn zero_below_lowest(self, x: Self) -> Self {
            // SAFETY: a value of the type exists, so the machine has its instruction set.
            Self(unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, _mm512_set1_ps(LOWEST)), self.0) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    /// # Safety
    /// The machine has the type's instruction set.
    unsafe fn exp_of<V: Lanes>(x: f32) -> f32 {
        let mut lanes = [0.0; 16];
        // SAFETY: promised by the caller; there is room for the widest type.
        unsafe { V::splat(x).exp().store(lanes.as_mut_ptr()) };
        assert!(lanes[..V::LANES].iter().all(|l| l.to_bits() == lanes[0].to_bits()));
        lanes[0]
    }

    fn check(exp: impl Fn(f32) -> f32, name: &str) {
        for i in 0..50_000 {
            let x = -87.0 + i as f32 * (175.0 / 50_000.0);
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            assert!(((got - want) / want).abs() < 2e-7, "{name}: exp({x}) = {got}, wanted {want}");
        }
        for (x, want) in [(f32::NEG_INFINITY, 0.0), (-1e30, 0.0), (-87.31, 0.0), (0.0, 1.0)] {
            assert_eq!(exp(x), want, "{name}: exp({x})");
        }
        assert!(exp(f32::NAN).is_nan(), "{name}");
    }

    /// # Safety
    /// The machine has the type's instruction set.
    unsafe fn across<V: Lanes, const N: usize>(x: &[f32; 64]) -> (f32, f32) {
        // SAFETY: promised by the caller; N vectors are 64 numbers.
        let v: [V; N] = std::array::from_fn(|i| unsafe { V::load(x[i * V::LANES..].as_ptr()) });
        (v.into_iter().map(V::largest).fold(f32::NEG_INFINITY, f32::max), V::sum_in_eights(&v))
    }

    #[test]
    fn lanes_come_together_in_the_same_order() {
        let mut numbers = crate::testing::Numbers(3);
        for _ in 0..100 {
            let x = <[f32; 64]>::try_from(numbers.vec(64)).unwrap();
            // SAFETY: plain Rust.
            let want = unsafe { across::<[f32; 4], 16>(&x) };
            assert_eq!(want.0, x.into_iter().fold(f32::NEG_INFINITY, f32::max));
            for isa in Isa::all() {
                let got = match isa.of_floats() {
                    Isa::Scalar => want,
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: only listed where the features were detected.
                    Isa::Avx2 => unsafe { across::<Eight, 8>(&x) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: only listed where the features were detected.
                    _ => unsafe { across::<Sixteen, 4>(&x) },
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => want,
                };
                assert_eq!((got.0.to_bits(), got.1.to_bits()), (want.0.to_bits(), want.1.to_bits()), "{}", isa.name());
            }
        }
    }

    #[test]
    fn close_to_the_exact_exponential() {
        for isa in Isa::all() {
            match isa.of_floats() {
                // SAFETY: plain Rust.
                Isa::Scalar => check(|x| unsafe { exp_of::<[f32; 4]>(x) }, isa.name()),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: only listed where the features were detected.
                Isa::Avx2 => check(|x| unsafe { exp_of::<Eight>(x) }, isa.name()),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: only listed where the features were detected.
                _ => check(|x| unsafe { exp_of::<Sixteen>(x) }, isa.name()),
                #[cfg(not(target_arch = "x86_64"))]
                _ => {}
            }
        }
    }
}
