//! A small seeded generator whose streams are fixed for good: synthetic weights must not change with a library.
//!
//! xoshiro256++ (Blackman and Vigna) seeded through SplitMix64; quantiles of the normal distribution by Acklam's
//! rational approximation (relative error below 1.2e-9).

/// A stream of random numbers.
pub(in crate::gpt_oss) struct Rng([u64; 4]);

impl Rng {
    /// Stream `index` of the family `key`.
    pub fn new(key: u64, index: u64) -> Self {
        let mut state = mix(key ^ mix(index));
        Self([0; 4].map(|_: u64| {
            state = state.wrapping_add(GOLDEN);
            mix(state)
        }))
    }

    /// The next 64 random bits.
    #[inline]
    pub fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finalizer.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One number for seed, name and shape.
pub(in crate::gpt_oss) fn key(seed: u64, name: &str, shape: &[usize]) -> u64 {
    let bytes = name.bytes().map(u64::from);
    let sizes = shape.iter().map(|&d| d as u64);
    bytes
        .chain([u64::MAX])
        .chain(sizes)
        .fold(mix(seed.wrapping_add(GOLDEN)), |key, x| mix(key.wrapping_mul(GOLDEN).wrapping_add(x).wrapping_add(1)))
}

/// The normal distribution's quantiles at (i + 1/2) / 65536.
pub(super) fn normal_quantiles() -> Vec<f32> {
    let half: Vec<f32> = (0..32768).map(|i| quantile((f64::from(i) + 0.5) / 65536.0) as f32).collect();
    half.iter().copied().chain(half.iter().rev().map(|q| -q)).collect()
}

/// The normal distribution's quantile at p, for 0 < p < 1/2.
fn quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 6] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 5] = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416, 1.0];
    let horner = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    if p < 0.02425 {
        let q = (-2.0 * p.ln()).sqrt();
        return horner(&C, q) / horner(&D, q);
    }
    let q = p - 0.5;
    horner(&A, q * q) * q / horner(&B, q * q)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        // From tables: Phi^-1 at 0.025, 0.001, 0.25.
        for (p, wanted) in
            [(0.025, -1.959_963_984_540_054), (0.001, -3.090_232_306_167_813), (0.25, -0.674_489_750_196_081_7)]
        {
            assert!((quantile(p) / wanted - 1.0).abs() < 2e-9, "{p}: {}", quantile(p));
        }
        let all = normal_quantiles();
        assert_eq!(all.len(), 65536);
        assert!(all.is_sorted());
        let variance = all.iter().map(|&q| f64::from(q).powi(2)).sum::<f64>() / 65536.0;
        assert!((variance - 1.0).abs() < 1e-3, "{variance}");
    }

    #[test]
    fn streams_differ_by_seed_name_shape_and_chunk() {
        let first = |seed, name, shape: &[usize], chunk| Rng::new(key(seed, name, shape), chunk).next();
        let base = first(0, "a", &[2, 3], 0);
        assert_eq!(base, first(0, "a", &[2, 3], 0));
        for other in
            [first(1, "a", &[2, 3], 0), first(0, "b", &[2, 3], 0), first(0, "a", &[3, 2], 0), first(0, "a", &[2, 3], 1)]
        {
            assert_ne!(base, other);
        }
    }
}
