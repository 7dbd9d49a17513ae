//! How fast tiles are computed in cache and from memory, as files lay them out: a measurement, on one thread.

use super::*;
use crate::testing::{Numbers, runtime};
use crate::{Bytes, DType};

const COLS: usize = 2880;
const GROUPS: usize = COLS / GROUP;

/// Random bytes.
fn random(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 57) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// The layouts.
const LAYOUTS: [&str; 5] = ["Q8", "MXFP4", "BF16", "MXFP4, scales apart", "MXFP4, two in turn"];

/// A matrix of `rows` rows, or the two whose rows lie in turn in one. Scales are near 1: sums of subnormal numbers take far longer.
fn matrices(layout: &str, rows: usize) -> Vec<Matrix> {
    let of = |dtype, group_bytes, fix: fn(&mut [u8])| {
        let mut bytes = random(rows * GROUPS * group_bytes);
        bytes.chunks_exact_mut(group_bytes).for_each(fix);
        vec![Matrix::new(dtype, rows, COLS, Bytes::new(bytes)).unwrap()]
    };
    let codes_apart = || {
        let codes = random(rows * GROUPS * GROUP / 2);
        Matrix::mxfp4(rows, COLS, Bytes::new(codes), Bytes::new(vec![126; rows * GROUPS])).unwrap()
    };
    match layout {
        "Q8" => of(DType::Q8_0, 34, |group| group[1] = 0x3c),
        "MXFP4" => of(DType::Mxfp4, 17, |group| group[0] = 126),
        "BF16" => of(DType::BF16, 64, |values| values.iter_mut().skip(1).step_by(2).for_each(|high| *high = 0x3f)),
        "MXFP4, scales apart" => vec![codes_apart()],
        _ => {
            let both = codes_apart();
            vec![both.every_other(0), both.every_other(1)]
        }
    }
}

#[test]
#[ignore = "a measurement: cargo test --release -p ossia-kernels dot_speed -- --ignored --nocapture"]
fn dot_speed() {
    for (place, rows) in [("in cache", 256), ("from memory", 1 << 16)] {
        for name in LAYOUTS {
            let matrices = matrices(name, rows);
            for isa in Isa::all().into_iter().skip(1) {
                for tokens in [1, 2, 3, 5, 8, 12, 20, 64] {
                    let best = fastest(&matrices, isa, tokens, if rows > 1000 { 2 } else { 100 });
                    let bytes: usize = matrices.iter().map(Matrix::bytes).sum();
                    let products = 2.0 * (rows * COLS) as f64 * f64::from(tokens);
                    let (read, done) = (bytes as f64 / best / 1e9, products / best / 1e9);
                    println!("{name} {place} {isa:?} {tokens} tokens: {read:.1} GB/s, {done:.0} GOP/s");
                }
            }
        }
    }
}

/// Seconds of the fastest of some passes over all tiles of the matrices, of each in turn.
fn fastest(matrices: &[Matrix], isa: Isa, num: u32, passes: usize) -> f64 {
    let x = Numbers(11).vec(64 * COLS);
    let runtime = runtime(isa, 1, Precision::Fast);
    let input = Input::new(&runtime, &x, COLS, matrices[0].kind()).unwrap();
    let mut panels = Panels::new(&runtime.arena, 1, COLS).unwrap();
    let panels = panels.split();
    let mut scratch = panels[0].lock().unwrap();
    let Scratch { panel, out: [out, _] } = &mut *scratch;
    let tokens: Vec<u32> = (0..num).collect();
    let lists = Lists::new(&runtime, &input, COLS, vec![&tokens]).unwrap();
    let mut pass = |_| {
        let start = std::time::Instant::now();
        for tiles in lists.runs(0, &(0..matrices[0].rows() / TILE)) {
            for m in matrices {
                lists.tiles(0, m, tiles.clone(), panel, out);
                std::hint::black_box(&out);
            }
        }
        start.elapsed().as_secs_f64()
    };
    (0..passes).map(&mut pass).fold(f64::INFINITY, f64::min)
}
