//! Dot products in plain Rust: any machine, and the version that the vector code is held against.

use super::quantize::Int8Rows;
use super::{TILE, tile_rows};
use crate::matrix::Matrix;
use crate::mxfp4::{DOUBLED, GROUP};

/// See [`super::tile`]; the same bits as the vector versions.
pub fn codes_tile(m: &Matrix, row: usize, x: &Int8Rows, tokens: &[u32], out: &mut [[f32; TILE]]) {
    for (&token, out) in tokens.iter().zip(out) {
        *out = tile_rows(m, row).map(|row| codes_dot(m, row, x, token as usize));
    }
}

fn codes_dot(m: &Matrix, row: usize, x: &Int8Rows, token: usize) -> f32 {
    let (q, scales) = (x.values(token), x.scales(token));
    (0..m.groups()).fold(0.0f32, |acc, group| {
        let sum = code_sum(m.elements().at(row, group), &q[group * GROUP..(group + 1) * GROUP]);
        (sum as f32).mul_add(m.scale(row, group) * scales[group], acc)
    })
}

/// Activations are ordered so that low nibbles meet the first half in both MXFP4 layouts.
fn code_sum(bytes: &[u8], q: &[i8]) -> i32 {
    let sums = (0..16).map(|i| {
        let (low, high) = (DOUBLED[usize::from(bytes[i] & 15)], DOUBLED[usize::from(bytes[i] >> 4)]);
        i32::from(low) * i32::from(q[i]) + i32::from(high) * i32::from(q[i + 16])
    });
    sums.sum()
}

/// See [`super::tile`]; the same bits as the vector versions.
pub fn bytes_tile(m: &Matrix, row: usize, x: &Int8Rows, tokens: &[u32], out: &mut [[f32; TILE]]) {
    for (&token, out) in tokens.iter().zip(out) {
        let (q, scales) = (x.values(token as usize), x.scales(token as usize));
        *out = tile_rows(m, row).map(|row| {
            q.chunks_exact(GROUP).zip(scales).enumerate().fold(0.0f32, |acc, (group, (q, scale))| {
                let w = m.elements().at(row, group);
                let sum: i32 = q.iter().zip(w).map(|(&q, &w)| i32::from(q) * i32::from(w as i8)).sum();
                (sum as f32).mul_add(m.scale(row, group) * scale, acc)
            })
        });
    }
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
