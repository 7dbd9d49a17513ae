//! Holds the versions of `dot` together over ragged shapes.

use super::quantize::{Order, Weights, quantize};
use super::*;
use crate::testing::{KINDS, Numbers, runtime, same_bits};

#[test]
fn quantizing_gives_the_same_bits_everywhere() {
    let mut numbers = Numbers(9);
    let mut x = numbers.vec(32 * 40);
    x[0..32].fill(0.0);
    x[33] = f32::NAN;
    x[64] = f32::INFINITY;
    x[96..128].fill(1e-38);
    x[128..160].iter_mut().for_each(|v| *v *= 1e-18);
    x[160..192].iter_mut().for_each(|v| *v *= 1e30);
    // Halves: ties must go to even.
    (0..32).for_each(|i| x[192 + i] = (i as f32 - 15.5) * 127.0 / 63.5);
    for weights in [Weights::Codes(Order::Natural), Weights::Codes(Order::EvenOdd), Weights::Bytes] {
        let results = Isa::all().into_iter().map(|isa| {
            let (mut q, mut d, mut s) = (vec![0; x.len()], vec![0.0; 40], vec![0; 40]);
            quantize(isa, &x, weights, &mut q, &mut d, &mut s);
            let bits: Vec<u32> = d.iter().map(|v: &f32| if v.is_nan() { 1 } else { v.to_bits() }).collect();
            // With AVX2 those of codes are in two parts.
            let in_two = isa == Isa::Avx2 && weights != Weights::Bytes;
            let sum = |s: i32| if in_two { i32::from(s as i16) + i32::from((s >> 16) as i16) } else { s };
            (q, bits, s.into_iter().map(sum).collect::<Vec<_>>())
        });
        let results: Vec<_> = results.collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{weights:?}");
    }
}

#[test]
fn quantized_values_are_within_half_a_step() {
    let x = Numbers(10).vec(320);
    for (weights, doubled, offset) in [(Weights::Codes(Order::Natural), 2.0, 12), (Weights::Bytes, 1.0, 128)] {
        let (mut q, mut d, mut s) = (vec![0; 320], vec![0.0; 10], vec![0; 10]);
        quantize(Isa::Scalar, &x, weights, &mut q, &mut d, &mut s);
        for (i, (&x, &q)) in x.iter().zip(&q).enumerate() {
            let d = doubled * d[i / 32];
            assert!((x - f32::from(q) * d).abs() <= 0.5001 * d);
        }
        let sum = |q: &[i8]| q.iter().map(|&v| i32::from(v)).sum::<i32>();
        assert!(s.iter().zip(q.chunks_exact(32)).all(|(&s, q)| s == -offset * sum(q)));
    }
}

/// Every version gives the bits of every other for random numbers of a shape, tokens in reverse.
fn same_everywhere(numbers: &mut Numbers, kind: Kind, (rows, cols, tokens): (usize, usize, usize)) {
    let m = numbers.matrix(kind, rows, cols);
    let x = numbers.vec(tokens * cols);
    let picked: Vec<u32> = (0..tokens as u32).rev().collect();
    let all: Vec<Vec<f32>> = Isa::all().into_iter().map(|isa| all_tiles(isa, &m, &x, &picked)).collect();
    all.windows(2).for_each(|p| same_bits(&p[0], &p[1], &format!("{kind:?} {rows} x {cols}, {tokens} tokens")));
}

/// The integer kernels have one definition; every version, direct or unpacked, gives its bits.
#[test]
fn integer_dots_have_the_same_bits_everywhere() {
    let mut numbers = Numbers(11);
    for kind in KINDS.into_iter().filter(|k| k.is_quantized()) {
        for (rows, cols, tokens) in [
            (1, 32, 1),
            (9, 64, 2),
            (13, 96, 3),
            (8, 320, 4),
            (33, 64, 2),
            (34, 96, 3),
            (35, 64, 4),
            (36, 96, 7),
            (20, 2880, 11),
            (5, 160, 9),
            (17, 64, 21),
            (40, 96, 14),
            (19, 160, 5),
            (21, 192, 10),
            (16, 288, 12),
            (23, 96, 13),
            (16, 64, 6),
            (18, 32, 8),
            (17, 320, 33),
            (35, 224, 77),
            (16, 544, 128),
        ] {
            same_everywhere(&mut numbers, kind, (rows, cols, tokens));
        }
    }
}

/// How tokens are laid down depends on their number, and how many tiles are taken at once on the rows' number.
#[test]
fn every_number_of_tokens_gives_the_same_bits() {
    let mut numbers = Numbers(17);
    for kind in KINDS.into_iter().filter(|k| k.is_quantized()) {
        for tokens in (1..=42).chain([57, 64, 65, 66, 67, 72, 75, 96, 113, 128]) {
            let (rows, cols) = ([16, 71, 128, 45][tokens % 4], 32 * [1, 6, 7, 13, 20][tokens % 5]);
            same_everywhere(&mut numbers, kind, (rows, cols, tokens));
        }
    }
}

/// Scratch is planned before lists are known.
#[test]
#[cfg(target_arch = "x86_64")]
fn what_lists_take_is_within_the_plan() {
    use lanes_avx2::{Formats, Plan};
    let mut numbers = Numbers(18);
    for lists in [1, 3, 32] {
        for most in [1, 4, 9, 16, 17, 40, MOST_TOKENS] {
            let sizes = numbers.vec(lists).into_iter().map(|v| 1 + (v.abs() * 1e3) as usize % most);
            let sizes: Vec<usize> = sizes.collect();
            for format in [Formats::Codes, Formats::Bytes, Formats::VnniCodes, Formats::VnniBytes] {
                let took: usize = sizes.iter().map(|&size| Plan::of(format, size).vectors).sum();
                assert!(took <= Plan::most_vectors(lists, sizes.iter().sum()), "{sizes:?}");
            }
        }
    }
}

/// Two rows a vector, in blocks of six and three tokens, add as one row a vector does.
#[test]
#[cfg(target_arch = "x86_64")]
fn float_dots_have_the_same_bits_with_longer_vectors() {
    if !Isa::all().contains(&Isa::Avx512) {
        return;
    }
    let mut numbers = Numbers(16);
    for kind in KINDS {
        for (rows, cols, tokens) in (1..=13).map(|tokens| (tokens * 5 % 37 + 1, 32 * (tokens % 4 + 1), tokens)) {
            let m = numbers.matrix(kind, rows, cols);
            let x = numbers.vec(tokens * cols);
            let picked: Vec<u32> = (0..tokens as u32).rev().collect();
            let of = |isa| all_tiles_in(Precision::F32, isa, &m, &x, &picked);
            same_bits(&of(Isa::Avx512), &of(Isa::Avx2), &format!("{kind:?} {rows} x {cols}, {tokens} tokens"));
        }
    }
}

/// A machine takes one way, which depends on its processor; all of them are tried, with tokens that fill a panel and others that
/// use it.
#[test]
#[cfg(target_arch = "x86_64")]
fn all_ways_lead_to_the_same_bits() {
    if !Isa::all().contains(&Isa::Avx512) {
        return;
    }
    let vbmi = is_x86_feature_detected!("avx512vbmi");
    let mut numbers = Numbers(15);
    for kind in KINDS.into_iter().filter(|k| k.is_quantized()) {
        for (cols, num) in [(32, 1), (160, 2), (96, 3), (288, 5), (64, 8), (224, 9), (160, 13), (128, 17), (2880, 26)] {
            let whole = numbers.matrix(kind, 4 * TILE + 2, cols);
            let x = numbers.vec(num * cols);
            let runtime = runtime(Isa::Avx512, 1, Precision::Fast);
            let Input::Int8(int8) = Input::new(&runtime, &x, cols, kind).unwrap() else { panic!("integers") };
            let tokens: Vec<u32> = (0..num as u32).rev().collect();
            let mut panels = Panels::new(&runtime.arena, 1, cols).unwrap();
            let panels = panels.split();
            let mut scratch = panels[0].lock().unwrap();
            for (m, row) in [(whole.every_other(1), TILE + 1), (whole, 3 * TILE + 2)] {
                let want = all_tiles(Isa::Scalar, &m.rows_of(row..row + TILE), &x, &tokens);
                for way in [Way::Plain, Way::Wide, Way::Halves].into_iter().filter(|way| *way == Way::Plain || vbmi) {
                    let mut out = vec![[f32::NAN; TILE]; num];
                    // SAFETY: the features were detected.
                    unsafe {
                        int8_avx512::tile(way, &m, row, &int8, &tokens, &mut scratch.panel, &mut out);
                    }
                    same_bits(out.as_flattened(), &want, &format!("{kind:?}, {way:?}, {cols} columns, {num} tokens"));
                }
            }
        }
    }
}

/// Integers are scaled by adding to an exponent, unless a scale is too far from 1 for that.
#[test]
#[cfg(target_arch = "x86_64")]
fn far_scales_give_the_same_bits() {
    if !Isa::all().contains(&Isa::Avx512) {
        return;
    }
    let mut numbers = Numbers(17);
    for exponent in [0, 1, 30, 75, 76, 77, 126, 132, 133, 134, 180, 254] {
        let codes: Vec<u8> = numbers.vec(TILE * 32).iter().map(|v| v.to_bits() as u8).collect();
        let mut exponents = vec![120u8; 2 * TILE];
        exponents[7] = exponent;
        let m = Matrix::mxfp4(TILE, 64, codes.into_bytes(), exponents.into_bytes()).unwrap();
        for scale in [1e-21, 1e-19, 1e-3, 1.0, 1e4] {
            let x: Vec<f32> = numbers.vec(13 * 64).iter().map(|v| v * scale).collect();
            let tokens: Vec<u32> = (0..13).collect();
            let of = |isa| all_tiles(isa, &m, &x, &tokens);
            same_bits(&of(Isa::Avx512), &of(Isa::Scalar), &format!("exponent {exponent}, activations of {scale}"));
        }
    }
}

/// Machines that do not read in the order of addresses never take this way, which they may well have.
#[test]
#[cfg(target_arch = "x86_64")]
fn rows_are_multiplied_along_themselves_to_the_same_bits() {
    if !Isa::all().contains(&Isa::Avx512) || !is_x86_feature_detected!("avx512vbmi") {
        return;
    }
    let mut numbers = Numbers(16);
    for kind in KINDS.into_iter().filter(|k| k.is_quantized()) {
        for cols in [32, 64, 96, 128, 160, 224, 2880] {
            let whole = numbers.matrix(kind, 4 * TILE + 2, cols);
            for (m, row) in [(whole.every_other(1), TILE + 1), (whole, 3 * TILE + 2)] {
                for num in 1..=along_avx512::MOST {
                    let x = numbers.vec(num * cols);
                    let runtime = runtime(Isa::Avx512, 1, Precision::Fast);
                    let tokens: Vec<u32> = (0..num as u32).rev().collect();
                    let mut out = vec![[f32::NAN; TILE]; num];
                    let Input::Int8(int8) = Input::new(&runtime, &x, cols, kind).unwrap() else { panic!("integers") };
                    // SAFETY: the features were detected; sixteen rows, one or two tokens.
                    unsafe { along_avx512::tile(&m, row, &int8, &tokens, &mut out) };
                    let want = all_tiles(Isa::Scalar, &m.rows_of(row..row + TILE), &x, &tokens);
                    same_bits(out.as_flattened(), &want, &format!("{kind:?}, {cols} columns, {num} tokens"));
                }
            }
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn parts_are_even_and_leave_nobody_out() {
    for num in 0..=MOST_TOKENS {
        let tokens: Vec<u32> = (0..num as u32).collect();
        let mut out = vec![[0.0; TILE]; num];
        let (mut all, mut sizes) = (Vec::new(), Vec::new());
        for (tokens, out) in span::parts(&tokens, &mut out, 8) {
            assert_eq!(tokens.len(), out.len());
            all.extend_from_slice(tokens);
            sizes.push(tokens.len());
        }
        assert_eq!(all, tokens);
        assert_eq!(sizes.len(), num.div_ceil(8));
        assert!(sizes.iter().max() <= sizes.iter().min().map(|m| m + 1).as_ref());
    }
}

#[test]
fn the_largest_sums_do_not_saturate() {
    let x = vec![1.0f32; 64 * 9];
    for (kind, byte) in [(Kind::Q8, 0x80u8), (Kind::Q8, 0x7f), (Kind::Mxfp4Pairs, 0x77), (Kind::Mxfp4Pairs, 0xff)] {
        let m = if kind == Kind::Q8 {
            let block = [half::f16::ONE.to_le_bytes().as_slice(), &[byte; 32]].concat();
            Matrix::new(crate::DType::Q8_0, 16, 64, block.repeat(32).into_bytes()).unwrap()
        } else {
            Matrix::mxfp4(16, 64, vec![byte; 512].into_bytes(), vec![127u8; 32].into_bytes()).unwrap()
        };
        let want = m.group(0, 0)[0] * 64.0;
        for isa in Isa::all() {
            for tokens in [1, 4, 9] {
                let picked: Vec<u32> = (0..tokens).collect();
                let got = all_tiles(isa, &m, &x, &picked);
                assert!(got.iter().all(|v| (v - want).abs() < 1e-3 * want.abs()), "{kind:?} {byte}: {got:?} {want}");
            }
        }
    }
}

trait IntoBytes {
    fn into_bytes(self) -> crate::Bytes;
}

impl IntoBytes for Vec<u8> {
    fn into_bytes(self) -> crate::Bytes {
        crate::Bytes::new(self)
    }
}

/// W x for the picked tokens, tile by tile, rows beyond the last cut off.
fn all_tiles(isa: Isa, m: &Matrix, x: &[f32], picked: &[u32]) -> Vec<f32> {
    all_tiles_in(Precision::Fast, isa, m, x, picked)
}

fn all_tiles_in(precision: Precision, isa: Isa, m: &Matrix, x: &[f32], picked: &[u32]) -> Vec<f32> {
    let runtime = runtime(isa, 1, precision);
    let input = Input::new(&runtime, x, m.cols(), m.kind()).unwrap();
    let mut panels = Panels::new(&runtime.arena, 1, m.cols()).unwrap();
    let panels = panels.split();
    let lists = Lists::new(&runtime, &input, m.cols(), vec![picked]).unwrap();
    let mut all = Vec::new();
    let mut scratch = panels[0].lock().unwrap();
    let Scratch { panel, out: [out, _] } = &mut *scratch;
    for tiles in lists.runs(0, &(0..m.rows().div_ceil(TILE))) {
        lists.tiles(0, m, tiles.clone(), panel, out);
        for (tile, out) in tiles.zip(&**out) {
            let rows = TILE.min(m.rows() - tile * TILE);
            all.extend(out[..picked.len()].iter().flat_map(|o| o[..rows].to_vec()));
        }
    }
    all
}
