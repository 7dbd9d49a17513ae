//! Gradients of a linear layer: dx = dy W, dW += dyᵀ x, db += the sum of dy over tokens; those of its adapter are
//! `low_rank`'s. What is frozen costs nothing.

use super::{Linear, cuda_train};
use crate::cpu::columns::{self, ColumnSum};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::gemm::{self, Outer, Product, Target, View, Weight};
use crate::cuda::Device;
use crate::ops::low_rank::{self, LowRankGrad};
use crate::{Result, Runtime, Step, Tensor};

pub use crate::cpu::gemm::Write;

/// Where the gradients of a linear layer are added. What is not there is frozen.
#[derive(Default)]
pub struct LinearGrad<'a> {
    /// [N, K].
    pub weight: Option<&'a mut [f32]>,
    /// [N]; also none where the layer has no bias.
    pub bias: Option<&'a mut [f32]>,
    /// Those of the step's adapter, part by part, or empty.
    pub low_rank: Vec<LowRankGrad<'a>>,
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
    match &step.runtime.device {
        Device::Cpu => {
            gradients(step.runtime, (x.host(), dy.host()), linear, step.adapter(), grad, dx.host_mut(), write)
        }
        Device::Cuda(gpu) => cuda_train::backward(gpu, x, linear, dy, grad, dx, write),
    }
}

/// All gradients, of x [T, K] and dy [T, N].
pub(crate) fn gradients(
    runtime: &Runtime,
    (x, dy): (&[f32], &[f32]),
    linear: &Linear,
    adapter: Option<usize>,
    grad: &mut LinearGrad,
    dx: &mut [f32],
    write: Write,
) -> Result<()> {
    add_weight_gradients(runtime, (x, dy), linear, grad)?;
    input_gradient(runtime, linear, dy, dx, write)?;
    let (x, dy) = (View::new(x, linear.cols()), View::new(dy, linear.rows()));
    low_rank::add_backward(runtime, x, linear.adapter(adapter), dy, &mut grad.low_rank, dx)
}

/// dW and db.
fn add_weight_gradients(
    runtime: &Runtime,
    (x, dy): (&[f32], &[f32]),
    linear: &Linear,
    grad: &mut LinearGrad,
) -> Result<()> {
    let (n, k) = (linear.rows(), linear.cols());
    if let Some(weight) = &mut grad.weight {
        assert!(weight.len() == n * k, "linear: gradient sizes");
        let weight = Disjoint::new(weight);
        let gradient = Target { data: &weight, stride: k, offset: 0 };
        gemm::outer(runtime, &[Outer { dy: View::new(dy, n), x: View::new(x, k), gradient }])?;
    }
    if let Some(bias) = &mut grad.bias {
        assert!(bias.len() == n, "linear: gradient sizes");
        let out = Disjoint::new(bias);
        columns::add(runtime, &[ColumnSum { rows: View::new(dy, n), weights: None, out: &out, offset: 0, stride: 1 }]);
    }
    Ok(())
}

/// dx = dy W, part by part.
fn input_gradient(runtime: &Runtime, linear: &Linear, dy: &[f32], dx: &mut [f32], write: Write) -> Result<()> {
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

/// y (=, +=) W x + b with many tokens, through the adapter in `slot`.
pub(super) fn apply(
    runtime: &Runtime,
    x: &[f32],
    linear: &Linear,
    slot: Option<usize>,
    y: &mut [f32],
    write: Write,
) -> Result<()> {
    let out = Disjoint::new(y);
    let x = View::new(x, linear.cols());
    let mut first = 0;
    let mut products = Vec::with_capacity(linear.parts().len());
    for super::Part { weight, bias } in linear.parts() {
        let y = Target { data: &out, stride: linear.rows(), offset: first };
        products.push(Product { x, weight: Weight::Rows(weight), bias: bias.as_deref(), y, write });
        first += weight.rows();
    }
    gemm::apply(runtime, &products)?;
    drop(products);
    low_rank::add_forward(runtime, x, linear.adapter(slot), y, linear.rows())
}
