//! Holds the versions of `rope` together over ragged shapes.

use half::f16;

use super::*;
use crate::kv::{KvLayer, KvType, PAGE, PageTable, Store};
use crate::testing::{Numbers, close, equals_differences, f32s, f64s, runtimes, tensor, training_step};
use crate::{Phase, Sequence, Step};

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

/// Every head of every token is rotated once, and its key and value lie in its sequence's page, whatever a task's share is.
#[test]
fn inference_equals_the_reference_and_leaves_keys_and_values_in_pages() {
    let rope = gpt_oss();
    let heads = Heads { query: 6, kv: 3, dim: 64 };
    let mut numbers = Numbers(56);
    // Tokens that came before, and new ones; the second begins in a page's last slot, the third goes on into a next page.
    let spans = [(0, 1), (63, 5), (17, 70)];
    let tables: Vec<PageTable> =
        [vec![4], vec![1, 3], vec![0, 2]].map(|pages| PageTable { first: 0, pages }).into_iter().collect();
    let rows: usize = spans.iter().map(|s| s.1).sum();
    let x = f64s(&mut numbers, rows * heads.row());
    for (runtime, kind) in runtimes().iter().flat_map(|r| [(r, KvType::F32), (r, KvType::F16)]) {
        let mut kv = vec![KvLayer::new(kind, 5, heads.kv, heads.dim)];
        let mut next = 0;
        let sequences = spans.iter().zip(&tables).map(|(&(start, new), table)| {
            next += new;
            Sequence { rows: next - new..next, start, full: table, sliding: table, adapter: None }
        });
        let sequences = sequences.collect();
        let mut step =
            Step { runtime, phase: Phase::Inference, sequences, kv: &mut kv, logits_rows: vec![], tap: None };
        let mut qkv = tensor(runtime, rows, heads.row(), &f32s(&x));
        forward(&mut step, &mut qkv, &rope, heads, 0, None).unwrap();
        drop(step);
        let tokens = spans.iter().zip(&tables).flat_map(|(&(start, new), t)| (start..start + new).map(move |p| (p, t)));
        for ((position, table), (x, y)) in
            tokens.zip(x.chunks_exact(heads.row()).zip(qkv.host().chunks_exact(heads.row())))
        {
            let (rotated, v) = y.split_at((heads.query + heads.kv) * heads.dim);
            for (x, y) in x.chunks_exact(heads.dim).zip(rotated.chunks_exact(heads.dim)) {
                close(y, &reference::rotate(x, &rope, position), 1e-6, "rotated");
            }
            assert_eq!(v, f32s(&x[rotated.len()..]), "values are left alone");
            let k = &rotated[heads.query * heads.dim..];
            for (i, (&k, &v)) in k.iter().zip(v).enumerate() {
                let (head, channel) = (i / heads.dim, i % heads.dim);
                let base = kv[0].offset(table.page_of(position), head);
                let key = number(kv[0].keys(), base + channel * PAGE + position % PAGE);
                let value = number(kv[0].values(), base + position % PAGE * heads.dim + channel);
                let kept = |v: f32| if kind == KvType::F16 { f16::from_f32(v).to_f32() } else { v };
                assert_eq!((key, value), (kept(k), kept(v)), "{kind:?} {position} {i}");
            }
        }
    }
}

fn number(store: &Store, at: usize) -> f32 {
    match store {
        Store::F32(all) => all[at],
        Store::F16(all) => f16::from_bits(all[at]).to_f32(),
        Store::Cuda(_) => unreachable!(),
    }
}
