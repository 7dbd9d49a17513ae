//! Weights in the order in which kernels read them: sixteen rows a tile, and of a tile what one lane multiplies with next, 16
//! bytes at a time (`products.cuh`).
//!
//! Lane 4 g + t of a warp holds of a tile [16, 16] the elements of rows g and g + 8 in columns 2t, 2t + 1, 2t + 8, 2t + 9: four
//! pairs, (row g, 2t), (row g + 8, 2t), (row g, 2t + 8), (row g + 8, 2t + 8). Rows that are missing are zeros.

use half::bf16;

use crate::cpu::disjoint::Disjoint;
use crate::matrix::Kind;
use crate::pool::Pool;
use crate::{Error, Matrix, Result};

/// Rows of a tile.
pub(crate) const TILE: usize = 16;
/// Tokens of a tile.
pub(crate) const TOKENS: usize = 8;
/// Chains of a sum, each a warp's where tokens are few (`common.cuh`).
pub(crate) const PARTS: usize = 8;
/// Columns that a lane's 16 bytes of bf16 come from.
const STEP: usize = 16;
/// Columns that a lane's 16 bytes of MXFP4 come from: four steps.
pub(crate) const BLOCK: usize = 64;

/// The row (0 to 15) and column of a pair's first element, for lane and pair.
fn place(lane: usize, pair: usize) -> (usize, usize) {
    (lane / 4 + 8 * (pair % 2), 2 * (lane % 4) + 8 * (pair / 2))
}

/// bf16 weights: rows come from `row` (its number and where to put it, `cols` values), rounded to the nearest even where they
/// are finer. [tiles, steps, 32 lanes, 16 bytes].
pub(crate) fn bf16_tiles(pool: &Pool, rows: usize, cols: usize, row: &(dyn Fn(usize, &mut [f32]) + Sync)) -> Vec<u8> {
    let (tiles, steps) = (rows.div_ceil(TILE), cols / STEP);
    let mut out = vec![0u8; tiles * steps * 512];
    let parts = Disjoint::new(&mut out);
    pool.run_ranges(tiles, 1, |range, _| {
        let mut values = vec![0.0; TILE * cols];
        for tile in range {
            for (i, values) in values.chunks_exact_mut(cols).enumerate() {
                if tile * TILE + i < rows { row(tile * TILE + i, values) } else { values.fill(0.0) }
            }
            // SAFETY: each tile is one task's.
            let out = unsafe { parts.part(tile * steps * 512..(tile + 1) * steps * 512) };
            for (at, word) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                let (pair, lane, step) = (at % 4, at / 4 % 32, at / 128);
                let (row, col) = place(lane, pair);
                let value = |i: usize| u32::from(bf16::from_f32(values[row * cols + step * STEP + col + i]).to_bits());
                *word = (value(0) | value(1) << 16).to_le_bytes();
            }
        }
    });
    out
}

/// A matrix as rows of bf16, as it is.
pub(crate) fn bf16_rows(pool: &Pool, matrix: &Matrix) -> Vec<u8> {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let mut out = vec![0u8; rows * cols * 2];
    let parts = Disjoint::new(&mut out);
    pool.run_ranges(rows, 16, |range, _| {
        let mut values = vec![0.0; cols];
        for row in range {
            matrix.row_into(row, &mut values);
            // SAFETY: each row is one task's.
            let out = unsafe { parts.part(row * cols * 2..(row + 1) * cols * 2) };
            for (bytes, &value) in out.as_chunks_mut::<2>().0.iter_mut().zip(&values) {
                *bytes = bf16::from_f32(value).to_bits().to_le_bytes();
            }
        }
    });
    out
}

/// MXFP4 weights on their way to the device.
pub(crate) struct Mxfp4 {
    /// [tiles, blocks, 32 lanes, 16 bytes]; a word is a step's four pairs.
    pub codes: Vec<u8>,
    /// [tiles, blocks, 8, 4 bytes]: scales of rows g and g + 8 for the first half of a block, then for the second.
    pub scales: Vec<u8>,
}

/// Bytes of a block's codes and scales.
const CODES: usize = 512;
const SCALES: usize = 32;

/// The largest scale that kernels can multiply with: 2 times what a code says.
const MOST_SCALE: u8 = 128;

/// Tiles of MXFP4. `source` names the matrix and row of each of the tile's rows; none is a row of zeros.
pub(crate) fn mxfp4_tiles<'a>(
    pool: &Pool,
    tiles: usize,
    cols: usize,
    source: &(dyn Fn(usize, usize) -> Option<(&'a Matrix, usize)> + Sync),
) -> Result<Mxfp4> {
    let blocks = cols.div_ceil(BLOCK);
    let mut packed = Mxfp4 { codes: vec![0; tiles * blocks * CODES], scales: vec![0; tiles * blocks * SCALES] };
    let (codes, scales) = (Disjoint::new(&mut packed.codes), Disjoint::new(&mut packed.scales));
    let wrong = std::sync::atomic::AtomicU8::new(0);
    pool.run_ranges(tiles, 1, |range, _| {
        let mut nibbles = [[0u8; BLOCK]; TILE];
        for tile in range {
            let rows: [_; TILE] = std::array::from_fn(|row| source(tile, row));
            for block in 0..blocks {
                let at = tile * blocks + block;
                // SAFETY: each tile is one task's.
                let (codes, scales) =
                    unsafe { (codes.part(at * CODES..(at + 1) * CODES), scales.part(at * SCALES..(at + 1) * SCALES)) };
                for (row, (nibbles, source)) in nibbles.iter_mut().zip(&rows).enumerate() {
                    let two = read_block(*source, block, nibbles);
                    wrong.fetch_max(two[0].max(two[1]), std::sync::atomic::Ordering::Relaxed);
                    scales[row % 8 * 4 + row / 8] = two[0];
                    scales[row % 8 * 4 + row / 8 + 2] = two[1];
                }
                put_block(&nibbles, codes);
            }
        }
    });
    let largest = wrong.into_inner();
    if largest > MOST_SCALE {
        let reason = format!("an expert has a scale of 2^{}, wanted at most 2", i32::from(largest) - 127);
        return Err(Error::Cuda { what: "packing weights", reason });
    }
    Ok(packed)
}

/// Codes of one row's block, in the order of columns, and the scales of its two halves.
fn read_block(source: Option<(&Matrix, usize)>, block: usize, nibbles: &mut [u8; BLOCK]) -> [u8; 2] {
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

fn put_block(nibbles: &[[u8; BLOCK]; TILE], out: &mut [u8]) {
    for (at, word) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
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
        *word = bits.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Numbers;

    /// Every element of every row is found again where the kernels look for it, rows that are missing are zeros.
    #[test]
    fn bf16_tiles_hold_every_element_once() {
        let (rows, cols) = (21, 96);
        let value = |row: usize, col: usize| (row * cols + col) as f32;
        let fill = |row: usize, out: &mut [f32]| (0..cols).for_each(|col| out[col] = value(row, col));
        let packed = bf16_tiles(&Pool::new(2), rows, cols, &fill);
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
        let mut out = vec![0; CODES];
        put_block(&nibbles, &mut out);
        const KEPT: u32 = 0x81c0_81c0;
        for (at, word) in out.as_chunks::<4>().0.iter().enumerate() {
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

    /// Both layouts of MXFP4 become the same tiles, with the scales where the kernels look for them; half a block at the end
    /// is zeros.
    #[test]
    fn scales_lie_beside_their_rows() {
        let mut numbers = Numbers(9);
        let matrix = numbers.matrix(Kind::Mxfp4Pairs, 16, 96);
        let packed = mxfp4_tiles(&Pool::new(1), 1, 96, &|_, row| Some((&matrix, row))).unwrap();
        for (row, block, half) in (0..16).flat_map(|r| (0..2).flat_map(move |b| (0..2).map(move |h| (r, b, h)))) {
            let wanted = if 2 * block + half < 3 { matrix.scales().at(row, 2 * block + half)[0] } else { 0 };
            assert_eq!(packed.scales[block * 32 + row % 8 * 4 + row / 8 + 2 * half], wanted);
        }
        let large = crate::Bytes::new(vec![200; 16 * 3]);
        let large = Matrix::mxfp4(16, 96, crate::Bytes::new(numbers.bytes(16 * 48)), large).unwrap();
        let error = mxfp4_tiles(&Pool::new(1), 1, 96, &|_, row| Some((&large, row))).err().unwrap().to_string();
        assert!(error.contains("2^73"), "{error}");
    }
}
