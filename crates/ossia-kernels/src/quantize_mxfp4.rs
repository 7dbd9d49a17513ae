//! Float weights to MXFP4, by the rule "up" of the published kernels (SPEC 3.2).
//!
//! A group's scale is the smallest power of two that is at least max|w| / 6, found on the bits of the f32 quotient, so
//! nothing is clipped; an element is the nearest E2M1 value, a tie goes to the even code, and the sign is kept. Bytes
//! are those of the published kernels. Writing values that MXFP4 has keeps them, though not always their bytes: a
//! group without large codes gets a smaller scale.
//!
//! Faults stay visible: a group with a value that is not finite gets the scale byte of not-a-number, which no
//! checkpoint may hold, and all its values read as not-a-number. Magnitudes from 3.5 * 2^126 on, beyond what f32 can
//! hold after rounding, read as infinite.

use crate::cpu::isa::Isa;
use crate::mxfp4::{self, GROUP, NAN_SCALE};

/// Bytes of a group's packed codes.
pub const PACKED: usize = GROUP / 2;

/// The scale byte and the codes (0 to 15) of 32 neighbours along the input.
pub fn quantize_group(values: &[f32; GROUP]) -> (u8, [u8; GROUP]) {
    let byte = scale_byte(values);
    if byte == NAN_SCALE {
        return (byte, [0; GROUP]);
    }
    let inverse = inverse(byte);
    (byte, values.map(|v| code(v.abs() * inverse) | u8::from(v.is_sign_negative()) << 3))
}

/// The scale byte of a group, without its codes.
#[inline(always)]
pub fn scale_byte(values: &[f32; GROUP]) -> u8 {
    // The bits of positive floats are in the order of the floats, not-a-number comes last.
    let largest = values.iter().fold(0, |max, v| (v.to_bits() as i32 & i32::MAX).max(max)) as u32;
    if largest >= f32::INFINITY.to_bits() {
        return NAN_SCALE;
    }
    let quotient = (f32::from_bits(largest) / 6.0).to_bits();
    // Past the mantissa rounds the exponent up, unless the quotient is a power of two already.
    ((quotient + 0x007F_FFFF) >> 23) as u8
}

/// 1 / scale, exactly; 0 for the byte of a group of zeros.
#[inline(always)]
fn inverse(byte: u8) -> f32 {
    if byte == 0 { 0.0 } else { f32::from_bits((254 - u32::from(byte)) << 23) }
}

/// The code of the E2M1 value nearest to `a`, which is not negative. The bounds lie half-way between values; at those
/// with an equals sign the code above is the even one.
#[inline(always)]
fn code(a: f32) -> u8 {
    let passed = [a > 0.25, a >= 0.75, a > 1.25, a >= 1.75, a > 2.5, a >= 3.5, a > 5.0];
    passed.iter().map(|&p| u8::from(p)).sum()
}

/// Twice the E2M1 value nearest to `a`: the steps between the codes' values in [`mxfp4::DOUBLED`], by the same bounds.
#[inline(always)]
fn doubled(a: f32) -> f32 {
    let step = |passed: bool, by: f32| if passed { by } else { 0.0 };
    let small = step(a > 0.25, 1.0) + step(a >= 0.75, 1.0) + step(a > 1.25, 1.0) + step(a >= 1.75, 1.0);
    small + step(a > 2.5, 2.0) + step(a >= 3.5, 2.0) + step(a > 5.0, 4.0)
}

/// Replaces each value by what is read back after quantizing, storing and loading it: the same bits as
/// [`crate::Matrix::group`] gives. `values` is whole groups, laid along the input.
pub fn fake_quantize(values: &mut [f32]) {
    let groups = values.as_chunks_mut::<GROUP>();
    assert!(groups.1.is_empty(), "values come in groups of {GROUP}");
    match Isa::detect().of_floats() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: these are only given where the features were detected.
        Isa::Avx2 | Isa::Avx512 => unsafe { fake_avx2(groups.0) },
        _ => fake_groups(groups.0),
    }
}

/// The same loop, compiled with wider vectors.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn fake_avx2(groups: &mut [[f32; GROUP]]) {
    fake_groups(groups);
}

#[inline(always)]
fn fake_groups(groups: &mut [[f32; GROUP]]) {
    for group in groups {
        let byte = scale_byte(group);
        if byte == NAN_SCALE {
            group.fill(f32::NAN);
            continue;
        }
        let (scale, inverse) = (mxfp4::scale(byte), inverse(byte));
        for v in group {
            // Adding zero makes +0 of -0, as reading does; the order of the factors is also the reader's.
            let signed = doubled(v.abs() * inverse).copysign(*v) + 0.0;
            *v = 0.5 * signed * scale;
        }
    }
}

/// Two codes a byte, elements 2j (low nibble) and 2j+1: blocks of the safetensors layouts.
pub fn pack_pairs(codes: &[u8; GROUP]) -> [u8; PACKED] {
    std::array::from_fn(|j| codes[2 * j] | codes[2 * j + 1] << 4)
}

/// Two codes a byte, elements j (low nibble) and j+16: blocks of GGUF.
pub fn pack_halves(codes: &[u8; GROUP]) -> [u8; PACKED] {
    std::array::from_fn(|j| codes[j] | codes[j + PACKED] << 4)
}

/// The codes in a block of the safetensors layouts.
pub fn unpack_pairs(packed: &[u8; PACKED]) -> [u8; GROUP] {
    std::array::from_fn(|i| packed[i / 2] >> (4 * (i % 2)) & 15)
}

/// The codes in a block of GGUF.
pub fn unpack_halves(packed: &[u8; PACKED]) -> [u8; GROUP] {
    std::array::from_fn(|i| packed[i % PACKED] >> (4 * (i / PACKED)) & 15)
}

/// Quantizes whole groups into planes: `blocks` [groups, 16] in pairs and `scales` [groups], as safetensors have them.
pub fn to_planes(values: &[f32], blocks: &mut [u8], scales: &mut [u8]) {
    let (groups, rest) = values.as_chunks::<GROUP>();
    let blocks = blocks.as_chunks_mut::<PACKED>().0;
    assert!(rest.is_empty() && (blocks.len(), scales.len()) == (groups.len(), groups.len()), "one block a group");
    for ((group, block), scale) in groups.iter().zip(blocks).zip(scales) {
        let (byte, codes) = quantize_group(group);
        (*block, *scale) = (pack_pairs(&codes), byte);
    }
}

/// Quantizes whole groups into GGUF's blocks of 17 bytes: the scale, then the codes in halves.
pub fn to_blocks(values: &[f32], blocks: &mut [u8]) {
    let (groups, rest) = values.as_chunks::<GROUP>();
    let blocks = blocks.as_chunks_mut::<{ PACKED + 1 }>().0;
    assert!(rest.is_empty() && blocks.len() == groups.len(), "one block a group");
    for (group, block) in groups.iter().zip(blocks) {
        let (byte, codes) = quantize_group(group);
        block[0] = byte;
        block[1..].copy_from_slice(&pack_halves(&codes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, same_bits};
    use crate::{Bytes, DType, Matrix};

    /// Through storage and back, in both byte orders.
    fn stored(values: &[f32]) -> Vec<f32> {
        let groups = values.len() / GROUP;
        let (mut blocks, mut scales) = (vec![0; groups * PACKED], vec![0; groups]);
        to_planes(values, &mut blocks, &mut scales);
        let planar = Matrix::mxfp4(1, values.len(), Bytes::new(blocks), Bytes::new(scales)).unwrap();
        let mut gguf = vec![0; groups * (PACKED + 1)];
        to_blocks(values, &mut gguf);
        let gguf = Matrix::new(DType::Mxfp4, 1, values.len(), Bytes::new(gguf)).unwrap();
        let mut out = [vec![0.0; values.len()], vec![0.0; values.len()]];
        planar.row_into(0, &mut out[0]);
        gguf.row_into(0, &mut out[1]);
        same_bits(&out[0], &out[1], "byte orders");
        out[0].clone()
    }

    /// Groups of every magnitude that f32 has, subnormals included, with ties, zeros of both signs and random bits.
    fn groups() -> Vec<f32> {
        let mut numbers = Numbers(11);
        let mut values = vec![0.0; GROUP];
        values.extend([-0.0; GROUP]);
        for power in -149..126 {
            let scale = 2f64.powi(power);
            values.extend((0..GROUP).map(|_| (f64::from(numbers.unit()) * scale) as f32));
            values.extend((0..GROUP as i32).map(|i| (f64::from(i - 12) * 0.25 * scale) as f32));
        }
        let bits = |n: &mut Numbers| f32::from_bits(n.bits() as u32);
        let mut random = || std::iter::repeat_with(|| bits(&mut numbers)).find(|v| v.is_finite()).unwrap_or(0.0);
        values.extend((0..200 * GROUP).map(|_| random()));
        values
    }

    #[test]
    fn fake_is_storing_and_loading_bit_for_bit() {
        let values = groups();
        let want = stored(&values);
        let (mut fake, mut plain) = (values.clone(), values);
        fake_quantize(&mut fake);
        same_bits(&fake, &want, "fake");
        fake_groups(plain.as_chunks_mut().0);
        same_bits(&plain, &want, "without wide vectors");
    }

    #[test]
    fn values_that_mxfp4_has_are_kept() {
        let once: Vec<f32> = stored(&groups());
        let finite: Vec<f32> =
            once.chunks(GROUP).filter(|g| g.iter().all(|v| v.is_finite())).flatten().copied().collect();
        assert!(finite.len() > 600 * GROUP);
        same_bits(&stored(&finite), &finite, "twice");
    }

    #[test]
    fn the_nearest_value_under_the_smallest_scale_that_clips_nothing() {
        let values = groups();
        for group in values.as_chunks::<GROUP>().0 {
            let (byte, codes) = quantize_group(group);
            let largest = group.iter().fold(0.0f64, |m, &v| m.max(f64::from(v).abs()));
            let scale = if byte == 0 { 0.0 } else { 2f64.powi(i32::from(byte) - 127) };
            // The quotient is rounded to f32 first, so it may be off by half a unit in the last place.
            let slack = f64::from(f32::EPSILON);
            assert!(largest / 6.0 <= scale * (1.0 + slack) + 2f64.powi(-149), "{largest:e} is clipped by {byte}");
            assert!(byte <= 1 || largest / 6.0 > scale / 2.0 * (1.0 - slack), "{byte} is more than {largest:e} needs");
            for (&v, &code) in group.iter().zip(&codes) {
                let away = |code: u8| (f64::from(v).abs() - f64::from(mxfp4::value(code & 7, 127)) * scale).abs();
                let best = (0..8).map(away).fold(f64::INFINITY, f64::min);
                assert_eq!(away(code), best, "{v:e} as code {code} under {byte}");
                assert_eq!(code >> 3 == 1, v.is_sign_negative());
            }
        }
    }

    #[test]
    fn ties_go_to_the_even_code() {
        let ties = [(0.25, 0), (0.75, 2), (1.25, 2), (1.75, 4), (2.5, 4), (3.5, 6), (5.0, 6)];
        for (value, want) in ties {
            let mut group = [0.0; GROUP];
            (group[0], group[1], group[2]) = (6.0, value, -value);
            let (byte, codes) = quantize_group(&group);
            assert_eq!((byte, codes[0], codes[1], codes[2]), (127, 7, want, want | 8), "{value}");
        }
    }

    #[test]
    fn faults_stay_visible() {
        for fault in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
            let mut group = [1.0; GROUP];
            group[31] = fault;
            assert_eq!(quantize_group(&group), (NAN_SCALE, [0; GROUP]));
            assert!(stored(&group).iter().all(|v| v.is_nan()));
            fake_quantize(&mut group);
            assert!(group.iter().all(|v| v.is_nan()));
        }
        // The largest values round up to 2^128.
        let mut group = [f32::MAX; GROUP];
        assert_eq!(quantize_group(&group), (253, [6; GROUP]));
        fake_quantize(&mut group);
        assert!(group.iter().all(|v| v.is_infinite()));
    }

    #[test]
    fn packing_is_undone_by_unpacking() {
        let mut numbers = Numbers(5);
        for _ in 0..100 {
            let codes: [u8; GROUP] = std::array::from_fn(|_| numbers.below(16) as u8);
            assert_eq!(unpack_pairs(&pack_pairs(&codes)), codes);
            assert_eq!(unpack_halves(&pack_halves(&codes)), codes);
        }
    }
}
