//! The order of weights as the processor makes it, the plain way.

use half::bf16;

use super::{BLOCK, Row, STEP, TILE};
use crate::Matrix;
use crate::matrix::Kind;

/// The row (0 to 15) and column of a pair's first element, for lane and pair.
pub(super) fn place(lane: usize, pair: usize) -> (usize, usize) {
    (lane / 4 + 8 * (pair % 2), 2 * (lane % 4) + 8 * (pair / 2))
}

/// Rows of bf16 in tiles, [tiles, steps, 32 lanes, 16 bytes]; `row` is a row's values, `cols` of them.
pub(super) fn bf16_tiles(rows: usize, cols: usize, row: &dyn Fn(usize) -> Vec<f32>) -> Vec<u8> {
    let mut out = Vec::new();
    for tile in 0..rows.div_ceil(TILE) {
        let values: Vec<Vec<f32>> =
            (tile * TILE..(tile + 1) * TILE).map(|at| if at < rows { row(at) } else { vec![0.0; cols] }).collect();
        for at in 0..cols / STEP * 128 {
            let (pair, lane, step) = (at % 4, at / 4 % 32, at / 128);
            let (row, col) = place(lane, pair);
            for value in &values[row][step * STEP + col..][..2] {
                out.extend(bf16::from_f32(*value).to_le_bytes());
            }
        }
    }
    out
}

/// A row's values.
pub(super) fn values((matrix, row): Row) -> Vec<f32> {
    let mut values = vec![0.0; matrix.cols()];
    matrix.row_into(row, &mut values);
    values
}

/// A matrix as rows of bf16.
pub(super) fn bf16_rows(matrix: &Matrix) -> Vec<u8> {
    let rows = (0..matrix.rows()).flat_map(|row| values((matrix, row)));
    rows.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect()
}

/// MXFP4 in tiles: codes [tiles, blocks, 32 lanes, 16 bytes] and behind them scales [tiles, blocks, 8, 4 bytes].
pub(super) fn mxfp4_tiles<'a>(tiles: usize, cols: usize, source: &dyn Fn(usize) -> Option<Row<'a>>) -> Vec<u8> {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    let mut nibbles = [[0u8; BLOCK]; TILE];
    for (tile, block) in (0..tiles).flat_map(|tile| (0..cols.div_ceil(BLOCK)).map(move |block| (tile, block))) {
        let mut own = [0; 32];
        for (row, nibbles) in nibbles.iter_mut().enumerate() {
            let two = read_block(source(tile * TILE + row), block, nibbles);
            own[row % 8 * 4 + row / 8] = two[0];
            own[row % 8 * 4 + row / 8 + 2] = two[1];
        }
        codes.extend(put_block(&nibbles));
        scales.extend(own);
    }
    [codes, scales].concat()
}

/// Codes of one row's block, in the order of columns, and the scales of its two halves.
fn read_block(source: Option<Row>, block: usize, nibbles: &mut [u8; BLOCK]) -> [u8; 2] {
    let mut scales = [0; 2];
    nibbles.fill(0);
    let Some((matrix, row)) = source else { return scales };
    for (half, scale) in scales.iter_mut().enumerate() {
        let group = 2 * block + half;
        if group >= matrix.groups() {
            continue;
        }
        *scale = matrix.scales().at(row, group)[0];
        let bytes = &matrix.elements().at(row, group)[..16];
        for (i, &byte) in bytes.iter().enumerate() {
            let (low, high) = match matrix.kind() {
                Kind::Mxfp4Halves => (i, i + 16),
                _ => (2 * i, 2 * i + 1),
            };
            nibbles[32 * half + low] = byte & 15;
            nibbles[32 * half + high] = byte >> 4;
        }
    }
    scales
}

/// Bits of a code (sign, then three) in the half word of its pair: three pairs can be had by one shift and one mask, the
/// fourth takes the bits that are left.
const BITS: [[u32; 4]; 4] = [[15, 8, 7, 6], [12, 5, 4, 3], [9, 2, 1, 0], [14, 13, 11, 10]];

/// The words of a block.
pub(super) fn put_block(nibbles: &[[u8; BLOCK]; TILE]) -> Vec<u8> {
    let word = |at: usize| {
        let (step, lane) = (at % 4, at / 4);
        let mut bits = 0u32;
        for (pair, places) in BITS.iter().enumerate() {
            let (row, col) = place(lane, pair);
            for half in 0..2 {
                let code = u32::from(nibbles[row][step * STEP + col + half]);
                for (i, &place) in places.iter().enumerate() {
                    bits |= (code >> (3 - i) & 1) << (place + 16 * half as u32);
                }
            }
        }
        bits
    };
    (0..128).flat_map(|at| word(at).to_le_bytes()).collect()
}
