//! Both directions for training, by `cpu::gemm`.

use super::{LowRank, LowRankGrad};
use crate::arena::Slice;
use crate::cpu::disjoint::Disjoint;
use crate::cpu::gemm::{self, Outer, Product, Target, View, Weight, Write};
use crate::{Result, Runtime};

impl LowRank {
    fn a_view(&self) -> View<'_> {
        View::new(&self.a, self.cols())
    }

    fn b_view(&self) -> View<'_> {
        View::new(&self.b, self.rank)
    }

    /// s x A ᵀ [T, r].
    fn inner(&self, runtime: &Runtime, x: View) -> Result<Slice<f32>> {
        self.thin(runtime, x, Weight::PlainRows(self.a_view()))
    }

    /// s x W [T, r].
    fn thin(&self, runtime: &Runtime, x: View, weight: Weight) -> Result<Slice<f32>> {
        let mut u = runtime.arena.take::<f32>(x.rows * self.rank)?;
        let out = Disjoint::new(&mut u);
        let y = Target { data: &out, stride: self.rank, offset: 0 };
        gemm::apply(runtime, &[Product { x, weight, bias: None, y, write: Write::Set }])?;
        scale(&mut u, self.scale);
        Ok(u)
    }
}

/// Multiplies all numbers by `s`.
pub fn scale(values: &mut [f32], s: f32) {
    values.iter_mut().for_each(|v| *v *= s);
}

/// y [T, stride] += s B A x in the columns of each of `adapters`.
pub fn add_forward(runtime: &Runtime, x: View, adapters: &[LowRank], y: &mut [f32], stride: usize) -> Result<()> {
    for low_rank in adapters {
        let u = low_rank.inner(runtime, x)?;
        let out = Disjoint::new(y);
        let y = Target { data: &out, stride, offset: low_rank.first };
        let (x, weight) = (View::new(&u, low_rank.rank), Weight::PlainRows(low_rank.b_view()));
        gemm::apply(runtime, &[Product { x, weight, bias: None, y, write: Write::Add }])?;
    }
    Ok(())
}

/// dx [T, K] += v A, and the gradients of the adapters to `grads`, which is empty where they are frozen; dy has the
/// columns of the whole layer.
pub fn add_backward(
    runtime: &Runtime,
    x: View,
    adapters: &[LowRank],
    dy: View,
    grads: &mut [LowRankGrad],
    dx: &mut [f32],
) -> Result<()> {
    assert!(grads.is_empty() || grads.len() == adapters.len(), "low_rank: a gradient for each adapter's part");
    for (which, low_rank) in adapters.iter().enumerate() {
        let (rank, cols, outputs) = (low_rank.rank, low_rank.cols(), low_rank.outputs());
        let dy = dy.columns(outputs.start, outputs.len());
        let v = low_rank.thin(runtime, dy, Weight::PlainColumns(low_rank.b_view()))?;
        let v = View::new(&v, rank);
        if let Some(LowRankGrad { a, b }) = grads.get_mut(which) {
            assert!(a.len() == low_rank.a.len() && b.len() == low_rank.b.len(), "low_rank: gradient sizes");
            let u = low_rank.inner(runtime, x)?;
            let (a, b) = (Disjoint::new(a), Disjoint::new(b));
            let gradient = Target { data: &b, stride: rank, offset: 0 };
            let b = Outer { dy, x: View::new(&u, rank), gradient };
            let a = Outer { dy: v, x, gradient: Target { data: &a, stride: cols, offset: 0 } };
            gemm::outer(runtime, &[b, a])?;
        }
        let out = Disjoint::new(dx);
        let y = Target { data: &out, stride: cols, offset: 0 };
        let weight = Weight::PlainColumns(low_rank.a_view());
        gemm::apply(runtime, &[Product { x: v, weight, bias: None, y, write: Write::Add }])?;
    }
    Ok(())
}
