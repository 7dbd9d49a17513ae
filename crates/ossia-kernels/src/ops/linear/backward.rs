//! Gradients of a linear layer: dx = dy W, dW += dyᵀ x, db += the sum of dy over tokens.

use super::Linear;
use crate::cpu::columns::{self, ColumnSum};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::gemm::{self, Outer, Product, Target, View, Weight};
use crate::{Result, Runtime, Step, Tensor};

pub use crate::cpu::gemm::Write;

/// Where the gradients of a linear layer are added.
pub struct LinearGrad<'a> {
    /// [N, K].
    pub weight: &'a mut [f32],
    /// [N], empty where the layer has no bias.
    pub bias: &'a mut [f32],
}

/// Adds the gradients of `linear` to `grad` and writes dx [T, K], where x [T, K] went in and dy [T, N] comes back.
pub fn backward(
    step: &mut Step,
    x: &Tensor,
    linear: &Linear,
    dy: &Tensor,
    grad: &mut LinearGrad,
    dx: &mut Tensor,
    write: Write,
) -> Result<()> {
    assert!(x.cols() == linear.cols() && dy.cols() == linear.rows() && x.rows() == dy.rows(), "linear: shapes");
    assert!(dx.rows() == x.rows() && dx.cols() == x.cols(), "linear: the gradient has the input's shape");
    add_gradients(step.runtime, x.host(), linear, dy.host(), grad)?;
    input_gradient(step.runtime, linear, dy.host(), dx.host_mut(), write)
}

/// dW and db.
pub(crate) fn add_gradients(
    runtime: &Runtime,
    x: &[f32],
    linear: &Linear,
    dy: &[f32],
    grad: &mut LinearGrad,
) -> Result<()> {
    let (n, k) = (linear.rows(), linear.cols());
    assert!(grad.weight.len() == n * k && (grad.bias.is_empty() || grad.bias.len() == n), "linear: gradient sizes");
    let weight = Disjoint::new(grad.weight);
    let gradient = Target { data: &weight, stride: k, offset: 0 };
    gemm::outer(runtime, &[Outer { dy: View::new(dy, n), x: View::new(x, k), gradient }])?;
    if !grad.bias.is_empty() {
        let out = Disjoint::new(grad.bias);
        columns::add(runtime, &[ColumnSum { rows: View::new(dy, n), weights: None, out: &out, offset: 0, stride: 1 }]);
    }
    Ok(())
}

/// dx = dy W, part by part.
pub(crate) fn input_gradient(
    runtime: &Runtime,
    linear: &Linear,
    dy: &[f32],
    dx: &mut [f32],
    write: Write,
) -> Result<()> {
    let (n, k) = (linear.rows(), linear.cols());
    let dx = Disjoint::new(dx);
    let (mut first, mut write) = (0, write);
    for part in linear.parts() {
        let rows = part.weight.rows();
        let x = View::new(dy, n).columns(first, rows);
        let y = Target { data: &dx, stride: k, offset: 0 };
        gemm::apply(runtime, &[Product { x, weight: Weight::Columns(&part.weight), bias: None, y, write }])?;
        (first, write) = (first + rows, Write::Add);
    }
    Ok(())
}

/// y (=, +=) W x + b with many tokens.
pub(super) fn apply(runtime: &Runtime, x: &[f32], linear: &Linear, y: &mut [f32], write: Write) -> Result<()> {
    let y = Disjoint::new(y);
    let mut first = 0;
    let mut products = Vec::with_capacity(linear.parts().len());
    for super::Part { weight, bias } in linear.parts() {
        let (x, y) = (View::new(x, linear.cols()), Target { data: &y, stride: linear.rows(), offset: first });
        products.push(Product { x, weight: Weight::Rows(weight), bias: bias.as_deref(), y, write });
        first += weight.rows();
    }
    gemm::apply(runtime, &products)
}
