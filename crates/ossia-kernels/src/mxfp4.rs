//! MXFP4: 32 E2M1 codes that share one E8M0 scale (OCP MX v1.0; SPEC 3).

/// Elements that share a scale.
pub const GROUP: usize = 32;

/// Twice the value of each E2M1 code, so that all are integers.
pub const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The scale byte that the standard calls not-a-number.
pub const NAN_SCALE: u8 = 255;

/// 2^(byte - 127), exactly: the smallest is subnormal, 255 is infinite (and refused when a checkpoint is opened).
pub const fn scale(byte: u8) -> f32 {
    let bits = (byte as u32) << 23;
    f32::from_bits(if bits == 0 { 0x0040_0000 } else { bits })
}

/// The value of `code` under `scale_byte`, exactly.
pub const fn value(code: u8, scale_byte: u8) -> f32 {
    let doubled = DOUBLED[(code & 15) as usize] as f32;
    // -0 has a code of its own; the doubled integers lose its sign.
    let doubled = if code & 15 == 8 { -0.0 } else { doubled };
    doubled * 0.5 * scale(scale_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_exact_powers() {
        for byte in 0..255u8 {
            assert_eq!(scale(byte) as f64, 2f64.powi(byte as i32 - 127), "{byte}");
        }
        assert!(scale(NAN_SCALE).is_infinite());
    }

    #[test]
    fn codes_have_the_values_of_the_standard() {
        let values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        for (code, v) in values.iter().enumerate() {
            assert_eq!(value(code as u8, 127), *v);
            assert_eq!(value(code as u8 | 8, 127), -*v);
            assert!(value(code as u8 | 8, 127).is_sign_negative());
        }
    }
}
