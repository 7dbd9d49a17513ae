//! Gradients of a norm. With r = 1 / sqrt(mean(x^2) + eps) and u = dy g: dg += sum over tokens of dy x r,
//! dx += r u - x r^3 mean(u x) (SPEC 7.2).

use super::{Norm, cuda_train};
use crate::cpu::columns::{self, ColumnSum};
use crate::cpu::disjoint::Disjoint;
use crate::cpu::gemm::View;
use crate::cpu::lanes::{dot, fma, versions};
use crate::cuda::Device;
use crate::{Result, Runtime, Step, Tensor};

/// Adds to dg [D], unless it is frozen, and to dx [T, D], where x [T, D] went in and dy [T, D] comes back.
pub fn backward(
    step: &mut Step,
    x: &Tensor,
    norm: &Norm,
    dy: &Tensor,
    d_norm: Option<&mut [f32]>,
    dx: &mut Tensor,
) -> Result<()> {
    assert!(x.rows() == dy.rows() && x.rows() == dx.rows() && x.cols() == dx.cols(), "rms_norm: shapes");
    match &step.runtime.device {
        Device::Cpu => gradients(step.runtime, (x.host(), dy.host()), norm, d_norm, dx.host_mut(), None),
        Device::Cuda(gpu) => cuda_train::backward(gpu, x, norm, dy, d_norm.as_deref(), dx, false),
    }
}

/// The same where dy [R, D] belongs to the rows `step.logits_rows` only.
pub fn backward_logits_rows(
    step: &mut Step,
    x: &Tensor,
    norm: &Norm,
    dy: &Tensor,
    d_norm: Option<&mut [f32]>,
    dx: &mut Tensor,
) -> Result<()> {
    assert!(dy.rows() == step.logits_rows.len() && x.rows() == dx.rows() && x.cols() == dx.cols(), "rms_norm: shapes");
    let rows = Some(&step.logits_rows[..]);
    match &step.runtime.device {
        Device::Cpu => gradients(step.runtime, (x.host(), dy.host()), norm, d_norm, dx.host_mut(), rows),
        Device::Cuda(gpu) => cuda_train::backward(gpu, x, norm, dy, d_norm.as_deref(), dx, true),
    }
}

fn gradients(
    runtime: &Runtime,
    (x, dy): (&[f32], &[f32]),
    norm: &Norm,
    d_norm: Option<&mut [f32]>,
    dx: &mut [f32],
    rows: Option<&[u32]>,
) -> Result<()> {
    let d = norm.weight.len();
    assert!(
        d_norm.as_ref().is_none_or(|g| g.len() == d) && dy.len().is_multiple_of(d),
        "rms_norm: the gradient is as wide as the norm"
    );
    let mut terms = runtime.arena.take::<f32>(dy.len())?;
    let (dx, out) = (Disjoint::new(dx), Disjoint::new(&mut terms));
    runtime.pool.run_ranges(dy.len() / d, (1 << 13) / d + 1, |range, _| {
        for i in range {
            let row = rows.map_or(i, |rows| rows[i] as usize);
            let (x, dy) = (&x[row * d..(row + 1) * d], &dy[i * d..(i + 1) * d]);
            // SAFETY: rows of one run do not overlap; `rows` is ascending, so no row is named twice.
            let (dx, terms) = unsafe { (dx.part(row * d..(row + 1) * d), out.part(i * d..(i + 1) * d)) };
            row_gradient(runtime.isa, x, norm, dy, dx, terms);
        }
    });
    if let Some(d_norm) = d_norm {
        let (out, rows) = (Disjoint::new(d_norm), View::new(&terms, d));
        columns::add(runtime, &[ColumnSum { rows, weights: None, out: &out, offset: 0, stride: 1 }]);
    }
    Ok(())
}

versions! {
    fn row_gradient(x: &[f32], norm: &Norm, dy: &[f32], dx: &mut [f32], terms: &mut [f32]) = row_gradient_body
}

#[inline(always)]
fn row_gradient_body<const FMA: bool>(x: &[f32], norm: &Norm, dy: &[f32], dx: &mut [f32], terms: &mut [f32]) {
    let (n, g) = (x.len(), &norm.weight[..x.len()]);
    let (dy, dx, terms) = (&dy[..n], &mut dx[..n], &mut terms[..n]);
    let r = 1.0 / (dot::<FMA>(x, x) / n as f32 + norm.eps).sqrt();
    for i in 0..n {
        terms[i] = dy[i] * x[i] * r;
    }
    // u x r is g times the term of dg.
    let mean = dot::<FMA>(terms, g) / n as f32;
    for i in 0..n {
        dx[i] += r * fma::<FMA>(dy[i], g[i], -(x[i] * r * mean));
    }
}
