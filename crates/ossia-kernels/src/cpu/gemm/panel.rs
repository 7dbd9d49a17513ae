//! From weights in any form to panels [K, 32] of f32.

use super::transpose::transpose;
use super::{View, WIDTH, mxfp4};
use crate::Matrix;
use crate::cpu::isa::Isa;
use crate::cpu::lanes::versions;
use crate::matrix::Kind;

/// The second factor of a product.
#[derive(Clone, Copy)]
pub enum Weight<'a> {
    /// W [N, K], used as x Wᵀ: outputs are its rows.
    Rows(&'a Matrix),
    /// W [K, N], used as x W: outputs are its columns.
    Columns(&'a Matrix),
    /// The same as `Rows` for plain numbers [N, K].
    PlainRows(View<'a>),
    /// The same as `Columns` for plain numbers [K, N].
    PlainColumns(View<'a>),
}

impl Weight<'_> {
    /// Terms of a sum, K.
    pub fn depth(&self) -> usize {
        match *self {
            Weight::Rows(m) => m.cols(),
            Weight::Columns(m) => m.rows(),
            Weight::PlainRows(w) => w.cols,
            Weight::PlainColumns(w) => w.rows,
        }
    }

    /// Outputs, N.
    pub fn outputs(&self) -> usize {
        match *self {
            Weight::Rows(m) => m.rows(),
            Weight::Columns(m) => m.cols(),
            Weight::PlainRows(w) => w.rows,
            Weight::PlainColumns(w) => w.cols,
        }
    }

    /// Terms `from..` of outputs `first..first + 32`, as many as the panel has; zeros where there are fewer outputs.
    /// `from` and `first` are multiples of 32.
    pub(super) fn fill(&self, isa: Isa, first: usize, from: usize, panel: &mut [[f32; WIDTH]]) {
        let count = WIDTH.min(self.outputs() - first);
        let mut square = [[0.0; WIDTH]; WIDTH];
        match *self {
            Weight::Rows(m) => {
                for (group, panel) in (from / WIDTH..).zip(panel.chunks_mut(WIDTH)) {
                    if count < WIDTH || !mxfp4::turned(isa, m, first, group, panel) {
                        read_rows(isa, m, first, group, &mut square[..count]);
                        transpose(isa, &square, panel);
                    }
                }
            }
            Weight::Columns(m) => {
                let group = first / WIDTH;
                if !mxfp4::straight(isa, m, from, group, panel) {
                    read_rows(isa, m, from, group, panel);
                }
            }
            Weight::PlainRows(w) => {
                for (group, panel) in panel.chunks_mut(WIDTH).enumerate() {
                    for (j, row) in square[..count].iter_mut().enumerate() {
                        let terms = &w.row(first + j)[from + group * WIDTH..];
                        row[..panel.len()].copy_from_slice(&terms[..panel.len()]);
                    }
                    transpose(isa, &square, panel);
                }
            }
            Weight::PlainColumns(w) => {
                for (k, p) in panel.iter_mut().enumerate() {
                    p[..count].copy_from_slice(&w.row(from + k)[first..][..count]);
                    p[count..].fill(0.0);
                }
            }
        }
    }
}

versions! {
    /// out[j] = group `group` of row first + j of W: loops that become vectors for BF16 and Q8, what [`Matrix::group`]
    /// gives for other kinds.
    fn read_rows(m: &Matrix, first: usize, group: usize, out: &mut [[f32; WIDTH]]) = read_rows_body
}

#[inline(always)]
fn read_rows_body<const FMA: bool>(m: &Matrix, first: usize, group: usize, out: &mut [[f32; WIDTH]]) {
    for (row, out) in (first..).zip(out) {
        let bytes = m.elements().at(row, group);
        match m.kind() {
            Kind::BF16 => {
                for (out, &half) in out.iter_mut().zip(bytes[..2 * WIDTH].as_chunks().0) {
                    *out = f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16);
                }
            }
            Kind::Q8 => {
                let scale = m.scale(row, group);
                for (out, &byte) in out.iter_mut().zip(&bytes[..WIDTH]) {
                    *out = f32::from(byte as i8) * scale;
                }
            }
            _ => *out = m.group(row, group),
        }
    }
}
