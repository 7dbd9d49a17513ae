//! From weights in any form to panels [K, 32] of f32.

use super::WIDTH;
use super::transpose::transpose;
use crate::Matrix;
use crate::cpu::isa::Isa;

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

    /// Terms `from..` of outputs `first..first + 32`, as many as the panel has; zeros where there are fewer outputs.
    /// `from` and `first` are multiples of 32.
    pub(super) fn fill(&self, isa: Isa, first: usize, from: usize, panel: &mut [[f32; WIDTH]]) {
        let count = WIDTH.min(self.outputs() - first);
        let mut square = [[0.0; WIDTH]; WIDTH];
        match *self {
            Weight::Rows(m) => {
                for (group, panel) in panel.chunks_mut(WIDTH).enumerate() {
                    for (j, row) in square[..count].iter_mut().enumerate() {
                        *row = m.group(first + j, from / WIDTH + group);
                    }
                    transpose(isa, &square, panel);
                }
            }
            Weight::Columns(m) => {
                panel.iter_mut().enumerate().for_each(|(k, p)| *p = m.group(from + k, first / WIDTH));
            }
            Weight::PlainRows(w, cols) => {
                for (group, panel) in panel.chunks_mut(WIDTH).enumerate() {
                    for (j, row) in square[..count].iter_mut().enumerate() {
                        let start = (first + j) * cols + from + group * WIDTH;
                        row[..panel.len()].copy_from_slice(&w[start..start + panel.len()]);
                    }
                    transpose(isa, &square, panel);
                }
            }
            Weight::PlainColumns(w, cols) => {
                for (k, p) in panel.iter_mut().enumerate() {
                    p[..count].copy_from_slice(&w[(from + k) * cols + first..][..count]);
                    p[count..].fill(0.0);
                }
            }
        }
    }
}
