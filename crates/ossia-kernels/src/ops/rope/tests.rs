//! Holds the versions of `rope` together over ragged shapes.

use super::*;
use crate::kv::PageTable;
use crate::testing::{Numbers, close, equals_differences, f32s, f64s, runtimes, tensor, training_step};

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
            let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            close(y, &reference::rotate(&x, &rope, position), 1e-6, "rope");
        }
    }
}

#[test]
fn no_stretching_is_plain_rope() {
    let rope = Rope::new(150_000.0, 1.0, (0.0, 1.0), 16);
    assert_eq!(rope.concentration, 1.0);
    assert_eq!(rope.inv_freq[1], 150_000f64.powf(-2.0 / 16.0) as f32);
}

#[test]
fn the_reference_gradient_equals_differences() {
    let rope = gpt_oss();
    let mut numbers = Numbers(54);
    let (x, d) = (f64s(&mut numbers, 64), f64s(&mut numbers, 64));
    let gradient = reference::backward(&d, &rope, 77);
    let loss = |x: &[f64]| reference::rotate(x, &rope, 77).iter().zip(&d).map(|(y, c)| y * c).sum();
    equals_differences(&gradient, &x, "rope", loss);
}

/// Documents begin at position 0 each; v is left alone in both directions.
#[test]
fn training_equals_the_reference_in_both_directions() {
    let rope = gpt_oss();
    let heads = Heads { query: 2, kv: 1, dim: 64 };
    let mut numbers = Numbers(55);
    let none = PageTable::default();
    let lengths = [1, 5, 70];
    let rows: usize = lengths.iter().sum();
    let x = f64s(&mut numbers, rows * heads.row());
    let positions = lengths.iter().flat_map(|&n| 0..n);
    let turn = |by: fn(&[f64], &Rope, usize) -> Vec<f64>| {
        let tokens = x.chunks_exact(heads.row()).zip(positions.clone());
        tokens
            .flat_map(|(row, p)| {
                let turned = row[..192].chunks_exact(64).flat_map(|head| by(head, &rope, p)).collect::<Vec<f64>>();
                [turned, row[192..].to_vec()].concat()
            })
            .collect::<Vec<f64>>()
    };
    for runtime in runtimes() {
        let mut step = training_step(&runtime, &lengths, &none);
        let mut qkv = tensor(&runtime, rows, heads.row(), &f32s(&x));
        forward(&mut step, &mut qkv, &rope, heads, 0, None).unwrap();
        close(qkv.host(), &turn(reference::rotate), 1e-6, "forward");
        let mut d = tensor(&runtime, rows, heads.row(), &f32s(&x));
        backward(&mut step, &mut d, &rope, heads).unwrap();
        close(d.host(), &turn(reference::backward), 1e-6, "backward");
    }
}
