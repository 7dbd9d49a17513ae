//! Holds the order that the device makes to the plain one, byte by byte, and that one to what kernels look for. Where there is
//! no GPU the first have nothing to run: see `cuda/tests.rs`.

use half::bf16;

use super::reference::{self, place, put_block, values};
use super::{BLOCK, ROWS, Row, TILE};
use crate::cuda::tests::gpu;
use crate::cuda::{Device, Gpu};
use crate::matrix::Kind;
use crate::pool::Pool;
use crate::testing::{KINDS, Numbers};
use crate::{Bytes, Matrix, Runtime};

fn device(runtime: &Runtime) -> &Gpu {
    let Device::Cuda(gpu) = &runtime.device else { unreachable!("a GPU's runtime") };
    gpu
}

/// Every kind, several turns, rows that are missing, and rows in an order of their own from matrices of two kinds.
#[test]
fn tiles_of_bf16_are_the_processors() {
    let (pool, mut numbers) = (Pool::new(2), Numbers(21));
    for kind in KINDS {
        let Some(runtime) = gpu() else { return };
        for (at, (rows, cols)) in [(1, 32), (16, 64), (40, 96), (2 * ROWS + 21, 160)].into_iter().enumerate() {
            let (first, second) = (numbers.matrix(kind, rows, cols), numbers.matrix(Kind::Q8, rows, cols));
            let source = |row: usize| {
                let turned = rows - 1 - row;
                Some((if turned.is_multiple_of(3) { &second } else { &first }, turned))
            };
            let key = std::ptr::without_provenance(at + 1);
            let got = device(&runtime).bf16_tiles((key, "test"), &pool, (rows, cols), &source).unwrap();
            let want = reference::bf16_tiles(rows, cols, &|row| values(source(row).unwrap()));
            assert!(got.download().unwrap() == want, "{kind:?}, {rows} x {cols}");
            let got = device(&runtime).bf16_rows(key, &pool, &first).unwrap();
            assert!(got.download().unwrap() == reference::bf16_rows(&first), "{kind:?}, rows of {rows} x {cols}");
        }
    }
}

/// Scales apart and between, every other row of a matrix, half blocks, tiles that are not full.
#[test]
fn tiles_of_mxfp4_are_the_processors() {
    let (pool, mut numbers) = (Pool::new(2), Numbers(22));
    for kind in [Kind::Mxfp4Pairs, Kind::Mxfp4Halves] {
        let Some(runtime) = gpu() else { return };
        for (at, (tiles, cols)) in [(1, 32), (2, 64), (7, 96), (2 * ROWS / TILE + 1, 160)].into_iter().enumerate() {
            let both = numbers.matrix(kind, 2 * tiles * TILE, cols);
            let matrices = [both.every_other(0), both.every_other(1)];
            let source = |row: usize| -> Option<Row> { (row % 11 != 10).then(|| (&matrices[row / 8 % 2], row)) };
            let key = std::ptr::without_provenance(at + 1);
            let got = device(&runtime).mxfp4_tiles((key, "test"), &pool, (tiles, cols), &source).unwrap();
            let want = reference::mxfp4_tiles(tiles, cols, &source);
            assert!(got.download().unwrap() == want, "{kind:?}, {tiles} tiles, {cols} columns");
        }
    }
}

/// A scale that kernels cannot multiply with is an error that names it, and so are rows that no buffer takes.
#[test]
fn what_cannot_be_packed_is_refused() {
    let Some(runtime) = gpu() else { return };
    let (pool, mut numbers) = (Pool::new(1), Numbers(23));
    let mut scales = vec![120; 16 * 3];
    scales[40] = 200;
    let large = Matrix::mxfp4(16, 96, Bytes::new(numbers.bytes(16 * 48)), Bytes::new(scales)).unwrap();
    let (key, of) = (std::ptr::without_provenance(1), |row| Some((&large, row)));
    let error = device(&runtime).mxfp4_tiles((key, "test"), &pool, (1, 96), &of).err().unwrap().to_string();
    assert!(error.contains("2^73"), "{error}");
    let mut blocks = numbers.bytes(16 * 3 * 17);
    blocks.iter_mut().step_by(17).for_each(|scale| *scale = 128);
    let of_file = |blocks: &[u8]| Matrix::new(crate::DType::Mxfp4, 16, 96, Bytes::new(blocks.to_vec())).unwrap();
    let fits = of_file(&blocks);
    device(&runtime).mxfp4_tiles((key, "fits"), &pool, (1, 96), &|row| Some((&fits, row))).unwrap();
    blocks[47 * 17] = 129;
    let large = of_file(&blocks);
    let error = device(&runtime).mxfp4_tiles((key, "large"), &pool, (1, 96), &|row| Some((&large, row)));
    assert!(error.err().unwrap().to_string().contains("2^2"));
    let wide = numbers.matrix(Kind::BF16, 1, 1 << 20);
    let of = |_| Some((&wide, 0));
    let error = device(&runtime).bf16_tiles((key, "wide"), &pool, (16, 1 << 20), &of).err().unwrap().to_string();
    assert!(error.contains("sixteen rows"), "{error}");
}

/// Every element of every row is found again where the kernels look for it, rows that are missing are zeros.
#[test]
fn bf16_tiles_hold_every_element_once() {
    let (rows, cols) = (21, 96);
    let value = |row: usize, col: usize| (row * cols + col) as f32;
    let packed = reference::bf16_tiles(rows, cols, &|row| (0..cols).map(|col| value(row, col)).collect());
    let at = |tile: usize, step: usize, lane: usize, pair: usize, half: usize| {
        let at = (((tile * (cols / 16) + step) * 32 + lane) * 4 + pair) * 4 + 2 * half;
        bf16::from_le_bytes([packed[at], packed[at + 1]]).to_f32()
    };
    for (tile, step, lane) in (0..2).flat_map(|t| (0..6).flat_map(move |s| (0..32).map(move |l| (t, s, l)))) {
        let (g, t) = (lane / 4, lane % 4);
        let places = [(g, 2 * t), (g + 8, 2 * t), (g, 2 * t + 8), (g + 8, 2 * t + 8)];
        for (pair, (row, col)) in places.into_iter().enumerate() {
            for half in 0..2 {
                let (row, col) = (tile * 16 + row, step * 16 + col + half);
                let wanted = if row < rows { bf16::from_f32(value(row, col)).to_f32() } else { 0.0 };
                assert_eq!(at(tile, step, lane, pair, half), wanted, "row {row}, column {col}");
            }
        }
    }
}

/// What the kernels do with a word (`codes_to_bf16`), in Rust, gives back every code.
#[test]
fn words_of_codes_come_apart_as_the_kernels_take_them_apart() {
    let mut numbers = Numbers(7);
    let nibbles: [[u8; BLOCK]; TILE] = std::array::from_fn(|_| std::array::from_fn(|_| numbers.below(16) as u8));
    const KEPT: u32 = 0x81c0_81c0;
    for (at, word) in put_block(&nibbles).as_chunks::<4>().0.iter().enumerate() {
        let (step, lane) = (at % 4, at / 4);
        let w = u32::from_le_bytes(*word);
        let fourth = w << 1 & 0x8000_8000 | w >> 5 & 0x0100_0100 | w >> 4 & 0x00c0_00c0;
        for (pair, got) in [w & KEPT, w << 3 & KEPT, w << 6 & KEPT, fourth].into_iter().enumerate() {
            let (row, col) = place(lane, pair);
            for half in 0..2 {
                let bits = (got >> (16 * half)) as u16;
                let code = bits >> 12 & 8 | bits >> 6 & 7;
                assert_eq!(code, u16::from(nibbles[row][step * 16 + col + half]), "lane {lane}, pair {pair}");
                // The same bits as bf16 are the code's value times 2^-126.
                let value = f64::from(bf16::from_bits(bits).to_f32()) * 2f64.powi(126);
                assert_eq!(value, f64::from(crate::mxfp4::DOUBLED[usize::from(code)]) / 2.0);
            }
        }
    }
}

/// Scales lie where the kernels look for them; half a block at the end is zeros.
#[test]
fn scales_lie_beside_their_rows() {
    let mut numbers = Numbers(9);
    let matrix = numbers.matrix(Kind::Mxfp4Pairs, 16, 96);
    let packed = reference::mxfp4_tiles(1, 96, &|row| Some((&matrix, row)));
    let scales = &packed[super::codes_len(1, 96)..];
    for (row, block, half) in (0..16).flat_map(|r| (0..2).flat_map(move |b| (0..2).map(move |h| (r, b, h)))) {
        let wanted = if 2 * block + half < 3 { matrix.scales().at(row, 2 * block + half)[0] } else { 0 };
        assert_eq!(scales[block * 32 + row % 8 * 4 + row / 8 + 2 * half], wanted);
    }
}
