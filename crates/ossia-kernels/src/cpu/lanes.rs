//! Loops over arrays of sixteen lanes, compiled once for each instruction set.
//!
//! Training has many small loops, each in two directions. They are written in plain Rust over arrays, and [`versions`]
//! compiles one body for AVX-512, AVX2 and the plain machine; the compiler makes vectors of the arrays. `FMA` is true
//! where the machine multiplies and adds in one step, so f32 results may differ between instruction sets in their last
//! bits, never between threads or shapes.

/// Lanes of an array: two of them fill what AVX2 has, one what AVX-512 has.
pub const LANES: usize = 16;

/// One number for each lane.
pub type Lanes = [f32; LANES];

/// Defines `fn name(isa, arguments)` that runs `body::<FMA>(arguments)`, an `#[inline(always)]` function, compiled for
/// `isa`.
macro_rules! versions {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::cpu::isa::Isa, $($arg: $type),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512($($arg: $type),*) $(-> $ret)? { $body::<true>($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $ret)? { $body::<true>($($arg),*) }
            match isa.of_floats() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: this version is only named where its features were detected.
                $crate::cpu::isa::Isa::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::cpu::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                _ => $body::<false>($($arg),*),
            }
        }
    };
}
pub(crate) use versions;

/// a b + c, in one step where the machine has it.
#[inline(always)]
pub fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The sum of all lanes, pairwise.
#[inline(always)]
pub fn sum(mut lanes: Lanes) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// a · b: sixteen chains of fma, then pairwise.
#[inline(always)]
pub fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let mut acc = [0.0; LANES];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for i in 0..LANES {
            acc[i] = fma::<FMA>(a[i], b[i], acc[i]);
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        acc[i] = fma::<FMA>(*a, *b, acc[i]);
    }
    sum(acc)
}

/// e^x in each lane, by the polynomial of `cpu::vector`: 0 below -87.3, infinity above 88.3, not-a-number stays.
#[inline(always)]
pub fn exp<const FMA: bool>(x: Lanes) -> Lanes {
    /// Adding it rounds a float of moderate size to an integer, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const TAYLOR: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let mut y = [0.0; LANES];
    for i in 0..LANES {
        // Comparisons are false for not-a-number, which so passes through.
        let clamped = if x[i] < -87.3 { -87.3 } else { x[i] };
        let clamped = if clamped > 88.3 { 88.3 } else { clamped };
        let shifted = fma::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = fma::<FMA>(n, -0.693_359_4, clamped);
        let r = fma::<FMA>(n, 2.121_944_4e-4, r);
        let mut p = 1.0 / 5040.0;
        for c in TAYLOR {
            p = fma::<FMA>(p, r, c);
        }
        let power = f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23);
        let e = p * power;
        let e = if x[i] < -87.3 { 0.0 } else { e };
        y[i] = if x[i] > 88.3 { f32::INFINITY } else { e };
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    #[inline(always)]
    fn exps<const FMA: bool>(x: &mut [f32]) {
        x.as_chunks_mut::<LANES>().0.iter_mut().for_each(|x| *x = exp::<FMA>(*x));
    }

    versions! {
        fn exps_of(x: &mut [f32]) = exps
    }

    #[test]
    fn exponentials_are_close() {
        for isa in Isa::all() {
            let x: Vec<f32> = (0..160_000).map(|i| -87.0 + i as f32 * (175.0 / 160_000.0)).collect();
            let mut y = x.clone();
            exps_of(isa, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let want = f64::from(*x).exp();
                assert!(((f64::from(*y) - want) / want).abs() < 2.5e-7, "{isa:?}: exp({x}) = {y}, wanted {want}");
            }
            let mut edge = [f32::NEG_INFINITY, -1e30, 0.0, 100.0, f32::NAN, f32::INFINITY].repeat(8);
            exps_of(isa, &mut edge);
            assert_eq!(edge[..4], [0.0, 0.0, 1.0, f32::INFINITY]);
            assert!(edge[4].is_nan() && edge[5] == f32::INFINITY);
        }
    }

    #[test]
    fn dot_products_take_any_length() {
        for n in [0, 1, 15, 16, 17, 40] {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let want: f32 = a.iter().map(|v| v * v).sum();
            assert_eq!(dot::<true>(&a, &a), want);
            assert_eq!(dot::<false>(&a, &a), want);
        }
    }
}
