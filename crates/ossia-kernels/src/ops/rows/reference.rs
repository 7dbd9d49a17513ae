//! The slow truth.

/// y[r][c] = x[rows[r]][c].
pub fn wanted(x: &[f32], cols: usize, rows: &[u32]) -> Vec<f32> {
    let mut y = Vec::new();
    for &row in rows {
        for c in 0..cols {
            y.push(x[row as usize * cols + c]);
        }
    }
    y
}
