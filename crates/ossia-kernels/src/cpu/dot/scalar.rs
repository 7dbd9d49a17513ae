//! Dot products in plain Rust: any machine, and the version that the vector code is held against.

use super::quantize::{Int8Rows, Weights};
use super::{TILE, tile_rows};
use crate::matrix::Matrix;
use crate::mxfp4::{DOUBLED, GROUP};

/// See [`super::tile`]; the same bits as the vector versions.
pub fn int8_tile(m: &Matrix, row: usize, x: &Int8Rows, tokens: &[u32], out: &mut [[f32; TILE]]) {
    let sum = match x.weights() {
        Weights::Codes(_) => code_sum,
        Weights::Bytes => byte_sum,
    };
    for (&token, out) in tokens.iter().zip(out) {
        let (q, scales) = (x.values(token as usize).as_chunks().0, x.scales(token as usize));
        *out = tile_rows(m, row).map(|row| {
            q.iter().zip(scales).enumerate().fold(0.0f32, |acc, (group, (q, scale))| {
                let sum = sum(m.elements().at(row, group), q) as f32;
                sum.mul_add(m.scale(row, group) * scale, acc)
            })
        });
    }
}

/// Activations are ordered so that low nibbles meet the first half in both MXFP4 layouts.
fn code_sum(bytes: &[u8], q: &[i8; GROUP]) -> i32 {
    let sums = (0..16).map(|i| {
        let (low, high) = (DOUBLED[usize::from(bytes[i] & 15)], DOUBLED[usize::from(bytes[i] >> 4)]);
        i32::from(low) * i32::from(q[i]) + i32::from(high) * i32::from(q[i + 16])
    });
    sums.sum()
}

fn byte_sum(bytes: &[u8], q: &[i8; GROUP]) -> i32 {
    q.iter().zip(bytes).map(|(&q, &w)| i32::from(q) * i32::from(w as i8)).sum()
}

/// See [`super::tile`].
pub fn float_tile(m: &Matrix, row: usize, x: &[f32], tokens: &[u32], out: &mut [[f32; TILE]]) {
    let cols = m.cols();
    for (r, row) in tile_rows(m, row).into_iter().enumerate() {
        let mut lanes = vec![[0.0f32; 8]; tokens.len()];
        for group in 0..m.groups() {
            let w = m.group(row, group);
            for (&token, lanes) in tokens.iter().zip(&mut lanes) {
                let x = &x[token as usize * cols + group * GROUP..][..GROUP];
                add_products(lanes, &w, x);
            }
        }
        lanes.iter().zip(out.iter_mut()).for_each(|(lanes, out)| out[r] = add_lanes(lanes));
    }
}

fn add_products(lanes: &mut [f32; 8], w: &[f32; GROUP], x: &[f32]) {
    for (w, x) in w.chunks_exact(8).zip(x.chunks_exact(8)) {
        for j in 0..8 {
            lanes[j] += w[j] * x[j];
        }
    }
}

/// Eight lanes to one, pairwise.
pub fn add_lanes(l: &[f32; 8]) -> f32 {
    let four = [l[0] + l[4], l[1] + l[5], l[2] + l[6], l[3] + l[7]];
    (four[0] + four[2]) + (four[1] + four[3])
}
