//! Holds the versions of `rope` together over ragged shapes.

use super::*;
use crate::testing::{Numbers, close};

/// gpt-oss' frequencies; the ramp is that of SPEC 5.1.
fn gpt_oss() -> Rope {
    Rope::new(150_000.0, 32.0, (8.092_779, 17.398_025), 64)
}

#[test]
fn the_published_frequencies() {
    let rope = gpt_oss();
    assert!((rope.concentration - 1.346_573_6).abs() < 1e-7);
    let plain = |i: i32| 150_000f64.powf(-2.0 * f64::from(i) / 64.0);
    for i in 0..=8 {
        assert_eq!(rope.inv_freq[i as usize], plain(i) as f32, "{i} is unscaled");
    }
    for i in 18..32 {
        assert_eq!(rope.inv_freq[i as usize], (plain(i) / 32.0) as f32, "{i} is divided");
    }
}

#[test]
fn rotation_equals_the_reference_far_out() {
    let rope = gpt_oss();
    let mut numbers = Numbers(12);
    for position in [0, 1, 127, 4095, 4096, 131_071] {
        let x = numbers.vec(3 * 64);
        let mut y = x.clone();
        cpu::rotate(&mut y, &rope, position, 64);
        for (x, y) in x.chunks_exact(64).zip(y.chunks_exact(64)) {
            close(y, &reference::rotate(x, &rope, position), 1e-6, "rope");
        }
    }
}

#[test]
fn no_stretching_is_plain_rope() {
    let rope = Rope::new(150_000.0, 1.0, (0.0, 1.0), 16);
    assert_eq!(rope.concentration, 1.0);
    assert_eq!(rope.inv_freq[1], 150_000f64.powf(-2.0 / 16.0) as f32);
}
