//! From weights in any form to panels [K, 32] of f32.

use super::WIDTH;
use crate::Matrix;

/// The second factor of a product.
#[derive(Clone, Copy)]
pub enum Weight<'a> {
    /// W [N, K], used as x Wᵀ: outputs are its rows.
    Rows(&'a Matrix),
    /// W [K, N], used as x W: outputs are its columns.
    Columns(&'a Matrix),
    /// The same as `Rows` for plain numbers [N, K].
    PlainRows(&'a [f32], usize),
    /// The same as `Columns` for plain numbers [K, N].
    PlainColumns(&'a [f32], usize),
}

impl Weight<'_> {
    /// Terms of a sum, K.
    pub fn depth(&self) -> usize {
        match *self {
            Weight::Rows(m) => m.cols(),
            Weight::Columns(m) => m.rows(),
            Weight::PlainRows(_, cols) => cols,
            Weight::PlainColumns(w, cols) => w.len() / cols,
        }
    }

    /// Outputs, N.
    pub fn outputs(&self) -> usize {
        match *self {
            Weight::Rows(m) => m.rows(),
            Weight::Columns(m) => m.cols(),
            Weight::PlainRows(w, cols) => w.len() / cols,
            Weight::PlainColumns(_, cols) => cols,
        }
    }

    /// Outputs `first..first + 32`, zeros where there are fewer.
    pub(super) fn fill(&self, first: usize, panel: &mut [[f32; WIDTH]]) {
        let count = WIDTH.min(self.outputs() - first);
        match *self {
            Weight::Rows(m) => {
                for j in 0..count {
                    for group in 0..m.groups() {
                        let values = m.group(first + j, group);
                        panel[group * WIDTH..][..WIDTH].iter_mut().zip(values).for_each(|(p, v)| p[j] = v);
                    }
                }
            }
            Weight::Columns(m) => {
                panel.iter_mut().enumerate().for_each(|(k, p)| *p = m.group(k, first / WIDTH));
            }
            Weight::PlainRows(w, cols) => {
                for j in 0..count {
                    let row = &w[(first + j) * cols..][..cols];
                    panel.iter_mut().zip(row).for_each(|(p, v)| p[j] = *v);
                }
            }
            Weight::PlainColumns(w, cols) => {
                for (k, p) in panel.iter_mut().enumerate() {
                    p[..count].copy_from_slice(&w[k * cols + first..][..count]);
                }
            }
        }
        if count < WIDTH {
            panel.iter_mut().for_each(|p| p[count..].fill(0.0));
        }
    }
}
