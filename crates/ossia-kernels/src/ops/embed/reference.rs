//! The slow truth.

use crate::Matrix;

pub fn forward(tokens: &[u32], table: &Matrix) -> Vec<f32> {
    let row = |&t: &u32| (0..table.groups()).flat_map(move |g| table.group(t as usize, g));
    tokens.iter().flat_map(row).collect()
}
