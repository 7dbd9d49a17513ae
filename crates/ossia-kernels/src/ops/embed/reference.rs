//! The slow truth.

use crate::Matrix;

pub fn forward(tokens: &[u32], table: &Matrix) -> Vec<f32> {
    let row = |&t: &u32| (0..table.groups()).flat_map(move |g| table.group(t as usize, g));
    tokens.iter().flat_map(row).collect()
}

/// dE: each row is the sum over the tokens that named it.
pub fn backward(tokens: &[u32], dx: &[f64], d: usize, vocab: usize) -> Vec<f64> {
    let mut table = vec![0.0; vocab * d];
    for (t, &token) in tokens.iter().enumerate() {
        (0..d).for_each(|c| table[token as usize * d + c] += dx[t * d + c]);
    }
    table
}
